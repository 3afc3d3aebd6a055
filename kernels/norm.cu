#include "column_sums.h"
#include "launch.h"
#include "norm.h"
#include "vector.cuh"

namespace sigtrain::kernels {
namespace {

// A block works on one row at a time, a thread on 8 of its elements: a row is read once, stays in
// registers, and is written once.
constexpr int most_threads = 1024;

int threads_per_row(int64_t width) {
  return static_cast<int>(round_up(ceil_div(width, vector_size), 32));
}

__device__ inline float sample_scale(const NormBranch& branch, int64_t row) {
  return branch.sample_scale ? branch.sample_scale[row / branch.rows_per_sample] : 1.0f;
}

template <bool kAligned>
__global__ void __launch_bounds__(most_threads) forward_kernel(ResidualNormForward call) {
  __shared__ BlockSum<float>::Storage storage;
  BlockSum<float> block_sum(storage);
  const int width = static_cast<int>(call.width);
  const RowPart<kAligned> part{static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x), width};
  const float inverse_width = 1.0f / static_cast<float>(width);

  for (int64_t row = blockIdx.x; row < call.rows; row += gridDim.x) {
    const int64_t at = row * width;
    float x[8];
    part.load_row(call.residual + at, x);
    if (call.branch.delta) {
      float delta[8];
      part.load_row(call.branch.delta + at, delta);
      const float scale = sample_scale(call.branch, row);
      if (call.branch.layer_scale) {
        float gamma[8];
        part.load_row(call.branch.layer_scale, gamma);
#pragma unroll
        for (int i = 0; i < 8; ++i) delta[i] *= gamma[i];
      }
      // The backward pass normalises the stream as it is stored; so does this.
#pragma unroll
      for (int i = 0; i < 8; ++i) x[i] = round_to_bf16(x[i] + scale * delta[i]);
      part.store_row(call.residual_out + at, x);
    }

    float center = 0.0f;
    if (call.centered) {
      float sum = 0.0f;
#pragma unroll
      for (int i = 0; i < 8; ++i) sum += x[i];
      center = block_sum(sum) * inverse_width;
    }
    float squares = 0.0f;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const float deviation = part.owns(i) ? x[i] - center : 0.0f;
      squares += deviation * deviation;
    }
    const float rstd = rsqrtf(block_sum(squares) * inverse_width + call.eps);
    if (threadIdx.x == 0) {
      if (call.centered) call.mean[row] = center;
      call.rstd[row] = rstd;
    }
    float weight[8], bias[8] = {};
    part.load_row(call.weight, weight);
    if (call.bias) part.load_row(call.bias, bias);
#pragma unroll
    for (int i = 0; i < 8; ++i) x[i] = (x[i] - center) * rstd * weight[i] + bias[i];
    part.store_row(call.y + at, x);
  }
}

// Sums over rows stay in registers: a block takes every gridDim-th row and writes its sums once.
// With xhat = (x - mean) rstd and g = dy weight:
//   dx = rstd (g - [LayerNorm: average of g] - xhat * average of g xhat).
// kExtra: there is a bias or a LayerScale, whose sums take registers too; up to 256 threads leave
// room for enough blocks on a multiprocessor to cover the memory's latency.
template <bool kAligned, bool kExtra, int kThreads>
__global__ void __launch_bounds__(kThreads, kThreads > 256 ? 1
                                            : kExtra       ? 3
                                                           : 4)
    backward_kernel(ResidualNormBackward call) {
  __shared__ BlockSum<float>::Storage storage;
  BlockSum<float> block_sum(storage);
  const int width = static_cast<int>(call.width);
  const RowPart<kAligned> part{static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x), width};
  const float inverse_width = 1.0f / static_cast<float>(width);
  float weight[8];
  part.load_row(call.weight, weight);
  float weight_sums[8] = {}, bias_sums[8] = {}, layer_scale_sums[8] = {};

  for (int64_t row = blockIdx.x; row < call.rows; row += gridDim.x) {
    const int64_t at = row * width;
    float xhat[8], dy[8], from_above[8] = {}, delta[8] = {};
    // All loads come before the first use, so that they are in flight together.
    part.load_row(call.x + at, xhat);
    part.load_row(call.dy + at, dy);
    if (call.accumulate) part.load_row(call.d_residual + at, from_above);
    if (kExtra && call.d_layer_scale) part.load_row(call.branch.delta + at, delta);
    const float rstd = call.rstd[row], center = call.centered ? call.mean[row] : 0.0f;

    float g_sum = 0.0f, g_xhat_sum = 0.0f;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      xhat[i] = (xhat[i] - center) * rstd;
      weight_sums[i] += dy[i] * xhat[i];
      if (kExtra) bias_sums[i] += dy[i];
      const float g = dy[i] * weight[i];  // zero behind the end of the row
      g_sum += g;
      g_xhat_sum += g * xhat[i];
    }
    const float g_mean = call.centered ? block_sum(g_sum) * inverse_width : 0.0f;
    const float g_xhat_mean = block_sum(g_xhat_sum) * inverse_width;
    float dx[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      dx[i] = from_above[i] + rstd * (dy[i] * weight[i] - g_mean - xhat[i] * g_xhat_mean);
    }
    part.store_row(call.d_residual + at, dx);

    if (!call.d_delta && !call.d_layer_scale) continue;  // the same for all threads
    const float scale = sample_scale(call.branch, row);
