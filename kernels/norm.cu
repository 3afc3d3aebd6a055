#include "column_sums.h"
#include "launch.h"
#include "norm.h"
#include "vector.cuh"

namespace sigtrain::kernels {
namespace {

// A team, one warp where the row is short enough, works on one row at a time: a row is read once,
// all its loads in flight together, stays in registers, and is written once. A block holds
// blockDim.y teams.

/// Teams that hold a row of this width, in blocks of no more than `block_threads` if that is
/// enough.
struct TeamShape {
  TeamShape(int64_t width, int vectors_per_thread, int block_threads) {
    threads = static_cast<int>(round_up(ceil_div(width, vector_size * vectors_per_thread), 32));
    teams = std::max(1, block_threads / threads);
  }
  dim3 block() const { return dim3(static_cast<unsigned>(threads), static_cast<unsigned>(teams)); }
  int threads, teams;
};

__device__ inline float sample_scale(const NormBranch& branch, int64_t row) {
  return branch.sample_scale ? branch.sample_scale[row / branch.rows_per_sample] : 1.0f;
}

constexpr int forward_threads = 128;

template <bool kAligned, int kVectors, bool kBranch, bool kCentered>
__global__ void __launch_bounds__(forward_threads) forward_kernel(ResidualNormForward call) {
  __shared__ TeamSum<float>::Storage storage;
  const int team = static_cast<int>(threadIdx.y);
  const int64_t row = int64_t{blockIdx.x} * blockDim.y + team;
  if (row >= call.rows) return;  // whole teams
  TeamSum<float> team_sum(storage, team, static_cast<int>(blockDim.x));
  const TeamRow<kAligned, kVectors> parts{
      static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x), static_cast<int>(call.width)};
  const float inverse_width = 1.0f / static_cast<float>(call.width);
  const int64_t at = row * call.width;

  uint4 packed[kVectors];
  parts.load(call.residual + at, packed);
  if constexpr (kBranch) {
    uint4 packed_delta[kVectors];
    parts.load(call.branch.delta + at, packed_delta);
    const float scale = sample_scale(call.branch, row);
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      float x[8], delta[8];
      unpack(packed[v], x);
      unpack(packed_delta[v], delta);
      if (call.branch.layer_scale) {
        float gamma[8];
        parts[v].load_row(call.branch.layer_scale, gamma);
#pragma unroll
        for (int i = 0; i < 8; ++i) delta[i] *= gamma[i];
      }
#pragma unroll
      for (int i = 0; i < 8; ++i) x[i] += scale * delta[i];
      // The backward pass normalises the stream as it is stored, rounded; so does this.
      packed[v] = pack(x);
      parts[v].store_packed(call.residual_out + at, packed[v]);
    }
  }

  float center = 0.0f;
  if constexpr (kCentered) {
    float sum = 0.0f;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      float x[8];
      unpack(packed[v], x);
#pragma unroll
      for (int i = 0; i < 8; ++i) sum += x[i];
    }
    center = team_sum(sum) * inverse_width;
    forget_unpacked(packed);
  }
  float squares = 0.0f;
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    float x[8];
    unpack(packed[v], x);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const float deviation = !kCentered ? x[i] : parts[v].owns(i) ? x[i] - center : 0.0f;
      squares += deviation * deviation;
    }
  }
  const float rstd = rsqrtf(team_sum(squares) * inverse_width + call.eps);
  if (threadIdx.x == 0) {
    if (kCentered) call.mean[row] = center;
    call.rstd[row] = rstd;
  }
  forget_unpacked(packed);
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    float x[8], weight[8], bias[8] = {};
    unpack(packed[v], x);
    parts[v].load_row(call.weight, weight);
    if (call.bias) parts[v].load_row(call.bias, bias);
#pragma unroll
    for (int i = 0; i < 8; ++i)
      x[i] = (kCentered ? x[i] - center : x[i]) * rstd * weight[i] + bias[i];
    parts[v].store_row(call.y + at, x);
  }
}

// Two vectors a thread leave registers for the sums. Rows of up to 4096 take a block of 256.
constexpr int backward_vectors = 2;
constexpr int backward_threads = 256;
constexpr int backward_most_threads = norm_largest_width / (vector_size * backward_vectors);

/// Where the teams of a block add up what each has summed over its rows.
struct TeamTotals {
  float of_element[backward_vectors * vector_size][backward_threads];
};

