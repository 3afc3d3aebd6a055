// Between a run's state on the device and a checkpoint on disk.
#pragma once

#include "config/schema.h"
#include "nn/parameters.h"
#include "tasks/task.h"
#include "train/checkpoint.h"
#include "train/optimizer.h"

namespace sigtrain {

/// Progress of a run that is not in its tensors.
struct RunProgress {
  int64_t step = 0;      // optimizer steps done
  double seconds = 0.0;  // of training, over all processes that worked on the run
};

/// Writes a checkpoint of everything the run needs to go on to the same bits. Returns its path.
std::filesystem::path save_snapshot(const std::filesystem::path& folder, const Config& config,
                                    Ops& ops, const Task& task, const ParameterStore& parameters,
                                    const Optimizer& optimizer, const RunProgress& progress);

/// Fills the parameters' and the optimizer's device memory from a checkpoint. Throws Error if it
/// was made with another model, seed or vocabulary.
RunProgress load_snapshot(const CheckpointReader& checkpoint, const Config& config, Ops& ops,
                          const Task& task, const ParameterStore& parameters, Optimizer& optimizer);

/// Fills the weights alone: from the averaged weights if `average`, where the checkpoint has them.
void load_weights(const CheckpointReader& checkpoint, Ops& ops, const ParameterStore& parameters,
                  bool average);

/// Throws Error naming the first setting of the section `model` in which the checkpoint's config
/// differs from this one.
void check_same_model(const CheckpointReader& checkpoint, const Config& config);

}  // namespace sigtrain
