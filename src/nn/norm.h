// RMSNorm and LayerNorm: alone, and fused with the addition of a pending branch to the residual
// stream.
#pragma once

#include <string>

#include "nn/context.h"

namespace sigtrain {

/// The residual stream between two norms: the value so far and a branch that the next norm will add
/// to it.
struct Stream {
  Tensor residual;                         // [N, C]
  ResidualBranch branch;                   // delta absent: nothing is pending
  ParameterId layer_scale = kNoParameter;  // of the pending branch
};

/// Gradients that travel down the stream in backward. The three buffers [N, C] are allocated once
/// by the model.
struct StreamGradient {
  Tensor residual;            // of the stream at the point reached
  bool has_residual = false;  // false: residual holds nothing yet (above the last norm)
  Tensor branch_buffer;       // where the gradient of a scaled branch is written
  Tensor branch;  // of the branch last taken off the stream: residual itself or branch_buffer
  Tensor input;   // scratch: gradient of a norm's output on its way down
};

class Norm {
 public:
  struct Saved {
    Tensor x, mean, rstd;   // input; mean for layernorm only
    ResidualBranch branch;  // what was added to get x, and its LayerScale
    ParameterId layer_scale = kNoParameter;
  };

  /// Registers NAME.weight [width], ones, and for layernorm NAME.bias [width], zeros.
  Norm(ParameterTable& table, const std::string& name, const NormConfig& config, int64_t width);

  /// y = norm(x), x being kept by the caller until backward.
  void forward(const Context& context, const Tensor& x, const Tensor& y, Saved& saved) const;
  /// dx = gradient of x.
  void backward(const Context& context, const Saved& saved, const Tensor& dy,
                const Tensor& dx) const;

  /// Writes y once more, from what either forward saved.
  void recompute(const Context& context, const Saved& saved, const Tensor& y) const;

  /// Adds the pending branch to the stream and normalises the sum into y [N, C]. In training the
  /// sum gets memory of its own and the old residual is left as it is; otherwise it replaces the
  /// old one in place.
  void forward(const Context& context, Stream& stream, const Tensor& y, Saved& saved) const;
  /// dy is that of y. Adds the norm's part to gradient.residual and sets gradient.branch to the
  /// pending branch's gradient.
  void backward(const Context& context, const Saved& saved, const Tensor& dy,
                StreamGradient& gradient) const;

 private:
  Tensor statistic_if(const Context& context, bool wanted) const;

  NormDesc desc_;
  ParameterId weight_, bias_;
};

}  // namespace sigtrain
