#include "nn/mlp.h"

#include "config/derived.h"

namespace sigtrain {

Mlp::Mlp(ParameterTable& table, const std::string& name, const ModelConfig& config)
    : kind_(config.mlp.kind),
      hidden_(mlp_hidden(config)),
      up_(table, name + ".up", config.width, gated() ? 2 * hidden_ : hidden_, config.linear_bias),
      down_(table, name + ".down", hidden_, config.width, config.linear_bias) {}

Activation Mlp::activation() const {
  switch (kind_) {
    case MlpKind::gelu:
      return Activation::gelu;
    case MlpKind::relu2:
      return Activation::relu2;
    case MlpKind::swiglu:
      return Activation::none;
  }
  return Activation::none;
}

void Mlp::activate(const Context& context, const Tensor& pre_activation,
                   const Tensor& hidden) const {
  if (gated()) {
    context.ops.swiglu_forward(pre_activation, hidden);
  } else {
    context.ops.activation_forward(activation(), pre_activation, hidden);
  }
}

void Mlp::forward(const Context& context, const Tensor& x, const Tensor& y, Saved& saved) const {
  const bool keeps_hidden = context.recompute != Recompute::norms_and_activations;
  saved.x = x;
  saved.pre_activation = context.activation(gated() ? 2 * hidden_ : hidden_);
  if (keeps_hidden) saved.hidden = context.activation(hidden_);
  ArenaScope scope(context.arena);
  const Tensor hidden =
      keeps_hidden ? saved.hidden : context.activation(hidden_, Purpose::temporary);
  if (gated()) {
    up_.forward(context, x, Activation::none, {}, saved.pre_activation);
    activate(context, saved.pre_activation, hidden);
  } else {
    up_.forward(context, x, activation(), saved.pre_activation, hidden);
  }
  down_.forward(context, hidden, Activation::none, {}, y);
}

void Mlp::backward(const Context& context, const Saved& saved, const Tensor& dy,
                   const Tensor& dx) const {
  ArenaScope scope(context.arena);
  const Tensor d_pre_activation =
      context.activation(saved.pre_activation.columns(), Purpose::gradient);
  Tensor hidden = saved.hidden;
  if (!hidden) {
    hidden = context.activation(hidden_, Purpose::temporary);
    activate(context, saved.pre_activation, hidden);
  }
  if (gated()) {
    const Tensor d_hidden = context.activation(hidden_, Purpose::gradient);
    down_.backward(context, hidden, dy, Activation::none, {}, d_hidden);
    context.ops.swiglu_backward(saved.pre_activation, d_hidden, d_pre_activation);
    up_.backward(context, saved.x, d_pre_activation, Activation::none, {}, dx);
  } else {
    down_.backward(context, hidden, dy, activation(), saved.pre_activation, d_pre_activation, &up_);
    up_.backward_without_bias(context, saved.x, d_pre_activation, dx);
  }
}

}  // namespace sigtrain
