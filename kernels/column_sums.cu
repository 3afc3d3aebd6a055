#include "column_sums.h"
#include "launch.h"
#include "vector.cuh"

namespace sigtrain::kernels {
namespace {

constexpr int warps = 32;

// One block a strip of 32 columns: a warp reads 128 neighbouring bytes of every 32nd row, and the
// warps' sums are added in order.
__global__ void __launch_bounds__(32 * warps)
    add_partial_sums_kernel(const float* partials, int64_t rows, int64_t stride, int64_t width,
                            float* result) {
  __shared__ float sums[warps][33];  // a column of it falls into 32 banks
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t column = int64_t{blockIdx.x} * 32 + lane;
  float sum = 0.0f;
  if (column < width) {
#pragma unroll 8
    for (int64_t row = warp; row < rows; row += warps) sum += partials[row * stride + column];
  }
  sums[warp][lane] = sum;
  __syncthreads();
  // Warp w finishes column w.
  const float total = warp_sum(sums[lane][warp]);
  const int64_t own = int64_t{blockIdx.x} * 32 + warp;
  if (lane == 0 && own < width) result[own] += total;
}

constexpr int column_warps = 8;

// A warp owns a strip of 256 columns, 8 a lane (without 16-byte rows: 32 lanes' elements 32 apart),
// and takes every eighth row of its block's rows.
template <bool kAligned>
__global__ void __launch_bounds__(32 * column_warps)
    column_sums_kernel(const bf16* x, int64_t rows, int64_t width, int64_t rows_per_block,
                       float* partials) {
  __shared__ float sums[column_warps][32 * vector_size];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t first_column = int64_t{blockIdx.x} * 32 * vector_size;
  const int strip = static_cast<int>(min(width - first_column, int64_t{32 * vector_size}));
  const RowPart<kAligned> part{lane, 32, strip};
  const int64_t begin = int64_t{blockIdx.y} * rows_per_block;
  const int64_t end = min(begin + rows_per_block, rows);
  float total[8] = {};
#pragma unroll 4
  for (int64_t row = begin + warp; row < end; row += column_warps) {
    float v[8];
    part.load_row(x + row * width + first_column, v);
#pragma unroll
    for (int i = 0; i < 8; ++i) total[i] += v[i];
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
  ColumnGrid(int64_t rows, int64_t width) {
    strips = ceil_div(width, 32 * vector_size);
    // Eight blocks a multiprocessor over all strips, each with four rows a warp at least.
    const int64_t wanted = std::max<int64_t>(
        1, int64_t{device_limits().multiprocessors} * 8 / std::max<int64_t>(strips, 1));
    rows_per_block =
        std::max<int64_t>(4 * column_warps, ceil_div(rows, std::min<int64_t>(wanted, 65535)));
    blocks = ceil_div(rows, rows_per_block);
  }
  int64_t strips, rows_per_block, blocks;
};

}  // namespace

void add_partial_sums(const float* partials, int64_t rows, int64_t stride, int64_t width,
                      float* result, cudaStream_t stream) {
  if (rows <= 0 || width <= 0) return;
  add_partial_sums_kernel<<<static_cast<unsigned>(ceil_div(width, 32)), 32 * warps, 0, stream>>>(
      partials, rows, stride, width, result);
}

void add_column_sums(const bf16* x, int64_t rows, int64_t width, float* result, float* partials,
                     cudaStream_t stream) {
  if (rows <= 0 || width <= 0) return;
  const ColumnGrid sizes(rows, width);
  const dim3 grid(static_cast<unsigned>(sizes.strips), static_cast<unsigned>(sizes.blocks));
  if (width % vector_size == 0 && aligned16(x)) {
    column_sums_kernel<true>
        <<<grid, 32 * column_warps, 0, stream>>>(x, rows, width, sizes.rows_per_block, partials);
  } else {
    column_sums_kernel<false>
        <<<grid, 32 * column_warps, 0, stream>>>(x, rows, width, sizes.rows_per_block, partials);
  }
  add_partial_sums(partials, sizes.blocks, width, width, result, stream);
}

int64_t column_sum_partials(int64_t rows, int64_t width) {
  return rows <= 0 ? 0 : ColumnGrid(rows, width).blocks * width;
}

}  // namespace sigtrain::kernels
