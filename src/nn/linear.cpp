#include "nn/linear.h"

#include <cmath>

namespace sigtrain {

Linear::Linear(ParameterTable& table, const std::string& name, int64_t in, int64_t out, bool bias)
    : weight_(table.add(name + ".weight", {out, in}, ParameterKind::linear_weight,
                        {0.0, 1.0 / std::sqrt(static_cast<double>(in))})),
      bias_(bias ? table.add(name + ".bias", {out}, ParameterKind::bias, {}) : kNoParameter) {}

void Linear::forward(const Context& context, const Tensor& x, Activation activation,
                     const Tensor& pre_activation, const Tensor& y) const {
  context.ops.linear_forward(x, context.weight(weight_), context.weight(bias_), activation,
                             pre_activation, y);
}

void Linear::backward(const Context& context, const Tensor& x, const Tensor& dy,
                      Activation activation, const Tensor& pre_activation, const Tensor& dx,
                      const Linear* before) const {
  context.ops.linear_backward(x, context.weight(weight_), dy, activation, pre_activation, dx,
                              context.gradient(weight_), context.gradient(bias_),
                              before ? context.gradient(before->bias_) : Tensor{});
}

void Linear::backward_without_bias(const Context& context, const Tensor& x, const Tensor& dy,
                                   const Tensor& dx) const {
  context.ops.linear_backward(x, context.weight(weight_), dy, Activation::none, {}, dx,
                              context.gradient(weight_), {}, {});
}

}  // namespace sigtrain
