// Sums over the rows of a matrix that is read, or made, on the way.
#pragma once

#include <algorithm>

#include "column_sums.h"
#include "launch.h"
#include "vector.cuh"

namespace sigtrain::kernels {

constexpr int column_warps = 8;
/// As many as fit with the registers of eight loads in flight.
constexpr int column_blocks_per_multiprocessor = 4;

/// A warp owns a strip of 256 columns, 8 a lane (without 16-byte rows: 32 lanes' elements 32
/// apart), and takes every eighth row of its block's rows. Of Source::loads rows at a time,
/// `source` loads what it needs of a row and then finishes it, which gives the elements to sum.
template <bool kAligned, typename Source>
__global__ void __launch_bounds__(32 * column_warps, column_blocks_per_multiprocessor)
    column_sums_kernel(Source source, int64_t rows, int64_t width, int64_t rows_per_block,
                       float* partials) {
  __shared__ float sums[column_warps][32 * vector_size];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t first_column = int64_t{blockIdx.x} * 32 * vector_size;
  const int strip = static_cast<int>(min(width - first_column, int64_t{32 * vector_size}));
  const RowPart<kAligned> part{lane, 32, strip};
  const int64_t begin = int64_t{blockIdx.y} * rows_per_block;
  const int64_t end = min(begin + rows_per_block, rows);
  float total[8] = {};
  // Loads of several rows are in flight together.
  for (int64_t row = begin + warp; row < end; row += Source::loads * column_warps) {
    decltype(source.load(part, 0)) loaded[Source::loads] = {};
#pragma unroll
    for (int j = 0; j < Source::loads; ++j) {
      const int64_t at = row + j * column_warps;
      if (at < end) loaded[j] = source.load(part, at * width + first_column);
    }
#pragma unroll
    for (int j = 0; j < Source::loads; ++j) {
      const int64_t at = row + j * column_warps;
      if (at >= end) break;
      float v[8];
      source.finish(part, at * width + first_column, loaded[j], v);
#pragma unroll
      for (int i = 0; i < 8; ++i) total[i] += v[i];
    }
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) sums[warp][part.column(i)] = total[i];
  __syncthreads();
  for (int column = threadIdx.x; column < strip; column += blockDim.x) {
    float sum = 0.0f;
#pragma unroll
    for (int w = 0; w < column_warps; ++w) sum += sums[w][column];
    partials[blockIdx.y * width + first_column + column] = sum;
  }
}

struct ColumnGrid {
  ColumnGrid(int64_t rows, int64_t width, int loads) {
    strips = std::max<int64_t>(1, ceil_div(width, 32 * vector_size));
    // No more than run at once, and with one round of loads at least.
    const int64_t wanted = std::clamp<int64_t>(
        int64_t{device_limits().multiprocessors} * column_blocks_per_multiprocessor / strips, 1,
        65535);
    rows_per_block = std::max<int64_t>(loads * column_warps, ceil_div(rows, wanted));
    blocks = ceil_div(rows, rows_per_block);
  }
  int64_t strips, rows_per_block, blocks;
};

/// result[c] += sum over rows of what `source` makes of a matrix [rows, width]; `aligned`: its rows
/// start on 16 bytes. `partials` has column_sum_partials_of<Source>(rows, width) floats.
template <typename Source>
void add_column_sums_of(const Source& source, bool aligned, int64_t rows, int64_t width,
                        float* result, float* partials, cudaStream_t stream) {
  if (rows <= 0 || width <= 0) return;
  const ColumnGrid sizes(rows, width, Source::loads);
  const dim3 grid(static_cast<unsigned>(sizes.strips), static_cast<unsigned>(sizes.blocks));
  const auto kernel =
      aligned ? column_sums_kernel<true, Source> : column_sums_kernel<false, Source>;
  kernel<<<grid, 32 * column_warps, 0, stream>>>(source, rows, width, sizes.rows_per_block,
                                                 partials);
  add_partial_sums({{partials, sizes.blocks, width, result}}, width, stream);
}

template <typename Source>
int64_t column_sum_partials_of(int64_t rows, int64_t width) {
  return rows <= 0 ? 0 : ColumnGrid(rows, width, Source::loads).blocks * width;
}

}  // namespace sigtrain::kernels
