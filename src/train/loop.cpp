#include "train/loop.h"

#include <spdlog/spdlog.h>

#include <chrono>
#include <cmath>
#include <filesystem>

#include "config/derived.h"
#include "config/writer.h"
#include "core/bytes_text.h"
#include "core/file_io.h"
#include "train/data_parallel.h"
#include "train/metrics.h"
#include "train/optimizer.h"
#include "train/progress.h"
#include "train/schedule.h"
#include "train/signals.h"
#include "train/snapshot.h"
#include "train/tensorboard.h"

namespace sigtrain {
namespace {

/// Whether something due every `every` steps is due at this one; 0: never.
bool is_multiple(int64_t step, int64_t every) { return every > 0 && step % every == 0; }

/// What a report says beside the loss, under its name and `suffix`.
void add_measures(MetricsRecord& line, const LossReport& report, const std::string& suffix = "") {
  if (report.accuracy) line.add("accuracy" + suffix, *report.accuracy);
  if (report.top5) line.add("top5" + suffix, *report.top5);
  if (report.letter_error_rate) line.add("letter_error_rate" + suffix, *report.letter_error_rate);
  for (const auto& [name, value] : report.more) line.add(name + suffix, value);
}

/// Seconds since it was started.
class Stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }
  void restart() { start_ = Clock::now(); }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point start_ = Clock::now();
};

/// Does `work`, and tells the other ranks what it throws, while the memory that is exchanged is
/// still there: they may be waiting for this rank, and its exchanges for them.
template <typename Work>
void telling_others(ProcessGroup& group, const Work& work) {
  try {
    work();
  } catch (const RankFailure&) {
    throw;
  } catch (const AgreedFailure&) {
    throw;
  } catch (const std::exception& error) {
    // What follows from another rank's end, such as an exchange that was given up, is not told.
    group.check();
    group.fail(error.what());
    throw;
  }
}

/// The memory of a run, allocated once.
struct RunMemory {
  RunMemory(const Config& config, Task& task, Ops& ops, Communicator& communicator,
            const MemoryPlan& plan, bool training)
      : parameters(task.parameters(), ops,
                   parameter_buffers(config, training, ops, communicator.group())),
        ranks(communicator, parameters),
        arena_memory(ops.allocate(plan.arena)),
        arena(arena_memory.get(), plan.arena),
        workspace_memory(ops.allocate(plan.workspace.value())),
        diagnostics(ops, task.layers(), training ? task.micro_steps() : 1) {
    ops.set_workspace({workspace_memory.get(),
                       DType::f32,
                       {static_cast<int64_t>(plan.workspace.value() / sizeof(float))}});
    ops.set_deterministic(config.train.deterministic);
    task.prepare(ops);
  }

  ParameterStore parameters;
  DataParallel ranks;
  DeviceMemory arena_memory;
  Arena arena;
  DeviceMemory workspace_memory;
  Diagnostics diagnostics;
};

class TrainingRun {
 public:
  TrainingRun(const Config& config, Task& task, Ops& ops, Communicator& communicator,
              const MemoryPlan& plan, const LoopOptions& options)
      : config_(config),
        task_(task),
        ops_(ops),
        group_(communicator.group()),
        folder_(run_dir(config.run)),
        resume_command_(options.resume_command),
        plan_(plan),
        memory_(config, task, ops, communicator, plan, true),
        ranks_(memory_.ranks),
        optimizer_(memory_.parameters, ops, config.optimizer, config.model.width),
        uses_graph_(config.train.cuda_graph && ops.can_capture()) {
    if (config.train.cuda_graph && !uses_graph_)
      spdlog::info("train.cuda_graph has no effect on the {} backend", ops.name());
  }

  /// Fills the memory and opens the files; before run().
  void begin(const LoopOptions& options) {
    memory_.parameters.initialize(ops_, config_.train.seed);
    std::optional<int64_t> resume_step;
    if (options.resumes) {
      progress_ = load_snapshot(options.resume ? &*options.resume : nullptr, config_, ops_, task_,
                                ranks_, optimizer_);
      resume_step = saved_step_ = progress_.step;
    }
    seconds_before_ = progress_.seconds;
    together(group_, [&] {
      if (group_.is_root()) open_files(options, resume_step);
    });
  }

