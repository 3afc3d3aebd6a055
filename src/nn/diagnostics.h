// Numbers by layer that show how attention behaves: collected on the device in forward, read at
// logged steps.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "core/tensor.h"
#include "dist/process_group.h"
#include "ops/ops.h"

namespace sigtrain {

enum class Diagnostic : uint8_t {
  attention_out_rms,     // RMS of the attention output before the output projection
  attention_branch_rms,  // RMS of what attention adds to the residual stream: after the projection
                         // and its norm
  attention_row_sum,     // mean over queries of the attention weights' row sum (1 for softmax)
};
constexpr int kDiagnosticCount = 3;
std::string_view name_of(Diagnostic diagnostic);

/// Owns one slot for each micro-batch of a step, layer and diagnostic in the backend's memory.
class Diagnostics {
 public:
  /// `micro_batches`: those of a step on this rank, at least 1.
  Diagnostics(Ops& ops, int64_t layers, int64_t micro_batches = 1);
  /// No memory: for a planning run.
  static Diagnostics planning(const Ops& ops, int64_t layers, int64_t micro_batches = 1);

  /// What is taken from now on is of this micro-batch, 0 at first. It weighs 1.
  void begin_micro_batch(int64_t micro_batch);
  /// How much the micro-batch begun last counts among those of all ranks, for batches of unequal
  /// numbers of rows: the rows that are not padding. At least 0.
  void weigh(double weight) { weights_[static_cast<size_t>(micro_batch_)] = weight; }

  /// The [1] tensor that a layer writes in this micro-batch.
  Tensor slot(Diagnostic diagnostic, int64_t layer) const;
  /// The slot of a layer gets the mean of x [batch, heads, seq_len], or the root mean square of x
  /// [batch * seq_len, C]; with lengths (optional, i32 [batch]) without the padding behind them.
  void take_mean(Ops& ops, Diagnostic diagnostic, int64_t layer, const Tensor& x,
                 const Tensor& lengths) const;
  void take_root_mean_square(Ops& ops, Diagnostic diagnostic, int64_t layer, const Tensor& x,
                             const Tensor& lengths) const;
  int64_t layers() const { return layers_; }
  /// One value a layer, by diagnostic, over all micro-batches of all ranks: the mean, or the root
  /// of the mean of squares. Waits for the device and for the ranks.
  std::array<std::vector<double>, kDiagnosticCount> read(Ops& ops, ProcessGroup& group) const;

 private:
  Diagnostics() = default;
  DeviceMemory memory_;
  Tensor values_;  // [micro_batches, kDiagnosticCount, layers]
  int64_t layers_ = 0;
  std::vector<double> weights_;  // [micro_batches]
  int64_t micro_batch_ = 0;
};

}  // namespace sigtrain
