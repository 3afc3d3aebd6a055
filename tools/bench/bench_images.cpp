// Images a second that the loader makes of a config's training data, without a model: decoding,
// augmentation and mixing on 1, 2, 4 ... data.workers threads, and what they cost the processor.
#include <fmt/format.h>
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <string>
#include <vector>

#include "config/reader.h"
#include "data/image_loader.h"
#include "data/loader_threads.h"
#include "data/prefetcher.h"
#include "tasks/image_classification.h"

namespace sigtrain {
namespace {

double seconds_of(const timeval& time) {
  return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
}

/// What the whole process has used so far.
struct Usage {
  double wall, user, system;
  int64_t page_faults;

  static Usage now() {
    rusage used{};
    getrusage(RUSAGE_SELF, &used);
    const auto wall = std::chrono::steady_clock::now().time_since_epoch();
    return {std::chrono::duration<double>(wall).count(), seconds_of(used.ru_utime),
            seconds_of(used.ru_stime), used.ru_minflt};
  }
};

/// Takes batches off the loader's queue as fast as they come, for about `seconds`, and prints a
/// line. An image's costs are of all that the process did between two batches taken.
void time_threads(const BatchMaker<ImageBatch>& maker, int64_t micro_batch, int64_t depth,
                  int threads, double seconds) {
  Prefetcher<ImageBatch> batches(maker, 0, depth, threads);
  // Until the queue has been full, threads start and memory is new.
  for (int64_t i = 0; i < depth; ++i) batches.next();
  const Usage start = Usage::now();
  Usage end = start;
  int64_t images = 0;
  do {
    batches.next();
    images += micro_batch;
    end = Usage::now();
  } while (end.wall - start.wall < seconds);
  const auto made = static_cast<double>(images);
  const double wall = end.wall - start.wall;
  const double user = end.user - start.user, system = end.system - start.system;
  fmt::print("{:7} {:9.0f} {:14.0f} {:9.3f} {:9.3f} {:12.1f} {:10.2f}\n", threads, made / wall,
             made / wall / threads, 1e3 * user / made, 1e3 * system / made,
             static_cast<double>(end.page_faults - start.page_faults) / made,
             (user + system) / wall);
  std::fflush(stdout);
}

void run(const std::string& path, const std::vector<std::string>& overrides, double seconds) {
  Config config = read_config(path, overrides);
  if (config.task != TaskKind::image_classification)
    throw UsageError("{} is no config of images", path);
  std::shared_ptr<const ImageSet> images =
      open_image_set(config.data.source, config.data.train, config.model.vision.channels, 0);
  config.model.vision.classes = static_cast<int64_t>(images->class_names().size());
  const ShuffledImages loader(images, config);
  const auto maker = loader.maker([](int64_t step) { return step; });
  const int cores = SingleProcess().cores(), workers = loader_threads(config.data, cores);
  fmt::print("{} images of {}, micro-batches of {}, {} cores\n", images->size(),
             config.data.train[0], config.train.micro_batch, cores);
  fmt::print("threads  images/s images/s/thread user [ms] sys [ms] page faults cores busy\n");
  std::vector<int> counts;
  for (int threads = 1; threads < workers; threads *= 2) counts.push_back(threads);
  counts.push_back(workers);
  for (const int threads : counts) {
    config.data.workers = threads;
    time_threads(maker, config.train.micro_batch,
                 prefetch_depth(config.data, cores, 1, maker.threads()), threads, seconds);
  }
}

}  // namespace
}  // namespace sigtrain

int main(int argc, char** argv) {
  CLI::App app{"Images a second of the loader alone.", "bench_images"};
  std::string config;
  std::vector<std::string> overrides;
  double seconds = 1.5;
  app.add_option("--config", config, "YAML file of a run on images")->required();
  app.add_option("--set", overrides, "Override a key of the config")->type_name("KEY=VALUE");
  app.add_option("--seconds", seconds, "For each number of threads, at least")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 3600.0));
  try {
    app.parse(argc, argv);
    sigtrain::run(config, overrides, seconds);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
