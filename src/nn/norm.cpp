#include "nn/norm.h"

namespace sigtrain {

Norm::Norm(ParameterTable& table, const std::string& name, const NormConfig& config, int64_t width)
    : desc_{config.kind, config.eps},
      weight_(table.add(name + ".weight", {width}, ParameterKind::norm_weight, {1.0, 0.0})),
      bias_(config.kind == NormKind::layernorm
                ? table.add(name + ".bias", {width}, ParameterKind::bias, {})
                : kNoParameter) {}

Tensor Norm::statistic_if(const Context& context, bool wanted) const {
  return wanted ? context.statistic({context.rows()}) : Tensor{};
}

void Norm::forward(const Context& context, const Tensor& x, const Tensor& y, Saved& saved) const {
  Stream alone{x, {}, kNoParameter};
  forward(context, alone, y, saved);
}

void Norm::backward(const Context& context, const Saved& saved, const Tensor& dy,
                    const Tensor& dx) const {
  context.ops.residual_norm_backward(desc_, saved.x, context.weight(weight_), saved.mean,
                                     saved.rstd, dy, false, dx, context.gradient(weight_),
                                     context.gradient(bias_), {}, {}, {});
}

void Norm::recompute(const Context& context, const Saved& saved, const Tensor& y) const {
  context.ops.residual_norm_forward(desc_, saved.x, {}, {}, context.weight(weight_),
                                    context.weight(bias_), y, saved.mean, saved.rstd);
}

void Norm::forward(const Context& context, Stream& stream, const Tensor& y, Saved& saved) const {
  Tensor sum;
  if (stream.branch.delta)
    sum = context.training ? context.activation(stream.residual.columns()) : stream.residual;
  saved.mean = statistic_if(context, desc_.kind == NormKind::layernorm);
  saved.rstd = statistic_if(context, true);
  saved.branch = stream.branch;
  saved.layer_scale = stream.layer_scale;
  context.ops.residual_norm_forward(desc_, stream.residual, stream.branch, sum,
                                    context.weight(weight_), context.weight(bias_), y, saved.mean,
                                    saved.rstd);
  if (sum) stream.residual = sum;
  stream.branch = {};
  stream.layer_scale = kNoParameter;
  saved.x = stream.residual;
}

void Norm::backward(const Context& context, const Saved& saved, const Tensor& dy,
                    StreamGradient& gradient) const {
  const bool scaled = saved.branch.layer_scale || saved.branch.sample_scale;
  const Tensor d_delta = scaled ? gradient.branch_buffer : Tensor{};
  context.ops.residual_norm_backward(desc_, saved.x, context.weight(weight_), saved.mean,
                                     saved.rstd, dy, gradient.has_residual, gradient.residual,
                                     context.gradient(weight_), context.gradient(bias_),
                                     saved.branch, d_delta, context.gradient(saved.layer_scale));
  gradient.has_residual = true;
  gradient.branch = scaled ? d_delta : gradient.residual;
}

}  // namespace sigtrain
