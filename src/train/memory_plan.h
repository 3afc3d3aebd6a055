// The plan of a run's memory and work, made by one planning pass before step 1.
#pragma once

#include <cstddef>
#include <optional>
#include <string>

#include "config/schema.h"
#include "core/arena.h"
#include "tasks/task.h"

namespace sigtrain {

struct MemoryPlan {
  std::string device;  // its backend's name and the dtype it computes in
  size_t weights = 0, compute_weights = 0, gradients = 0, moments = 0, average = 0;
  size_t batches = 0;
  size_t arena = 0;
  Arena::ByPurpose arena_by_purpose{};
  std::optional<size_t> workspace;  // absent: the device that is planned for is not here
  // Matrix products of the model's forward and backward for one unit of the task; not those done
  // again for train.recompute.
  double flops_per_unit = 0.0;

  size_t parameters() const { return weights + compute_weights + gradients + moments + average; }
  size_t total() const { return parameters() + batches + arena + workspace.value_or(0); }
};

/// The flat buffers that a rank of a run of this kind keeps.
ParameterBuffers parameter_buffers(const Config& config, bool training, const Ops& ops,
                                   const ProcessGroup& group);

/// Runs one micro-batch of the task through a planning backend that stands for `backend`, which may
/// be a planning one itself. Allocates no tensors: it works for models that this machine could not
/// hold. The task must have been
/// prepared with a planning backend or with `backend`.
MemoryPlan plan_run(const Config& config, Task& task, const Ops& backend, bool training,
                    const ProcessGroup& group = SingleProcess());

/// What --dry-run prints: the device, parameters by layer, bytes by purpose, FLOPs a unit.
std::string describe_plan(const MemoryPlan& plan, const Config& config, const Task& task);

}  // namespace sigtrain
