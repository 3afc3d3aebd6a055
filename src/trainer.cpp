// The program: parse, build, run.
#include <omp.h>
#include <spdlog/spdlog.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <new>
#include <numeric>
#include <string>
#include <vector>

#include "config/derived.h"
#include "config/reader.h"
#include "config/validate.h"
#include "config/writer.h"
#include "core/error.h"
#include "core/log.h"
#include "data/fnv.h"
#include "data/missing_data.h"
#include "dist/communicator.h"
#include "dist/process_group.h"
#include "dist/same_everywhere.h"
#include "ops/backend.h"
#include "ops/planning_ops.h"
#include "tasks/make_task.h"
#include "train/loop.h"
#include "train/memory_plan.h"
#include "train/snapshot.h"

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
  try {
    return open_checkpoint(arguments.resume);
  } catch (const Error& error) {
    throw Error("--resume: {}; --resume auto takes the newest intact checkpoint of the run, {}",
                error.what(), folder.string());
  }
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
std::string resume_command(const Arguments& arguments, const std::filesystem::path& folder,
                           int ranks) {
  std::string command = ranks > 1 ? fmt::format("mpirun -np {} ", ranks) : "";
  command += fmt::format("{} --config {} --resume auto", shell_word(arguments.program),
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

void require_data(const DataConfig& data) {
  if (const std::string missing = describe_missing_data(data); !missing.empty())
    throw UsageError("{}", missing);
}

/// What does not go with the number of ranks.
void check_ranks(const Config& config, int ranks) {
  if (ranks == 1) return;
  const TrainConfig& train = config.train;
  if (train.global_batch % (train.micro_batch * ranks) == 0) return;
  const std::string problem = fmt::format(
      "train.global_batch, {}, is not a multiple of train.micro_batch, {}, times {} ranks",
      train.global_batch, train.micro_batch, ranks);
  const int64_t share = train.global_batch / ranks;
  if (train.global_batch % ranks != 0) {
    throw UsageError("{}, nor of {}: choose another train.global_batch or number of ranks", problem,
                     ranks);
  }
  throw UsageError("{}: set train.micro_batch={}, or another divisor of {}", problem,
                   std::gcd(share, train.micro_batch), share);
}

void run(const Arguments& arguments, ProcessGroup& group) {
  Config config;
  std::unique_ptr<Ops> ops;
  std::unique_ptr<Task> task;
  together(group, [&] {
    config = read_config(arguments.config, arguments.overrides);
    if (arguments.dry_run) {
      ops = make_backend_to_plan_for(arguments.device, group.local_rank());
    } else {
      require_data(config.data);
      ops = make_backend(arguments.device, group.local_rank());
    }
    task = make_task(config);
  });
  if (group.size() > 1) {
    Facts facts = program_and_config(config);
    facts.emplace_back("the device", ops->name());
    check_same_everywhere(group, facts);
  }
  MemoryPlan plan;
  together(group, [&] {
    check_ranks(config, group.size());
    task->join(group);
    // What the data decide about memory, the longest transcript, --dry-run has only a bound of.
    if (!arguments.dry_run) task->open_data();
    PlanningOps planning(*ops);
    task->prepare(planning);
    plan = plan_run(config, *task, *ops, !arguments.eval_only, group);
  });
  if (arguments.dry_run) {
    if (group.is_root()) fmt::print("{}", describe_plan(plan, config, *task));
    return;
  }
  const std::filesystem::path folder = run_dir(config.run);
  check_same_everywhere(group, {{"data like", task->data_state(0).dump()},
                                {"validation data of hash", hash_text(task->validation_hash())}});
  // One rank reads checkpoints and writes files: the others need not see its disk.
  std::optional<CheckpointReader> checkpoint;
  together(group, [&] {
    if (!group.is_root()) return;
    checkpoint = find_checkpoint(arguments, folder);
    // Here already: an earlier run is not moved aside for one that cannot start.
    if (checkpoint) check_same_model(*checkpoint, config);
  });
  const bool has_checkpoint = group.broadcast(checkpoint ? "yes" : "") == "yes";
  // All of it at once, and before an earlier run is moved aside: each part by itself may fit.
  together(group, [&] { ops->allocate(plan.total()); });
  const std::unique_ptr<Communicator> communicator = make_communicator(group, *ops);
  if (arguments.eval_only) {
    together(group, [&] {
      if (!has_checkpoint)
        throw UsageError("--eval-only: no checkpoint under {}; name one with --resume PATH",
                         (folder / "checkpoints").string());
    });
    evaluate_checkpoint(config, *task, *ops, *communicator, plan,
                        checkpoint ? &*checkpoint : nullptr);
    return;
  }
  if (!has_checkpoint && arguments.resume == "auto")
    spdlog::info("no checkpoint under {}: starting afresh", folder.string());
  together(group, [&] {
    if (!group.is_root()) return;
    make_run_folder(folder, checkpoint);
    init_log(
        {.ranks = group.size(), .live = !group.is_distributed(), .file = folder / "train.log"});
  });
  const std::string ranks = group.size() > 1 ? fmt::format("{} ranks, ", group.size()) : "";
  spdlog::info("{}: {:.2f}M parameters, {} attention, {}{} on {} threads, {:.1f} MiB planned",
               config.run.name, static_cast<double>(task->parameters().count()) * 1e-6,
               config.model.attention.kind == AttentionKind::sigmoid ? "sigmoid" : "softmax", ranks,
               ops->name(), omp_get_max_threads(), static_cast<double>(plan.total()) / (1 << 20));
  train(config, *task, *ops, *communicator, plan,
        {has_checkpoint, std::move(checkpoint), resume_command(arguments, folder, group.size())});
}

/// Says what ended this rank. Returns the exit code.
int tell(const std::exception& error) {
  const auto* agreed = dynamic_cast<const AgreedFailure*>(&error);
  const bool is_usage =
      agreed ? agreed->is_usage : dynamic_cast<const UsageError*>(&error) != nullptr;
  clear_live_line();
  if (dynamic_cast<const std::bad_alloc*>(&error)) {
    spdlog::error(
        "out of host memory; use a smaller train.global_batch, data.prefetch, sequence or model");
  } else if (is_usage) {
    fmt::print(stderr, "{}\n", error.what());
  } else {
    spdlog::error("{}", error.what());
  }
  return is_usage ? 2 : 1;
}

/// The cores of this machine are shared out among its ranks, unless OMP_NUM_THREADS says otherwise.
void share_cores(const ProcessGroup& group) {
  if (!group.is_distributed() || std::getenv("OMP_NUM_THREADS") != nullptr) return;
  omp_set_num_threads(std::min(group.cores(), omp_get_max_threads()));
}

/// Joins the other ranks, runs, and leaves them in good order or, when this rank or another has
/// failed, at once. Returns the exit code.
int run_in_group(const Arguments& arguments) {
  const std::unique_ptr<ProcessGroup> group = join_process_group();
  // mpirun gives its ranks a terminal of their own, whatever its output goes to.
  init_log({.rank = group->rank(), .ranks = group->size(), .live = !group->is_distributed()});
  share_cores(*group);
  int code = 0;
  try {
    try {
      run(arguments, *group);
    } catch (const AgreedFailure& failure) {
      if (group->is_root() || !failure.is_common) tell(failure);
      code = failure.is_usage ? 2 : 1;
    }
    group->leave();
    return code;
  } catch (const std::exception& error) {
    code = tell(error);
    group->fail(error.what());
    if (!group->is_distributed()) return code;
  }
  // Ending MPI or the GPU's work in good order would wait for ranks that are gone.
  spdlog::shutdown();
  std::fflush(nullptr);
  std::_Exit(code);
}

}  // namespace
}  // namespace sigtrain

