// Sums that the backward passes of all attention kernels share.
#pragma once

#include "attention_policy.cuh"
#include "attention_tiles_sm80.cuh"

namespace sigtrain::kernels {

/// What softmax's backward needs of a query: log2 of its sum of exponentials, and D = rowsum(dO O),
/// Dao et al. 2022. Queries behind the sequence or without keys get +inf, which makes all their
/// weights 0. For four neighbouring threads, numbered by `lane`, with the result in each.
template <int HeadDim>
__device__ __forceinline__ float2 query_statistics(const AttentionBackward& call, int batch,
                                                   int head, int query, int lane) {
  const AttentionShape& shape = call.forward.shape;
  float log2_sum = INFINITY, dot = 0.0f;
  if (query < shape.seq_len) {
    const HeadRows out(call.forward.out, shape, batch, head), d_out(call.d_out, shape, batch, head);
#pragma unroll
    for (int c = 0; c < HeadDim / 32; ++c) {
      const int column = (c * 4 + lane) * 8;
      const uint4 x = *reinterpret_cast<const uint4*>(out.row(query) + column);
      const uint4 y = *reinterpret_cast<const uint4*>(d_out.row(query) + column);
      const auto* xs = reinterpret_cast<const __nv_bfloat162*>(&x);
      const auto* ys = reinterpret_cast<const __nv_bfloat162*>(&y);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const float2 a = __bfloat1622float2(xs[j]), b = __bfloat1622float2(ys[j]);
        dot = fmaf(a.x, b.x, fmaf(a.y, b.y, dot));
      }
    }
    const int64_t row = (static_cast<int64_t>(batch) * shape.heads + head) * shape.seq_len + query;
    const float log_sum_exp = call.forward.log_sum_exp[row];
    if (log_sum_exp != -INFINITY) log2_sum = log_sum_exp * log2_e;
  }
  return {log2_sum, sum_lanes<3>(dot)};
}

/// Softmax: the statistics of every query, and of the `padded` ones that fill up the last tile.
template <int HeadDim>
static __global__ void __launch_bounds__(256)
    attention_statistics_kernel(const AttentionBackward call, float* statistics, int padded) {
  const int head = blockIdx.y, batch = blockIdx.z, lane = threadIdx.x & 3;
  const int query = blockIdx.x * 64 + threadIdx.x / 4;
  const int64_t batch_head = static_cast<int64_t>(batch) * call.forward.shape.heads + head;
  const float2 found = query_statistics<HeadDim>(call, batch, head, query, lane);
  if (lane == 0) reinterpret_cast<float2*>(statistics)[batch_head * padded + query] = found;
}

/// d_head_bias[head] += the sum of the head's partials, always in the same order.
constexpr int bias_threads = 128;
static __global__ void __launch_bounds__(bias_threads)
    attention_backward_bias_kernel(const float* partials, int count, float* d_head_bias) {
  __shared__ float warp_sums[bias_threads / 32];
  float sum = 0.0f;
  for (int i = threadIdx.x; i < count; i += bias_threads)
    sum += partials[static_cast<int64_t>(blockIdx.x) * count + i];
  sum = sum_lanes<31>(sum);
  if (lane_index() == 0) warp_sums[warp_index()] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int w = 1; w < bias_threads / 32; ++w) sum += warp_sums[w];
    d_head_bias[blockIdx.x] += sum;
  }
}

}  // namespace sigtrain::kernels
