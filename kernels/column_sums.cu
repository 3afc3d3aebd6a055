#include "column_sums.h"
#include "launch.h"
#include "vector.cuh"

namespace sigtrain::kernels {
namespace {

constexpr int warps = 32;

struct AllPartialSums {
  PartialSums sums[most_partial_sums];
};

// One block a strip of 32 columns of one sum: a warp reads 128 neighbouring bytes of every 32nd
// row, and the warps' sums are added in order.
__global__ void __launch_bounds__(32 * warps)
    add_partial_sums_kernel(const __grid_constant__ AllPartialSums all, int64_t width) {
  __shared__ float sums[warps][33];  // a column of it falls into 32 banks
  const PartialSums& call = all.sums[blockIdx.y];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t column = int64_t{blockIdx.x} * 32 + lane;
  float sum = 0.0f;
  if (column < width) {
#pragma unroll 8
    for (int64_t row = warp; row < call.rows; row += warps)
      sum += call.partials[row * call.stride + column];
  }
  sums[warp][lane] = sum;
  __syncthreads();
  // Warp w finishes column w.
  const float total = warp_sum(sums[lane][warp]);
  const int64_t own = int64_t{blockIdx.x} * 32 + warp;
  if (lane == 0 && own < width) call.result[own] += total;
}

constexpr int column_warps = 8, column_loads = 8;
// As many as fit with the registers of eight rows' loads, all at once.
constexpr int column_blocks_per_multiprocessor = 4;

// A warp owns a strip of 256 columns, 8 a lane (without 16-byte rows: 32 lanes' elements 32 apart),
// and takes every eighth row of its block's rows.
template <bool kAligned>
__global__ void __launch_bounds__(32 * column_warps, column_blocks_per_multiprocessor)
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
  // Loads of several rows are in flight together.
  for (int64_t row = begin + warp; row < end; row += column_loads * column_warps) {
    uint4 packed[column_loads];
#pragma unroll
    for (int j = 0; j < column_loads; ++j) {
      const int64_t at = row + j * column_warps;
      packed[j] =
          at < end ? part.load_packed(x + at * width + first_column) : make_uint4(0, 0, 0, 0);
    }
#pragma unroll
    for (int j = 0; j < column_loads; ++j) {
      float v[8];
      unpack(packed[j], v);
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
  ColumnGrid(int64_t rows, int64_t width) {
    strips = std::max<int64_t>(1, ceil_div(width, 32 * vector_size));
    // No more than run at once, and with one round of loads at least.
    const int64_t wanted = std::clamp<int64_t>(
        int64_t{device_limits().multiprocessors} * column_blocks_per_multiprocessor / strips, 1,
        65535);
    rows_per_block = std::max<int64_t>(column_loads * column_warps, ceil_div(rows, wanted));
    blocks = ceil_div(rows, rows_per_block);
  }
  int64_t strips, rows_per_block, blocks;
};

}  // namespace

void add_partial_sums(std::initializer_list<PartialSums> sums, int64_t width, cudaStream_t stream) {
  AllPartialSums all{};
  unsigned count = 0;
  for (const PartialSums& sum : sums)
    if (sum.result && sum.rows > 0) all.sums[count++] = sum;
  if (count == 0 || width <= 0) return;
  const dim3 grid(static_cast<unsigned>(ceil_div(width, 32)), count);
  add_partial_sums_kernel<<<grid, 32 * warps, 0, stream>>>(all, width);
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
  add_partial_sums({{partials, sizes.blocks, width, result}}, width, stream);
}

int64_t column_sum_partials(int64_t rows, int64_t width) {
  return rows <= 0 ? 0 : ColumnGrid(rows, width).blocks * width;
}

}  // namespace sigtrain::kernels