#pragma unroll
    for (int i = 0; i < 8; ++i) dx[i] *= scale;
    if (kExtra && call.d_layer_scale) {
#pragma unroll
      for (int i = 0; i < 8; ++i) layer_scale_sums[i] += delta[i] * dx[i];
    }
    if (call.d_delta) {
      if (call.branch.layer_scale) {
        float gamma[8];
        part.load_row(call.branch.layer_scale, gamma);
#pragma unroll
        for (int i = 0; i < 8; ++i) dx[i] *= gamma[i];
      }
      part.store_row(call.d_delta + at, dx);
    }
  }

  float* sums = call.partials + int64_t{blockIdx.x} * 3 * width;
  part.store_row(sums, weight_sums);
  if (kExtra && call.dbias) part.store_row(sums + width, bias_sums);
  if (kExtra && call.d_layer_scale) part.store_row(sums + 2 * width, layer_scale_sums);
}

// Enough rows in flight to cover the memory's latency, few enough that the blocks' sums are a small
// share of the traffic.
int backward_blocks(int64_t rows, int64_t width) {
  const int per_multiprocessor = std::clamp(1024 / threads_per_row(width), 1, 8);
  return grid_size(rows, 1, per_multiprocessor);
}

// Rows of the partial sums start on 16 bytes where the width is a multiple of 8.
bool is_aligned(int64_t width) { return width % vector_size == 0; }

template <bool kExtra>
void launch_aligned_backward(const ResidualNormBackward& call, int blocks, int threads,
                             cudaStream_t stream) {
  if (threads <= 256) {
    backward_kernel<true, kExtra, 256><<<blocks, threads, 0, stream>>>(call);
  } else {
    backward_kernel<true, kExtra, most_threads><<<blocks, threads, 0, stream>>>(call);
  }
}

}  // namespace

void residual_norm_forward(const ResidualNormForward& call, cudaStream_t stream) {
  if (call.rows <= 0) return;
  const int threads = threads_per_row(call.width);
  // Blocks that have finished make room for others: no barrier of one row holds up the next.
  const int grid = static_cast<int>(std::min<int64_t>(call.rows, 1 << 30));
  const NormBranch& branch = call.branch;
  if (is_aligned(call.width) && aligned16(call.residual, branch.delta, branch.layer_scale,
                                          call.residual_out, call.weight, call.bias, call.y)) {
    forward_kernel<true><<<grid, threads, 0, stream>>>(call);
  } else {
    forward_kernel<false><<<grid, threads, 0, stream>>>(call);
  }
}

void residual_norm_backward(const ResidualNormBackward& call, cudaStream_t stream) {
  if (call.rows <= 0) return;
  const int64_t width = call.width;
  const int threads = threads_per_row(width), blocks = backward_blocks(call.rows, width);
  const NormBranch& branch = call.branch;
  if (is_aligned(width) && aligned16(call.x, call.weight, call.dy, call.d_residual, branch.delta,
                                     branch.layer_scale, call.d_delta, call.partials)) {
    if (call.dbias || call.d_layer_scale) {
      launch_aligned_backward<true>(call, blocks, threads, stream);
    } else {
      launch_aligned_backward<false>(call, blocks, threads, stream);
    }
  } else {
    backward_kernel<false, true, most_threads><<<blocks, threads, 0, stream>>>(call);
  }
  float* const results[3] = {call.dweight, call.dbias, call.d_layer_scale};
  for (int sum = 0; sum < 3; ++sum) {
    if (results[sum]) {
      add_partial_sums(call.partials + sum * width, blocks, 3 * width, width, results[sum], stream);
    }
  }
}

int64_t residual_norm_backward_partials(int64_t rows, int64_t width) {
  return int64_t{backward_blocks(rows, width)} * 3 * width;
}

}  // namespace sigtrain::kernels