  void run() {
    if (is_done()) {
      spdlog::info("all {} steps are done; a larger train.steps goes on", progress_.step);
      return;
    }
    const StopSignal received;
    int stop = 0;
    Progress progress(progress_.step, config_.train.steps);
    restart_interval();
    while (progress_.step < config_.train.steps && (stop = agreed_signal(received)) == 0) {
      const int64_t next = progress_.step + 1;
      const bool is_last = next == config_.train.steps;
      const bool evaluates =
          task_.has_validation() && (is_last || is_multiple(next, config_.eval.every));
      const bool is_logged =
          evaluates || is_last || next == 1 || is_multiple(next, config_.log.every);
      const bool is_first = !has_stepped_;
      step(is_logged);
      if (is_first) log_memory();
      ProgressValues shown;
      shown.step = progress_.step;
      if (is_logged) log_step(shown);
      if (evaluates) log_evaluation(shown);
      if (is_logged) {
        progress.log(shown, clock_.seconds(), held_in_all_);
      } else {
        progress.update(shown, clock_.seconds(), held_in_all_);
      }
      // While steps are skipped the weights stay as they were: copies of them would only push the
      // checkpoints from before the trouble out of the last checkpoint.keep.
      if (is_last ||
          (is_multiple(next, config_.checkpoint.every) && optimizer_.report(ops_).finite))
        save();
    }
    if (has_stepped_) log_memory();
    if (progress_.step < config_.train.steps) {
      if (saved_step_ != progress_.step) save();
      if (group_.is_root())
        spdlog::warn("stopped by {} after step {}; to go on: {}",
                     stop == SIGINT ? "SIGINT" : "SIGTERM", progress_.step, resume_command_);
    }
  }

 private:
  bool is_done() const { return progress_.step >= config_.train.steps; }

  void open_files(const LoopOptions& options, std::optional<int64_t> resume_step) {
    if (resume_step) {
      spdlog::info("resuming {} at step {}", options.resume->path().string(), progress_.step);
      if (is_done()) return;  // and the files stay as they are
      const std::string other = describe_other_schedule(*options.resume, config_);
      if (!other.empty())
        spdlog::warn("from here on the learning rate follows another schedule: {}", other);
      for (const auto& path : set_aside_after(folder_ / "checkpoints", progress_.step)) {
        spdlog::warn("{}: from after the step resumed, set aside", path.string());
      }
    }
    write_file(folder_ / "config.yaml", to_yaml(config_));
    metrics_.emplace(folder_ / "metrics.jsonl", resume_step);
    if (config_.log.tensorboard) tensorboard_.emplace(folder_, progress_.step + 1);
  }

  /// The signal to stop at that any rank got, the same on all; 0: none.
  int agreed_signal(const StopSignal& received) {
    double counts[2] = {received.signal() == SIGINT ? 1.0 : 0.0,
                        received.signal() == SIGTERM ? 1.0 : 0.0};
    group_.sum(counts);
    return counts[0] > 0.0 ? SIGINT : counts[1] > 0.0 ? SIGTERM : 0;
  }

  Context context(bool training, bool with_diagnostics) {
    return {ops_,
            memory_.arena,
            memory_.parameters,
            0,
            0,
            config_.train.seed,
            training,
            with_diagnostics ? &memory_.diagnostics : nullptr,
            config_.train.recompute,
            &ranks_};
  }

  void step(bool is_logged) {
    // All that differs from step to step goes to the device first ...
    task_.begin_step(ops_, progress_.step);
    optimizer_.set_rate(ops_,
                        schedule_factor(config_.schedule, config_.train.steps, progress_.step + 1));
    // ... so that a step can be the last one over again. The first one chooses algorithms.
    const bool with_diagnostics = config_.log.diagnostics && is_logged;
    if (uses_graph_ && has_stepped_ && !with_diagnostics) {
      if (!graph_ || graph_targets_ != task_.step_targets()) {
        graph_.reset();
        graph_ = ops_.capture([&] { compute_step(false); });
        graph_targets_ = task_.step_targets();
      }
      graph_->replay();
    } else {
      measures_exchange_ = is_logged && group_.size() > 1;
      if (measures_exchange_) ranks_.communicator().measure();
      compute_step(with_diagnostics);
    }
    has_stepped_ = true;
    ++progress_.step;
    if (is_logged || ops_.is_synchronous()) check_finite();
  }

  /// The work of a step, on what is in the device's memory.
  void compute_step(bool with_diagnostics) {
    optimizer_.zero_gradients(ops_);
    for (int64_t micro = 0; micro < task_.micro_steps(); ++micro) {
      if (micro + 1 == task_.micro_steps()) ranks_.begin_exchange();
      if (with_diagnostics) memory_.diagnostics.begin_micro_batch(micro);
      Context micro_context = context(true, with_diagnostics);
      task_.micro_step(micro_context, micro);
    }
    ranks_.finish_exchange();
    optimizer_.step(ops_, &ranks_.communicator());
    ranks_.gather_weights();
    // A replayed step starts with all weights at hand, and so ends with them.
    if (uses_graph_) ranks_.finish_weights();
  }

