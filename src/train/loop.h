// The training loop: steps, metrics, evaluation, checkpoints, and stopping in good order.
#pragma once

#include <optional>
#include <string>

#include "config/schema.h"
#include "dist/communicator.h"
#include "tasks/task.h"
#include "train/checkpoint.h"
#include "train/memory_plan.h"

namespace sigtrain {

struct LoopOptions {
  /// Whether the run goes on from a checkpoint.
  bool resumes = false;
  /// That checkpoint, on rank 0.
  std::optional<CheckpointReader> resume;
  /// Shown to the user whose run was stopped.
  std::string resume_command;
};

/// Trains to config.train.steps, or until one of the ranks gets SIGINT or SIGTERM, after which the
/// run can be resumed. Everything it writes goes to run_dir(config.run), from rank 0: config.yaml,
/// metrics.jsonl, train.log, TensorBoard events and checkpoints/. The task must have its data open.
/// Throws Error when train.max_bad_steps steps in a row had a loss or gradient that is not finite,
/// and whatever ends this rank, having told the others; RankFailure if another rank ended.
void train(const Config& config, Task& task, Ops& ops, Communicator& communicator,
           const MemoryPlan& plan, LoopOptions options);

/// Prints the validation loss of the weights of rank 0's checkpoint (and of its averaged ones,
/// where kept).
void evaluate_checkpoint(const Config& config, Task& task, Ops& ops, Communicator& communicator,
                         const MemoryPlan& plan, const CheckpointReader* checkpoint);

}  // namespace sigtrain
