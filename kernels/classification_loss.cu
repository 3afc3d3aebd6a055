#include "classification_loss.h"
#include "vector.cuh"

namespace sigtrain::kernels {
namespace {

constexpr int block_threads = 128;

/// The largest x of a block's threads.
__device__ inline float block_max(float x) {
  __shared__ float warps[block_threads / 32];
  x = warp_max(x);
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = x;
  __syncthreads();
  float largest = warps[0];
#pragma unroll
  for (int warp = 1; warp < block_threads / 32; ++warp) largest = fmaxf(largest, warps[warp]);
  return largest;
}

// One block a row: rows are few and short beside the layers' work.
__global__ void __launch_bounds__(block_threads)
    classification_loss_kernel(ClassificationLoss call) {
  __shared__ BlockSum<float>::Storage storage;
  BlockSum<float> block_sum(storage);
  const int64_t row = blockIdx.x;
  const int classes = static_cast<int>(call.classes);
  const bf16* logits = call.logits + row * classes;
  const float* targets = call.targets ? call.targets + row * classes : nullptr;
  bf16* gradient = call.d_logits ? call.d_logits + row * classes : nullptr;
  const int32_t label = call.labels[row];

  if (label < 0 || label >= classes) {
    if (threadIdx.x == 0) {
      call.results[row] = {};
      if (label >= classes) report_fault(call.fault, FaultKind::label, label, row, classes);
    }
    if (gradient) {
      for (int j = threadIdx.x; j < classes; j += block_threads)
        gradient[j] = from_float<bf16>(0.0f);
    }
    return;
  }

  const float own = to_float(logits[label]);
  float largest = -INFINITY;
  int larger = 0;
  for (int j = threadIdx.x; j < classes; j += block_threads) {
    const float x = to_float(logits[j]);
    largest = fmaxf(largest, x);
    // Written so that nothing is right about a logit that is no number.
    larger += !(x <= own) || (x == own && j < label);
  }
  largest = block_max(largest);
  // Relative to the largest logit, so that no size of logits overflows or cancels.
  float sum = 0.0f, against_targets = 0.0f, target_sum = 0.0f;
  for (int j = threadIdx.x; j < classes; j += block_threads) {
    const float x = to_float(logits[j]) - largest;
    sum += expf(x);
    if (targets) {
      against_targets -= targets[j] * x;
      target_sum += targets[j];
    }
  }
  sum = block_sum(sum);
  const float before = block_sum(static_cast<float>(larger));
  const float log_sum = logf(sum), nll = log_sum - (own - largest);
  float objective = nll;
  if (targets) objective = block_sum(against_targets) + log_sum * block_sum(target_sum);
  if (threadIdx.x == 0) {
    call.results[row] = {objective, nll, 1.0f, before < 1.0f ? 1.0f : 0.0f,
                         before < 5.0f ? 1.0f : 0.0f};
  }
  if (!gradient) return;
  const float inverse = 1.0f / sum;
  for (int j = threadIdx.x; j < classes; j += block_threads) {
    const float target = targets ? targets[j] : (j == label ? 1.0f : 0.0f);
    const float p = expf(to_float(logits[j]) - largest) * inverse;
    gradient[j] = from_float<bf16>(call.gradient_scale * (p - target));
  }
}

constexpr int sum_threads = 256;

__global__ void __launch_bounds__(sum_threads)
    add_rows_kernel(const ClassificationRow* results, int64_t rows, float* sums) {
  __shared__ BlockSum<double>::Storage storage;
  BlockSum<double> block_sum(storage);
  double totals[5] = {};
  for (int64_t row = threadIdx.x; row < rows; row += sum_threads) {
    const ClassificationRow& result = results[row];
    totals[0] += result.objective, totals[1] += result.nll, totals[2] += result.count;
    totals[3] += result.correct, totals[4] += result.correct_of_5;
  }
#pragma unroll
  for (int slot = 0; slot < 5; ++slot) {
    const double total = block_sum(totals[slot]);
    if (threadIdx.x == 0) sums[slot] += static_cast<float>(total);
  }
}

}  // namespace

void classification_loss(const ClassificationLoss& call, float* sums, cudaStream_t stream) {
  if (call.rows <= 0) return;
  classification_loss_kernel<<<static_cast<unsigned>(call.rows), block_threads, 0, stream>>>(call);
  add_rows_kernel<<<1, sum_threads, 0, stream>>>(call.results, call.rows, sums);
}

}  // namespace sigtrain::kernels
