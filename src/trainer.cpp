// The program: parse, build, run.
#include <omp.h>
#include <spdlog/spdlog.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "config/derived.h"
#include "config/reader.h"
#include "config/validate.h"
#include "core/error.h"
#include "core/log.h"
#include "ops/backend.h"
#include "ops/planning_ops.h"
#include "tasks/make_task.h"
#include "train/loop.h"
#include "train/memory_plan.h"

namespace sigtrain {
namespace {

struct Arguments {
  std::string program;
  std::string config;
  std::vector<std::string> overrides;
  std::string device = "auto";
  std::string resume;
  bool eval_only = false;
  bool dry_run = false;
};

/// What --resume asks for: nothing, the newest good checkpoint (auto), or the one at a path.
std::optional<CheckpointReader> find_checkpoint(const Arguments& arguments,
                                                const std::filesystem::path& folder) {
  if (arguments.resume.empty() && !arguments.eval_only) return std::nullopt;
  if (arguments.resume.empty() || arguments.resume == "auto") {
    return find_resumable(folder / "checkpoints",
                          [](const std::string& message) { spdlog::warn("{}", message); });
  }
  return open_checkpoint(arguments.resume);
}

/// `text` as one word of a shell's command line.
std::string shell_word(const std::string& text) {
  const auto is_plain = [](unsigned char c) {
    return std::isalnum(c) != 0 || std::strchr("_-./+=:,@%", c) != nullptr;
  };
  if (!text.empty() && std::all_of(text.begin(), text.end(), is_plain)) return text;
  std::string word = "'";
  for (const char c : text) word += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return word + "'";
}

/// The command that goes on with this run when given in the same folder.
std::string resume_command(const Arguments& arguments, const std::filesystem::path& folder) {
  std::string command = fmt::format("{} --config {} --resume auto", shell_word(arguments.program),
                                    shell_word((folder / "config.yaml").string()));
  if (arguments.device != "auto") command += " --device " + arguments.device;
  return command;
}

/// Whether the checkpoint is one of the run's own, not of another run that this one branches from.
bool is_of_run(const CheckpointReader& checkpoint, const std::filesystem::path& folder) {
  namespace fs = std::filesystem;
  return fs::weakly_canonical(checkpoint.path() / "..") ==
         fs::weakly_canonical(folder / "checkpoints");
}

/// A fresh run never overwrites an earlier one of the same name: that is renamed to NAME.1, NAME.2,
/// ...
void move_earlier_run_aside(const std::filesystem::path& folder) {
  namespace fs = std::filesystem;
  if (!fs::exists(folder / "metrics.jsonl") && !fs::exists(folder / "checkpoints")) return;
  fs::path aside;
  for (int n = 1; aside.empty() || fs::exists(aside); ++n)
    aside = folder.string() + "." + std::to_string(n);
  fs::rename(folder, aside);
  spdlog::info("an earlier run in {} was moved to {}; --resume auto would have continued it",
               folder.string(), aside.string());
}

/// The folder that the run writes to.
void make_run_folder(const std::filesystem::path& folder,
                     const std::optional<CheckpointReader>& checkpoint) {
  try {
    if (!checkpoint || !is_of_run(*checkpoint, folder)) move_earlier_run_aside(folder);
    std::filesystem::create_directories(folder);
  } catch (const std::filesystem::filesystem_error& error) {
    throw Error("cannot make the run's folder {}: {}; choose another with run.dir", folder.string(),
                error.code().message());
  }
}

int run(const Arguments& arguments) {
  Config config = read_config(arguments.config, arguments.overrides);
  const std::unique_ptr<Ops> ops = make_backend(arguments.device);
  const std::unique_ptr<Task> task = make_task(config);
  PlanningOps planning(*ops);
  task->prepare(planning);
  const MemoryPlan plan = plan_run(config, *task, *ops, !arguments.eval_only);
  if (arguments.dry_run) {
    fmt::print("{}", describe_plan(plan, config, *task));
    return 0;
  }
  const std::filesystem::path folder = run_dir(config.run);
  std::optional<CheckpointReader> checkpoint = find_checkpoint(arguments, folder);
  task->open_data();
  if (arguments.eval_only) {
    if (!checkpoint)
      throw UsageError("--eval-only: no checkpoint under {}; name one with --resume PATH",
                       (folder / "checkpoints").string());
    evaluate_checkpoint(config, *task, *ops, plan, *checkpoint);
    return 0;
  }
  if (!checkpoint && arguments.resume == "auto")
    spdlog::info("no checkpoint under {}: starting afresh", folder.string());
  make_run_folder(folder, checkpoint);
  init_log({.file = folder / "train.log"});
  spdlog::info("{}: {:.2f}M parameters, {} attention, {} on {} threads, {:.1f} MiB planned",
               config.run.name, static_cast<double>(task->parameters().count()) * 1e-6,
               config.model.attention.kind == AttentionKind::sigmoid ? "sigmoid" : "softmax",
               ops->name(), omp_get_max_threads(), static_cast<double>(plan.total()) / (1 << 20));
  train(config, *task, *ops, plan, {std::move(checkpoint), resume_command(arguments, folder)});
  return 0;
}

}  // namespace
}  // namespace sigtrain

int main(int argc, char** argv) {
  using namespace sigtrain;
  CLI::App app{"Trains a transformer with sigmoid or softmax attention.", "trainer"};
  Arguments arguments;
  arguments.program = argv[0];
  app.add_option("--config", arguments.config, "YAML file of the run")->required();
  app.add_option("--set", arguments.overrides,
                 "Override a key of the config: --set train.steps=100")
      ->type_name("KEY=VALUE");
  app.add_option("--device", arguments.device, "auto, cpu or cuda")->capture_default_str();
  app.add_option("--resume", arguments.resume,
                 "auto: the newest intact checkpoint of the run; or the path of one");
  app.add_flag("--eval-only", arguments.eval_only,
               "Print the validation loss of a checkpoint (the newest, or that of --resume)");
  app.add_flag("--dry-run", arguments.dry_run,
               "Print parameters, memory plan (see train.recompute) and FLOPs, and exit");
  try {
    app.parse(argc, argv);
    init_log({});
    return run(arguments);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  } catch (const UsageError& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 2;
  } catch (const std::exception& error) {
    clear_live_line();
    spdlog::error("{}", error.what());
    return 1;
  }
}
