// The training loop: steps, metrics, evaluation, checkpoints, and stopping in good order.
#pragma once

#include <optional>
#include <string>

#include "config/schema.h"
#include "tasks/task.h"
#include "train/checkpoint.h"
#include "train/memory_plan.h"

namespace sigtrain {

struct LoopOptions {
  /// Goes on from here; a fresh run otherwise.
  std::optional<CheckpointReader> resume;
  /// Shown to the user whose run was stopped.
  std::string resume_command;
};

/// Trains to config.train.steps, or until SIGINT or SIGTERM, after which the run can be resumed.
/// Everything it writes goes to run_dir(config.run): config.yaml, metrics.jsonl, train.log,
/// TensorBoard events and checkpoints/. The task must have its data open. Throws Error when
/// train.max_bad_steps steps in a row had a loss or gradient that is not finite.
void train(const Config& config, Task& task, Ops& ops, const MemoryPlan& plan, LoopOptions options);

/// Prints the validation loss of a checkpoint's weights (and of its averaged ones, where kept).
void evaluate_checkpoint(const Config& config, Task& task, Ops& ops, const MemoryPlan& plan,
                         const CheckpointReader& checkpoint);

}  // namespace sigtrain