/// Adds the teams' sums in order and writes a row of partial sums.
template <bool kAligned>
__device__ inline void write_totals(const TeamRow<kAligned, backward_vectors>& parts,
                                    float (&sums)[backward_vectors][8], TeamTotals& totals,
                                    float* result) {
  const int threads = static_cast<int>(blockDim.x), teams = static_cast<int>(blockDim.y);
  if (teams > 1) {
    __syncthreads();
#pragma unroll
    for (int v = 0; v < backward_vectors; ++v)
#pragma unroll
      for (int i = 0; i < 8; ++i)
        totals.of_element[8 * v + i][threadIdx.y * threads + threadIdx.x] = sums[v][i];
    __syncthreads();
  }
  if (threadIdx.y != 0) return;
#pragma unroll
  for (int v = 0; v < backward_vectors; ++v) {
    float total[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) total[i] = sums[v][i];
    for (int team = 1; team < teams; ++team)
#pragma unroll
      for (int i = 0; i < 8; ++i)
        total[i] += totals.of_element[8 * v + i][team * threads + threadIdx.x];
    parts[v].store_row(result, total);
  }
}

/// As many as run at once with the registers of their sums.
constexpr int backward_blocks_per_multiprocessor(bool extra, int threads) {
  return threads > backward_threads ? 1 : extra ? 2 : 3;
}

// Sums over rows stay in registers: a team takes every so-manieth row, and a block writes its sums
// once. With xhat = (x - mean) rstd and g = dy weight:
//   dx = rstd (g - [LayerNorm: average of g] - xhat * average of g xhat).
// kExtra: there is a bias or a LayerScale, whose sums take registers too.
// kThreads: the most of a block.
template <bool kAligned, bool kExtra, int kThreads>
__global__ void __launch_bounds__(kThreads, backward_blocks_per_multiprocessor(kExtra, kThreads))
    backward_kernel(ResidualNormBackward call) {
  __shared__ TeamSum<float>::Storage storage;
  __shared__ TeamTotals totals;
  const int team = static_cast<int>(threadIdx.y), teams = static_cast<int>(blockDim.y);
  TeamSum<float> team_sum(storage, team, static_cast<int>(blockDim.x));
  constexpr int vectors = backward_vectors;
  const TeamRow<kAligned, vectors> parts{
      static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x), static_cast<int>(call.width)};
  const float inverse_width = 1.0f / static_cast<float>(call.width);
  uint4 packed_weight[vectors], packed_gamma[vectors] = {};
  parts.load(call.weight, packed_weight);
  if (call.branch.layer_scale) parts.load(call.branch.layer_scale, packed_gamma);
  float weight_sums[vectors][8] = {}, bias_sums[vectors][8] = {}, layer_scale_sums[vectors][8] = {};

  const int64_t stride = int64_t{gridDim.x} * teams;
  for (int64_t first = int64_t{blockIdx.x} * teams; first < call.rows; first += stride) {
    const int64_t row = first + team, at = row * call.width;
    if (row >= call.rows) {  // the other teams' barriers are this one's too
      if (call.centered) team_sum(0.0f);
      team_sum(0.0f);
      continue;
    }
    uint4 packed_x[vectors], packed_dy[vectors], from_above[vectors] = {}, packed_delta[vectors];
    parts.load(call.x + at, packed_x);
    parts.load(call.dy + at, packed_dy);
    if (call.accumulate) parts.load(call.d_residual + at, from_above);
    if (kExtra && call.d_layer_scale) parts.load(call.branch.delta + at, packed_delta);
    const float rstd = call.rstd[row], center = call.centered ? call.mean[row] : 0.0f;
    forget_unpacked(packed_weight);
    forget_unpacked(packed_gamma);

    float g_sum = 0.0f, g_xhat_sum = 0.0f;
#pragma unroll
    for (int v = 0; v < vectors; ++v) {
      float x[8], dy[8], weight[8];
      unpack(packed_x[v], x);
      unpack(packed_dy[v], dy);
      unpack(packed_weight[v], weight);
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const float xhat = (x[i] - center) * rstd;
        weight_sums[v][i] += dy[i] * xhat;
        if (kExtra) bias_sums[v][i] += dy[i];
        const float g = dy[i] * weight[i];  // zero behind the end of the row
        g_sum += g;
        g_xhat_sum += g * xhat;
      }
    }
    const float g_mean = call.centered ? team_sum(g_sum) * inverse_width : 0.0f;
    const float g_xhat_mean = team_sum(g_xhat_sum) * inverse_width;
    for (auto* packed : {&packed_x, &packed_dy, &packed_weight}) forget_unpacked(*packed);
    const bool branches = call.d_delta || call.d_layer_scale;  // the same for all threads
    const float scale = branches ? sample_scale(call.branch, row) : 0.0f;
#pragma unroll
    for (int v = 0; v < vectors; ++v) {
      float x[8], dy[8], weight[8], dx[8];
      unpack(packed_x[v], x);
      unpack(packed_dy[v], dy);
      unpack(packed_weight[v], weight);
      unpack(from_above[v], dx);
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const float xhat = (x[i] - center) * rstd;
        dx[i] += rstd * (dy[i] * weight[i] - g_mean - xhat * g_xhat_mean);
      }
      parts[v].store_row(call.d_residual + at, dx);
      if (!branches) continue;
