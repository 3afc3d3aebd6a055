// Gradient clipping, AdamW (Loshchilov & Hutter 2019) and the moving average of weights, over flat
// ranges of fp32 parameters.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace sigtrain::kernels {

/// Where a step's control numbers lie in device memory.
struct OptimizerControl {
  float* grad_norm;
  float* clip_scale;
  float* finite;
  float* applied_steps;
  float* skipped_steps;
  float* consecutive_skipped;
  const float* learning_rate;
  const float* schedule;
};

/// Global norm from sums of squares, clip scale (1 if max_norm is 0), finiteness, step counts.
void clip_factor(const float* group_sums, int64_t groups, double max_norm,
                 const OptimizerControl& control, cudaStream_t stream);

struct AdamW {
  double beta1, beta2, eps, rate_scale, weight_decay;
  bool decoupled;  // decay does not multiply the learning rate, only its schedule
  OptimizerControl control;
  int64_t count;
  const float* gradients;
  float* weights;
  float* first_moment;
  float* second_moment;
  __nv_bfloat16* compute_weights;  // optional
};
/// Changes nothing if control says that a gradient was not finite.
void adamw(const AdamW& call, cudaStream_t stream);

/// average += (1 - decay) (weights - average), likewise.
void ema_update(double decay, const OptimizerControl& control, const float* weights, float* average,
                int64_t count, cudaStream_t stream);

}  // namespace sigtrain::kernels
