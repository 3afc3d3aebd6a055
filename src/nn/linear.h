// Linear layer: y = activation(x W^T + b).
#pragma once

#include <string>

#include "nn/context.h"

namespace sigtrain {

class Linear {
 public:
  /// Registers NAME.weight [out, in], drawn normal with standard deviation 1/sqrt(in) (fan-in
  /// scaling), and with `bias` NAME.bias [out], zero.
  Linear(ParameterTable& table, const std::string& name, int64_t in, int64_t out, bool bias);

  /// x [N, in] -> y [N, out], the caller's. pre_activation [N, out] is written for an activation
  /// other than none.
  void forward(const Context& context, const Tensor& x, Activation activation,
               const Tensor& pre_activation, const Tensor& y) const;
  /// dy [N, out] is the gradient of x W^T + b. dx [N, in] (optional) gets that of x or, if x =
  /// activation(pre_activation), of that pre_activation; gradients of the parameters are added to.
  /// `before`, the layer that made pre_activation, gets the gradient of its bias, if it has one, at
  /// no cost: its own backward is then backward_without_bias.
  void backward(const Context& context, const Tensor& x, const Tensor& dy, Activation activation,
                const Tensor& pre_activation, const Tensor& dx,
                const Linear* before = nullptr) const;
  void backward_without_bias(const Context& context, const Tensor& x, const Tensor& dy,
                             const Tensor& dx) const;

 private:
  ParameterId weight_, bias_;
};

}  // namespace sigtrain
