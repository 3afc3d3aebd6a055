#include "launch.h"
#include "optimizer.h"
#include "vector.cuh"

namespace sigtrain::kernels {
namespace {

constexpr int block_threads = 256;

__global__ void clip_factor_kernel(const float* group_sums, int64_t groups, double max_norm,
                                   OptimizerControl control) {
  double total = 0.0;
  for (int64_t group = 0; group < groups; ++group) total += group_sums[group];
  const double norm = sqrt(total);
  const bool finite = isfinite(norm);
  *control.grad_norm = static_cast<float>(norm);
  *control.clip_scale =
      static_cast<float>(finite && max_norm > 0.0 && norm > max_norm ? max_norm / norm : 1.0);
  *control.finite = finite ? 1.0f : 0.0f;
  if (finite) {
    *control.applied_steps += 1.0f;
    *control.consecutive_skipped = 0.0f;
  } else {
    *control.skipped_steps += 1.0f;
    *control.consecutive_skipped += 1.0f;
  }
}

/// The numbers of a step that all elements share.
struct Factors {
  // lr m^ = (lr / (1 - beta1^t)) m;  sqrt(v^) = sqrt(v) / sqrt(1 - beta2^t)
  __device__ explicit Factors(const AdamW& call) {
    const double steps = *call.control.applied_steps;
    const double rate = double{*call.control.learning_rate} * call.rate_scale;
    const double decay_rate = call.decoupled ? double{*call.control.schedule} : rate;
    clip_scale = *call.control.clip_scale;
    step_size = static_cast<float>(rate / (1.0 - pow(call.beta1, steps)));
    root_correction = static_cast<float>(1.0 / sqrt(1.0 - pow(call.beta2, steps)));
    decay = static_cast<float>(decay_rate * call.weight_decay);
  }
  float clip_scale, step_size, root_correction, decay;
};

template <bool kAligned>
__global__ void __launch_bounds__(block_threads) adamw_kernel(AdamW call) {
  if (*call.control.finite == 0.0f) return;
  __shared__ float shared[4];
  // Powers in double are slow: once a block.
  if (threadIdx.x == 0) {
    const Factors factors(call);
    shared[0] = factors.clip_scale, shared[1] = factors.step_size;
    shared[2] = factors.root_correction, shared[3] = factors.decay;
  }
  __syncthreads();
  const float clip_scale = shared[0], step_size = shared[1], root_correction = shared[2],
              decay = shared[3];
  const float beta1 = static_cast<float>(call.beta1), beta2 = static_cast<float>(call.beta2);
  const float one_minus_beta1 = static_cast<float>(1.0 - call.beta1);
  const float one_minus_beta2 = static_cast<float>(1.0 - call.beta2);
  const float eps = static_cast<float>(call.eps);

  constexpr int step = kAligned ? vector_size : 1;
  const int64_t stride = int64_t{gridDim.x} * block_threads * step;
  for (int64_t i = (int64_t{blockIdx.x} * block_threads + threadIdx.x) * step; i < call.count;
       i += stride) {
    const int64_t end = min(i + step, call.count);
    float g[8], m[8], v[8], w[8];
    load_part(call.gradients, i, end, g);
    load_part(call.first_moment, i, end, m);
    load_part(call.second_moment, i, end, v);
    load_part(call.weights, i, end, w);
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const float gradient = clip_scale * g[j];
      m[j] = beta1 * m[j] + one_minus_beta1 * gradient;
      v[j] = beta2 * v[j] + one_minus_beta2 * (gradient * gradient);
      w[j] -= step_size * m[j] / (sqrtf(v[j]) * root_correction + eps) + decay * w[j];
    }
    store_part(call.first_moment, i, end, m);
    store_part(call.second_moment, i, end, v);
    store_part(call.weights, i, end, w);
    if (call.compute_weights) store_part(call.compute_weights, i, end, w);
  }
}

template <bool kAligned>
__global__ void __launch_bounds__(block_threads)
    ema_kernel(float rate, const float* finite, const float* weights, float* average,
               int64_t count) {
  if (*finite == 0.0f) return;
  constexpr int step = kAligned ? vector_size : 1;
  const int64_t stride = int64_t{gridDim.x} * block_threads * step;
  for (int64_t i = (int64_t{blockIdx.x} * block_threads + threadIdx.x) * step; i < count;
       i += stride) {
    const int64_t end = min(i + step, count);
    float w[8], a[8];
    load_part(weights, i, end, w);
    load_part(average, i, end, a);
#pragma unroll
    for (int j = 0; j < 8; ++j) a[j] += rate * (w[j] - a[j]);
    store_part(average, i, end, a);
  }
}

int grid(bool aligned, int64_t count) {
  return grid_size(count, int64_t{block_threads} * (aligned ? vector_size : 1), 8);
}

}  // namespace

void clip_factor(const float* group_sums, int64_t groups, double max_norm,
                 const OptimizerControl& control, cudaStream_t stream) {
  clip_factor_kernel<<<1, 1, 0, stream>>>(group_sums, groups, max_norm, control);
}

void adamw(const AdamW& call, cudaStream_t stream) {
  if (call.count <= 0) return;
  const bool aligned = aligned16(call.gradients, call.weights, call.first_moment,
                                 call.second_moment, call.compute_weights);
  if (aligned) {
    adamw_kernel<true><<<grid(true, call.count), block_threads, 0, stream>>>(call);
  } else {
    adamw_kernel<false><<<grid(false, call.count), block_threads, 0, stream>>>(call);
  }
}

void ema_update(double decay, const OptimizerControl& control, const float* weights, float* average,
                int64_t count, cudaStream_t stream) {
  if (count <= 0) return;
  const auto rate = static_cast<float>(1.0 - decay);
  if (aligned16(weights, average)) {
    ema_kernel<true><<<grid(true, count), block_threads, 0, stream>>>(rate, control.finite, weights,
                                                                      average, count);
  } else {
    ema_kernel<false><<<grid(false, count), block_threads, 0, stream>>>(rate, control.finite,
                                                                        weights, average, count);
  }
}

}  // namespace sigtrain::kernels
