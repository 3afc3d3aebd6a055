// Between a run's state on the device and a checkpoint on disk.
#pragma once

#include "config/schema.h"
#include "tasks/task.h"
#include "train/checkpoint.h"
#include "train/data_parallel.h"
#include "train/optimizer.h"

namespace sigtrain {

/// Progress of a run that is not in its tensors.
struct RunProgress {
  int64_t step = 0;      // optimizer steps done
  double seconds = 0.0;  // of training, over all processes that worked on the run
};

/// Writes a checkpoint of everything the run needs to go on to the same bits: on rank 0, which gets
/// the state of all ranks. Returns its path. The checkpoint is the same for any number of ranks,
/// sharded or not.
std::filesystem::path save_snapshot(const std::filesystem::path& folder, const Config& config,
                                    Ops& ops, const Task& task, DataParallel& ranks,
                                    const Optimizer& optimizer, const RunProgress& progress);

/// Fills the parameters' and the optimizer's device memory on all ranks from rank 0's checkpoint;
/// the other ranks' is not looked at. Throws Error if it was made with another model, seed or
/// vocabulary.
RunProgress load_snapshot(const CheckpointReader* checkpoint, const Config& config, Ops& ops,
                          Task& task, DataParallel& ranks, Optimizer& optimizer);

/// Fills the weights alone, likewise: from the averaged weights if `average`, where the checkpoint
/// has them.
void load_weights(const CheckpointReader* checkpoint, Ops& ops, DataParallel& ranks, bool average);

/// Throws Error if the checkpoint's config has another task, or else naming the first setting of
/// its section `model` that differs from this one.
void check_same_model(const CheckpointReader& checkpoint, const Config& config);

/// What of the learning rate's schedule this config has otherwise than the checkpoint's, as
/// "train.steps is 400, was 200"; empty if nothing.
std::string describe_other_schedule(const CheckpointReader& checkpoint, const Config& config);

}  // namespace sigtrain