  void log_memory() {
    if (const std::optional<MemoryUse> use = ops_.memory_use()) {
      spdlog::info("memory: {} planned for this run, {} of {} on the device in use",
                   bytes_text(plan_.total()), bytes_text(use->used), bytes_text(use->total));
    }
  }

  void check_finite() {
    report_ = optimizer_.report(ops_);
    if (!report_.finite && group_.is_root()) {
      spdlog::warn(
          "step {}: the gradient is not finite (norm {}); the step is skipped, {} in a row, {} in "
          "all",
          progress_.step, report_.grad_norm, report_.skipped_in_a_row, report_.skipped_steps);
    }
    if (report_.skipped_in_a_row >= config_.train.max_bad_steps) {
      const std::string last =
          saved_step_ ? fmt::format("the checkpoint of step {} is intact", *saved_step_)
                      : std::string("no checkpoint was written by this process");
      throw Error(
          "{} steps in a row had a loss or gradient that is not finite (train.max_bad_steps); {}. "
          "Lower "
          "optimizer.learning_rate, lengthen schedule.warmup_steps, or look at the diagnostics in "
          "{}",
          report_.skipped_in_a_row, last, (folder_ / "metrics.jsonl").string());
    }
  }

  double total_seconds() const { return seconds_before_ + clock_.seconds(); }

  void record(const MetricsRecord& record) {
    if (!group_.is_root()) return;
    metrics_->write(record);
    if (tensorboard_) tensorboard_->write(record);
  }

  void log_step(ProgressValues& shown) {
    const LossReport loss = task_.step_report(ops_);
    const double interval = interval_.seconds() - held_;
    const double units_per_second =
        static_cast<double>((progress_.step - interval_start_) * task_.units_per_step()) / interval;
    const double factor = schedule_factor(config_.schedule, config_.train.steps, progress_.step);
    MetricsRecord line;
    line.step = progress_.step;
    line.split = "train";
    line.add("loss", loss.loss);
    if (loss.objective != loss.loss) line.add("objective", loss.objective);
    add_measures(line, loss);
    line.add("lr", config_.optimizer.learning_rate * factor);
    line.add("grad_norm", report_.grad_norm);
    line.add(fmt::format("{}s_per_second", task_.unit()), units_per_second);
    // Of one rank: what its hardware does.
    const double tflops = units_per_second * plan_.flops_per_unit * 1e-12 / group_.size();
    line.add("tflops", tflops);
    if (config_.log.peak_tflops > 0.0) line.add("mfu", tflops / config_.log.peak_tflops);
    if (measures_exchange_) {
      // Means over the ranks, of this step.
      const ExchangeTimes own = ranks_.communicator().measured();
      double times[2] = {own.exchanging, own.waited};
      group_.sum(times);
      line.add("exchange_seconds", times[0] / group_.size());
      line.add("exchange_waited_seconds", times[1] / group_.size());
      measures_exchange_ = false;
    }
    line.add("seconds", total_seconds());
    line.add(fmt::format("{}s", task_.unit()), progress_.step * task_.units_per_step());
    line.add("skipped_steps", report_.skipped_steps);
    if (config_.log.diagnostics) {
      const auto by_diagnostic = memory_.diagnostics.read(ops_, group_);
      for (int d = 0; d < kDiagnosticCount; ++d) {
        line.add(std::string(name_of(static_cast<Diagnostic>(d))),
                 by_diagnostic[static_cast<size_t>(d)]);
      }
      line.add("layer_grad_norm", optimizer_.group_grad_norms(ops_));
    }
    record(line);
    shown.loss = loss.loss;
    shown.lr = config_.optimizer.learning_rate * factor;
    shown.grad_norm = report_.grad_norm;
    shown.units_per_second = units_per_second;
    shown.unit = task_.unit();
    // On a CPU without a peak to compare with it is a small number that tells nothing.
    if (ops_.name() != "cpu" || config_.log.peak_tflops > 0.0) shown.tflops = tflops;
    if (config_.log.peak_tflops > 0.0) shown.mfu = tflops / config_.log.peak_tflops;
    restart_interval();
  }

