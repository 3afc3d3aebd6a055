#include "launch.h"
#include "reduction.h"
#include "vector.cuh"

namespace sigtrain::kernels {
namespace {

constexpr int block_threads = 256;

template <bool kAligned, bool kSquare, typename T>
__global__ void __launch_bounds__(block_threads)
    partial_kernel(const T* x, int64_t count, double* partials) {
  __shared__ BlockSum<double>::Storage storage;
  BlockSum<double> block_sum(storage);
  constexpr int step = kAligned ? vector_size : 1;
  const int64_t stride = int64_t{gridDim.x} * block_threads * step;
  // Eight sums: one would wait for its own last addition.
  float sums[8] = {};
#pragma unroll 2
  for (int64_t i = (int64_t{blockIdx.x} * block_threads + threadIdx.x) * step; i < count;
       i += stride) {
    float v[8];
    load_part(x, i, min(i + step, count), v);
#pragma unroll
    for (int j = 0; j < 8; ++j) sums[j] += kSquare ? v[j] * v[j] : v[j];
  }
  double sum = 0.0;
#pragma unroll
  for (int j = 0; j < 8; ++j) sum += sums[j];
  sum = block_sum(sum);
  if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(block_threads)
    finish_kernel(Reduction reduction, const double* partials, int blocks, int64_t count,
                  float* result) {
  __shared__ BlockSum<double>::Storage storage;
  BlockSum<double> block_sum(storage);
  double sum = 0.0;
  for (int i = threadIdx.x; i < blocks; i += block_threads) sum += partials[i];
  sum = block_sum(sum);
  if (threadIdx.x != 0) return;
  switch (reduction) {
    case Reduction::sum_of_squares:
      *result = static_cast<float>(sum);
      break;
    case Reduction::root_mean_square:
      *result = static_cast<float>(sqrt(sum / static_cast<double>(count)));
      break;
    case Reduction::mean:
      *result = static_cast<float>(sum / static_cast<double>(count));
      break;
  }
}

int blocks_for(int64_t count) { return grid_size(count, int64_t{block_threads} * vector_size, 8); }

template <bool kSquare, typename T>
void launch_partials(const T* x, int64_t count, double* partials, cudaStream_t stream) {
  if (aligned16(x)) {
    partial_kernel<true, kSquare>
        <<<blocks_for(count), block_threads, 0, stream>>>(x, count, partials);
  } else {
    partial_kernel<false, kSquare>
        <<<blocks_for(count), block_threads, 0, stream>>>(x, count, partials);
  }
}

template <typename T>
void reduce_any(Reduction reduction, const T* x, int64_t count, double* partials, float* result,
                cudaStream_t stream) {
  if (reduction == Reduction::mean) {
    launch_partials<false>(x, count, partials, stream);
  } else {
    launch_partials<true>(x, count, partials, stream);
  }
  finish_kernel<<<1, block_threads, 0, stream>>>(reduction, partials, blocks_for(count), count,
                                                 result);
}

}  // namespace

void reduce(Reduction reduction, const float* x, int64_t count, double* partials, float* result,
            cudaStream_t stream) {
  reduce_any(reduction, x, count, partials, result, stream);
}

void reduce(Reduction reduction, const bf16* x, int64_t count, double* partials, float* result,
            cudaStream_t stream) {
  reduce_any(reduction, x, count, partials, result, stream);
}

int64_t reduction_partials(int64_t count) { return blocks_for(count); }

}  // namespace sigtrain::kernels