#pragma unroll
      for (int i = 0; i < 8; ++i) dx[i] *= scale;
      if (kExtra && call.d_layer_scale) {
        float delta[8];
        unpack(packed_delta[v], delta);
#pragma unroll
        for (int i = 0; i < 8; ++i) layer_scale_sums[v][i] += delta[i] * dx[i];
      }
      if (call.d_delta) {
        if (call.branch.layer_scale) {
          float gamma[8];
          unpack(packed_gamma[v], gamma);
#pragma unroll
          for (int i = 0; i < 8; ++i) dx[i] *= gamma[i];
        }
        parts[v].store_row(call.d_delta + at, dx);
      }
    }
  }

  float* sums = call.partials + int64_t{blockIdx.x} * 3 * call.width;
  write_totals(parts, weight_sums, totals, sums);
  if (kExtra && call.dbias) write_totals(parts, bias_sums, totals, sums + call.width);
  if (kExtra && call.d_layer_scale)
    write_totals(parts, layer_scale_sums, totals, sums + 2 * call.width);
}

// Whether the sums of a bias or a LayerScale are wanted too.
bool has_extra_sums(const ResidualNormBackward& call) { return call.dbias || call.d_layer_scale; }

// No block waits for another to end, and with few of them the blocks' sums are a small share of the
// traffic.
int backward_blocks(int64_t rows, const TeamShape& shape, bool extra) {
  return grid_size(rows, shape.teams,
                   backward_blocks_per_multiprocessor(extra, shape.threads * shape.teams));
}

TeamShape backward_shape(int64_t width) {
  return TeamShape(width, backward_vectors, backward_threads);
}

// Rows of the partial sums start on 16 bytes where the width is a multiple of 8.
bool is_aligned(int64_t width) { return width % vector_size == 0; }

template <bool kAligned, int kVectors>
void launch_forward(const ResidualNormForward& call, cudaStream_t stream) {
  // Blocks that have finished make room for others: no barrier of one row holds up the next.
  const TeamShape shape(call.width, kVectors, forward_threads);
  const auto grid = static_cast<unsigned>(ceil_div(call.rows, shape.teams));
  const auto kernel = call.branch.delta ? call.centered
                                              ? forward_kernel<kAligned, kVectors, true, true>
                                              : forward_kernel<kAligned, kVectors, true, false>
                      : call.centered ? forward_kernel<kAligned, kVectors, false, true>
                                        : forward_kernel<kAligned, kVectors, false, false>;
  kernel<<<grid, shape.block(), 0, stream>>>(call);
}

template <bool kAligned, bool kExtra>
void launch_backward(const ResidualNormBackward& call, const TeamShape& shape, int blocks,
                     cudaStream_t stream) {
  if (shape.threads * shape.teams <= backward_threads) {
    backward_kernel<kAligned, kExtra, backward_threads><<<blocks, shape.block(), 0, stream>>>(call);
  } else {
    backward_kernel<kAligned, kExtra, backward_most_threads>
        <<<blocks, shape.block(), 0, stream>>>(call);
  }
}

}  // namespace

void residual_norm_forward(const ResidualNormForward& call, cudaStream_t stream) {
  if (call.rows <= 0) return;
  const NormBranch& branch = call.branch;
  // Eight vectors a thread hold rows of up to 2048 in a warp, and of up to 8192 in a block.
  if (!is_aligned(call.width) || !aligned16(call.residual, branch.delta, branch.layer_scale,
                                            call.residual_out, call.weight, call.bias, call.y)) {
    launch_forward<false, 8>(call, stream);
  } else if (call.width <= 512) {
    launch_forward<true, 2>(call, stream);
  } else if (call.width <= 1024) {
    launch_forward<true, 4>(call, stream);
  } else {
    launch_forward<true, 8>(call, stream);
  }
}

void residual_norm_backward(const ResidualNormBackward& call, cudaStream_t stream) {
  if (call.rows <= 0) return;
  const int64_t width = call.width;
  const TeamShape shape = backward_shape(width);
  const NormBranch& branch = call.branch;
  const bool aligned =
      is_aligned(width) && aligned16(call.x, call.weight, call.dy, call.d_residual, branch.delta,
                                     branch.layer_scale, call.d_delta, call.partials);
  const bool extra = has_extra_sums(call) || !aligned;
  const int blocks = backward_blocks(call.rows, shape, extra);
  if (!aligned) {
    launch_backward<false, true>(call, shape, blocks, stream);
  } else if (extra) {
    launch_backward<true, true>(call, shape, blocks, stream);
  } else {
    launch_backward<true, false>(call, shape, blocks, stream);
  }
  const int64_t stride = 3 * width;
  add_partial_sums({{call.partials, blocks, stride, call.dweight},
                    {call.partials + width, blocks, stride, call.dbias},
                    {call.partials + 2 * width, blocks, stride, call.d_layer_scale}},
                   width, stream);
}

int64_t residual_norm_backward_partials(int64_t rows, int64_t width) {
  return int64_t{backward_blocks(rows, backward_shape(width), false)} * 3 * width;
}

}  // namespace sigtrain::kernels
