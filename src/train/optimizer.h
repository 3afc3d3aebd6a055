// AdamW over the flat parameter buffers: clipping by the global norm, decay and rate scale by kind
// of parameter, averaging.
#pragma once

#include <vector>

#include "config/schema.h"
#include "dist/communicator.h"
#include "nn/parameters.h"

namespace sigtrain {

/// A run of neighbouring parameters with the same settings: elements [begin, end) of the flat
/// buffers.
struct OptimizerRange {
  int64_t begin = 0, end = 0;
  AdamWDesc desc;
};

/// How the parameters of a table are updated. mup_simple scales linear weights by
/// min(mup_base_width / width, 1); norms, biases and LayerScale decay only with
/// decay_norms_and_biases. The rate of each group is layer_decay times that of the next (Bao et al.
/// 2022, BEiT); frozen parameters stay as they are.
std::vector<OptimizerRange> optimizer_ranges(const ParameterTable& table,
                                             const OptimizerConfig& config, int64_t width);

/// What the last steps did, as read from the device.
struct OptimizerReport {
  double grad_norm = 0.0;  // global, before clipping
  bool finite = true;      // false: the last step was skipped
  int64_t applied_steps = 0, skipped_steps = 0, skipped_in_a_row = 0;
};

class Optimizer {
 public:
  Optimizer(const ParameterStore& parameters, Ops& ops, const OptimizerConfig& config,
            int64_t width);

  /// Sets the learning rate of the steps from now on to `factor`, the schedule's, times its peak.
  void set_rate(Ops& ops, double factor) const;
  /// Starts a step: clears the gradients.
  void zero_gradients(Ops& ops) const;
  /// Clips, updates weights and moments and their average, in the ranges that the store owns;
  /// changes nothing if a gradient is not finite. Does not wait for the device. Sharded gradients
  /// need the communicator to agree on their norm.
  void step(Ops& ops, Communicator* communicator = nullptr) const;

  /// These wait for the device.
  OptimizerReport report(Ops& ops) const;
  std::vector<double> group_grad_norms(Ops& ops) const;
  /// Goes on from the counts of an earlier report; all else in it is of a single step.
  void restore(Ops& ops, const OptimizerReport& report);

 private:
  /// Gradients whose squares are added up in one number.
  struct NormPart {
    int group = 0;
    FlatRange range;  // empty where another rank owns them
  };
  static std::vector<NormPart> norm_parts(const ParameterStore& parameters);

  const ParameterStore& parameters_;
  OptimizerConfig config_;
  std::vector<OptimizerRange> ranges_;  // within owned ones
  std::vector<NormPart> norm_parts_;
  DeviceMemory memory_;
  Tensor control_;  // [control_slots]
  Tensor rates_;    // its last two slots, which the host writes
  Tensor sums_;     // [norm_parts_]
};

}  // namespace sigtrain
