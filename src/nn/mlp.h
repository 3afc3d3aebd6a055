// The feed-forward half of a block: SwiGLU (gate and up packed in one projection), GELU or ReLU^2.
#pragma once

#include <string>

#include "nn/linear.h"

namespace sigtrain {

class Mlp {
 public:
  struct Saved {
    Tensor x;
    Tensor pre_activation;  // [N, 2F] (gate, up) for SwiGLU, [N, F] otherwise
    Tensor hidden;          // [N, F]; absent where backward computes it again
  };

  /// Registers NAME.up (out 2F for SwiGLU) and NAME.down.
  Mlp(ParameterTable& table, const std::string& name, const ModelConfig& config);

  /// x [N, C] -> y [N, C], the caller's.
  void forward(const Context& context, const Tensor& x, const Tensor& y, Saved& saved) const;
  /// dx [N, C] = gradient of x, given dy, which may not be dx.
  void backward(const Context& context, const Saved& saved, const Tensor& dy,
                const Tensor& dx) const;

 private:
  bool gated() const { return kind_ == MlpKind::swiglu; }
  /// hidden = activation(pre_activation)
  void activate(const Context& context, const Tensor& pre_activation, const Tensor& hidden) const;
  Activation activation() const;

  MlpKind kind_;
  int64_t hidden_;
  Linear up_, down_;
};

}  // namespace sigtrain
