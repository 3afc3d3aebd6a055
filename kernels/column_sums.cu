#include "column_sums.cuh"

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

/// The rows of x as they are.
struct RowsOf {
  static constexpr int loads = 8;
  const bf16* x;

  template <bool kAligned>
  __device__ uint4 load(const RowPart<kAligned>& part, int64_t at) const {
    return part.load_packed(x + at);
  }
  template <bool kAligned>
  __device__ void finish(const RowPart<kAligned>&, int64_t, const uint4& packed,
                         float (&v)[8]) const {
    unpack(packed, v);
  }
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
  add_column_sums_of(RowsOf{x}, width % vector_size == 0 && aligned16(x), rows, width, result,
                     partials, stream);
}

int64_t column_sum_partials(int64_t rows, int64_t width) {
  return column_sum_partials_of<RowsOf>(rows, width);
}

}  // namespace sigtrain::kernels
