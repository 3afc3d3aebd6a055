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

/// Owns one slot for each layer and diagnostic in the backend's memory.
class Diagnostics {
 public:
  Diagnostics(Ops& ops, int64_t layers);
  /// No memory: for a planning run.
  static Diagnostics planning(const Ops& ops, int64_t layers);

  /// The [1] tensor that a layer writes; overwritten by the next micro-batch.
  Tensor slot(Diagnostic diagnostic, int64_t layer) const;
  /// The slot of a layer gets the mean of x [batch, heads, seq_len], or the root mean square of x
  /// [batch * seq_len, C]; with lengths (optional, i32 [batch]) without the padding behind them.
  void take_mean(Ops& ops, Diagnostic diagnostic, int64_t layer, const Tensor& x,
                 const Tensor& lengths) const;
  void take_root_mean_square(Ops& ops, Diagnostic diagnostic, int64_t layer, const Tensor& x,
                             const Tensor& lengths) const;
  int64_t layers() const { return layers_; }
  /// One value a layer, by diagnostic, over what all ranks wrote; waits for the device and for
  /// them.
  std::array<std::vector<double>, kDiagnosticCount> read(Ops& ops, ProcessGroup& group) const;

 private:
  Diagnostics() = default;
  DeviceMemory memory_;
  Tensor values_;  // [kDiagnosticCount, layers]
  int64_t layers_ = 0;
};

}  // namespace sigtrain