  void log_evaluation(ProgressValues& shown) {
    const double before = interval_.seconds();
    ranks_.finish_weights();
    Context evaluation = context(false, false);
    const LossReport loss = task_.evaluate(evaluation);
    MetricsRecord line;
    line.step = progress_.step;
    line.split = "validation";
    line.add("loss", loss.loss);
    add_measures(line, loss);
    line.add("targets", loss.targets);
    if (memory_.parameters.average()) {
      ranks_.use_average(ops_);
      const LossReport average = task_.evaluate(evaluation);
      ranks_.use_weights(ops_);
      line.add("loss_ema", average.loss);
      add_measures(line, average, "_ema");
    }
    line.add("seconds", total_seconds());
    line.add(fmt::format("{}s", task_.unit()), progress_.step * task_.units_per_step());
    record(line);
    shown.validation_loss = loss.loss;
    // Of tokens the loss says more.
    if (loss.top5) shown.validation_accuracy = loss.accuracy;
    shown.letter_error_rate = loss.letter_error_rate;
    hold(interval_.seconds() - before);
  }

  void save() {
    const double before = interval_.seconds();
    progress_.seconds = total_seconds();
    const auto path =
        save_snapshot(folder_ / "checkpoints", config_, ops_, task_, ranks_, optimizer_, progress_);
    saved_step_ = progress_.step;
    spdlog::info("checkpoint {}", path.string());
    hold(interval_.seconds() - before);
  }

  void hold(double seconds) {
    held_ += seconds;
    held_in_all_ += seconds;
  }

  void restart_interval() {
    interval_.restart();
    interval_start_ = progress_.step;
    held_ = 0.0;
  }

  const Config& config_;
  Task& task_;
  Ops& ops_;
  ProcessGroup& group_;
  std::filesystem::path folder_;
  std::string resume_command_;
  MemoryPlan plan_;
  RunMemory memory_;
  DataParallel& ranks_;
  Optimizer optimizer_;
  RunProgress progress_;
  double seconds_before_ = 0.0;
  std::optional<MetricsWriter> metrics_;
  std::optional<TensorBoardWriter> tensorboard_;
  OptimizerReport report_;
  std::optional<int64_t> saved_step_;
  bool uses_graph_;
  bool has_stepped_ = false;  // in this process
  bool measures_exchange_ = false;
  std::unique_ptr<CapturedWork> graph_;
  int64_t graph_targets_ = 0;
  Stopwatch clock_;
  // Units a second are of training alone: since the last logged step, less evaluations and
  // checkpoints.
  Stopwatch interval_;
  int64_t interval_start_ = 0;
  double held_ = 0.0, held_in_all_ = 0.0;  // in this interval, in this process
};

}  // namespace

void train(const Config& config, Task& task, Ops& ops, Communicator& communicator,
           const MemoryPlan& plan, LoopOptions options) {
  std::optional<TrainingRun> run;
  together(communicator.group(),
           [&] { run.emplace(config, task, ops, communicator, plan, options); });
  telling_others(communicator.group(), [&] {
    run->begin(options);
    run->run();
  });
}

void evaluate_checkpoint(const Config& config, Task& task, Ops& ops, Communicator& communicator,
                         const MemoryPlan& plan, const CheckpointReader* checkpoint) {
  ProcessGroup& group = communicator.group();
  together(group, [&] {
    if (!task.has_validation())
      throw UsageError("--eval-only: there is no validation data: list some in data.validation");
    if (!group.is_root()) return;
    check_same_model(*checkpoint, config);
    task.check_data_state(checkpoint->state().data_position);
  });
  RunMemory memory(config, task, ops, communicator, plan, false);
  Context context{ops, memory.arena, memory.parameters, 0, 0, config.train.seed, false, nullptr};
  const auto evaluate = [&](bool average) {
    load_weights(checkpoint, ops, memory.ranks, average);
    const LossReport loss = task.evaluate(context);
    if (!group.is_root()) return;
    std::string more;
    if (loss.top5) {
      more = fmt::format(", top-5 {:.4f}", *loss.top5);
    } else if (loss.accuracy) {
      more = fmt::format(", perplexity {:.3f}", std::exp(loss.loss));
    }
    if (loss.accuracy) more += fmt::format(", accuracy {:.4f}", *loss.accuracy);
    if (loss.letter_error_rate)
      more += fmt::format(", letter_error_rate {:.4f}", *loss.letter_error_rate);
    for (const auto& [name, value] : loss.more) more += fmt::format(", {} {:.4f}", name, value);
    spdlog::info("{}{}: validation loss {:.5f}{} over {} targets", checkpoint->path().string(),
                 average ? " (averaged weights)" : "", loss.loss, more, loss.targets);
  };
  telling_others(group, [&] {
    evaluate(false);
    if (config.optimizer.ema_decay > 0.0) evaluate(true);
  });
}

}  // namespace sigtrain
