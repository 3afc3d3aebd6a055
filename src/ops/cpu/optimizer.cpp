// Gradient clipping, AdamW and the moving average of weights.
#include <cmath>

#include "ops/cpu/cpu_ops.h"
#include "ops/cpu/partition.h"

namespace sigtrain {

template <typename Real>
void CpuOps<Real>::clip_factor(const Tensor& group_sums, double max_norm, const Tensor& control) {
  const Real* sums = group_sums.as<Real>();
  double total = 0;
  for (int64_t group = 0; group < group_sums.numel(); ++group) total += sums[group];
  const double norm = std::sqrt(total);
  const bool finite = std::isfinite(norm);
  Real* slots = control.as<Real>();
  slots[control_grad_norm] = static_cast<Real>(norm);
  slots[control_clip_scale] =
      static_cast<Real>(finite && max_norm > 0 && norm > max_norm ? max_norm / norm : 1);
  slots[control_finite] = finite;
  slots[control_applied_steps] += finite;
  slots[control_skipped_steps] += !finite;
  slots[control_consecutive_skipped] = finite ? 0 : slots[control_consecutive_skipped] + 1;
}

template <typename Real>
void CpuOps<Real>::adamw(const AdamWDesc& desc, const Tensor& control, const Tensor& gradients,
                         const Tensor& weights, const Tensor& first_moment,
                         const Tensor& second_moment, const Tensor& compute_weights) {
  const Real* slots = control.as<Real>();
  if (slots[control_finite] == 0) return;
  const double steps = slots[control_applied_steps];
  const double rate = slots[control_learning_rate] * desc.rate_scale;
  const double decay_rate =
      desc.decay_mode == DecayMode::coupled ? rate : double{slots[control_schedule]};
  const Real clip_scale = slots[control_clip_scale], eps = static_cast<Real>(desc.eps);
  const Real beta1 = static_cast<Real>(desc.beta1), beta2 = static_cast<Real>(desc.beta2);
  const Real one_minus_beta1 = static_cast<Real>(1 - desc.beta1),
             one_minus_beta2 = static_cast<Real>(1 - desc.beta2);
  // lr m^ = (lr / (1 - beta1^t)) m;  sqrt(v^) = sqrt(v) / sqrt(1 - beta2^t)
  const Real step_size = static_cast<Real>(rate / (1 - std::pow(desc.beta1, steps)));
  const Real root_correction = static_cast<Real>(1 / std::sqrt(1 - std::pow(desc.beta2, steps)));
  const Real decay = static_cast<Real>(decay_rate * desc.weight_decay);

  const Real* gradient = gradients.as<Real>();
  Real *w = weights.as<Real>(), *m = first_moment.as<Real>(), *v = second_moment.as<Real>();
  Real* copy = compute_weights.as<Real>();
  for_elements(weights.numel(), [=](int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) {
      const Real g = clip_scale * gradient[i];
      const Real mi = beta1 * m[i] + one_minus_beta1 * g;
      const Real vi = beta2 * v[i] + one_minus_beta2 * (g * g);
      m[i] = mi;
      v[i] = vi;
      w[i] -= step_size * mi / (std::sqrt(vi) * root_correction + eps) + decay * w[i];
    }
    if (copy && copy != w) std::copy(w + begin, w + end, copy + begin);
  });
}

template <typename Real>
void CpuOps<Real>::ema_update(double decay, const Tensor& control, const Tensor& weights,
                              const Tensor& average) {
  if (control.as<Real>()[control_finite] == 0) return;
  const Real* w = weights.as<Real>();
  Real* mean = average.as<Real>();
  const Real rate = static_cast<Real>(1 - decay);
  for_elements(weights.numel(), [=](int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) mean[i] += rate * (w[i] - mean[i]);
  });
}

#define SIGTRAIN_INSTANTIATE(Real)                                                                 \
  template void CpuOps<Real>::clip_factor(const Tensor&, double, const Tensor&);                   \
  template void CpuOps<Real>::adamw(const AdamWDesc&, const Tensor&, const Tensor&, const Tensor&, \
                                    const Tensor&, const Tensor&, const Tensor&);                  \
  template void CpuOps<Real>::ema_update(double, const Tensor&, const Tensor&, const Tensor&);
SIGTRAIN_INSTANTIATE(float)
SIGTRAIN_INSTANTIATE(double)
#undef SIGTRAIN_INSTANTIATE

}  // namespace sigtrain
