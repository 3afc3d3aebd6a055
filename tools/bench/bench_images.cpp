// Images a second that the loader makes of a config's training data, without a model: decoding,
// augmentation and mixing on data.workers threads.
#include <fmt/format.h>

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

void run(const std::string& path, const std::vector<std::string>& overrides, int64_t steps) {
  Config config = read_config(path, overrides);
  if (config.task != TaskKind::image_classification)
    throw UsageError("{} is no config of images", path);
  std::shared_ptr<const ImageSet> images =
      open_image_set(config.data.source, config.data.train, config.model.vision.channels, 0);
  config.model.vision.classes = static_cast<int64_t>(images->class_names().size());
  const ShuffledImages loader(images, config);
  const int workers = loader_threads(config.data, SingleProcess().cores());
  Prefetcher<ImageBatch> batches([&](int64_t number) { return loader.get(number); }, 0,
                                 prefetch_depth(config.data, SingleProcess().cores(), 1), workers,
                                 steps);
  // Until every thread has made a batch, threads start and files are read for the first time.
  const int64_t first = std::min<int64_t>(workers, steps - 1);
  for (int64_t step = 0; step < first; ++step) batches.next();
  const auto start = std::chrono::steady_clock::now();
  while (batches.next()) {
  }
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const int64_t made = (steps - first) * config.train.micro_batch;
  fmt::print("{} images of {} on {} threads in {:.2f} s: {:.0f} images/s, {:.0f} a thread\n", made,
             config.data.train[0], workers, seconds, static_cast<double>(made) / seconds,
             static_cast<double>(made) / seconds / workers);
}

}  // namespace
}  // namespace sigtrain

int main(int argc, char** argv) {
  CLI::App app{"Images a second of the loader alone.", "bench_images"};
  std::string config;
  std::vector<std::string> overrides;
  int64_t steps = 50;
  app.add_option("--config", config, "YAML file of a run on images")->required();
  app.add_option("--set", overrides, "Override a key of the config")->type_name("KEY=VALUE");
  app.add_option("--steps", steps, "Micro-batches to make")
      ->capture_default_str()
      ->check(CLI::Range(2, 1000000));
  try {
    app.parse(argc, argv);
    sigtrain::run(config, overrides, steps);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