int main(int argc, char** argv) {
  using namespace sigtrain;
  CLI::App app{"Trains a transformer with sigmoid or softmax attention.", "trainer"};
  Arguments arguments;
  arguments.program = argv[0];
  std::vector<std::string> configs;
  app.add_option("--config", configs, "YAML file of the run")->required()->allow_extra_args(false);
  app.add_option("--set", arguments.overrides,
                 "Override a key of the config: --set train.steps=100")
      ->type_name("KEY=VALUE");
  app.add_option("--device", arguments.device, "auto, cpu or cuda")->capture_default_str();
  app.add_option("--resume", arguments.resume,
                 "auto: the newest intact checkpoint of the run; or the path of one")
      ->type_name("auto|PATH");
  app.add_flag("--eval-only", arguments.eval_only,
               "Print the validation loss of a checkpoint (the newest, or that of --resume)");
  app.add_flag("--dry-run", arguments.dry_run,
               "Print parameters, memory plan (see train.recompute) and FLOPs, and exit; with "
               "--device cuda also where there is no GPU");
  app.add_flag_callback(
         "--keys",
         [] {
           fmt::print("{}", config_reference());
           throw CLI::Success();
         },
         "Print every key of a config with its default, what it means and may be, and exit")
      ->trigger_on_parse();
  try {
    app.parse(argc, argv);
    init_log({});
    if (configs.size() > 1) {
      throw UsageError(
          "--config takes one file, not {}: a config inherits from another with a line `base: "
          "FILE`",
          configs.size());
    }
    arguments.config = configs[0];
    return run_in_group(arguments);
  } catch (const CLI::ExtrasError& error) {
    app.exit(error);
    fmt::print(stderr, "The config goes behind --config, its keys behind --set KEY=VALUE.\n");
    return 2;
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  } catch (const std::exception& error) {
    return tell(error);
  }
}
