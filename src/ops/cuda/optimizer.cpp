// Gradient clipping, AdamW and the moving average of weights.
#include "kernels/optimizer.h"

#include "ops/cuda/check.h"
#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/pointers.h"

namespace sigtrain {
namespace {

kernels::OptimizerControl control_pointers(const Tensor& control) {
  float* slots = control.as<float>();
  kernels::OptimizerControl pointers{};
  pointers.grad_norm = slots + control_grad_norm;
  pointers.clip_scale = slots + control_clip_scale;
  pointers.finite = slots + control_finite;
  pointers.applied_steps = slots + control_applied_steps;
  pointers.skipped_steps = slots + control_skipped_steps;
  pointers.consecutive_skipped = slots + control_consecutive_skipped;
  pointers.learning_rate = slots + control_learning_rate;
  pointers.schedule = slots + control_schedule;
  return pointers;
}

}  // namespace

void CudaOps::clip_factor(const Tensor& group_sums, double max_norm, const Tensor& control) {
  kernels::clip_factor(group_sums.as<float>(), group_sums.numel(), max_norm,
                       control_pointers(control), stream_);
  check_launch("clip_factor");
}

void CudaOps::adamw(const AdamWDesc& desc, const Tensor& control, const Tensor& gradients,
                    const Tensor& weights, const Tensor& first_moment, const Tensor& second_moment,
                    const Tensor& compute_weights) {
  kernels::AdamW call{};
  call.beta1 = desc.beta1;
  call.beta2 = desc.beta2;
  call.eps = desc.eps;
  call.rate_scale = desc.rate_scale;
  call.weight_decay = desc.weight_decay;
  call.decoupled = desc.decay_mode == DecayMode::decoupled;
  call.control = control_pointers(control);
  call.count = weights.numel();
  call.gradients = gradients.as<float>();
  call.weights = weights.as<float>();
  call.first_moment = first_moment.as<float>();
  call.second_moment = second_moment.as<float>();
  call.compute_weights = bf16_pointer(compute_weights);
  kernels::adamw(call, stream_);
  check_launch("adamw");
}

void CudaOps::ema_update(double decay, const Tensor& control, const Tensor& weights,
                         const Tensor& average) {
  kernels::ema_update(decay, control_pointers(control), weights.as<float>(), average.as<float>(),
                      weights.numel(), stream_);
  check_launch("ema_update");
}

}  // namespace sigtrain
