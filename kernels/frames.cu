#include "frames.h"
#include "launch.h"
#include "vector.cuh"

namespace sigtrain::kernels {
namespace {

constexpr int block_threads = 256;
constexpr int blocks_per_multiprocessor = 8;

// A thread takes every block_threads-th element of a row of y: reads and writes are of neighbours.
__global__ void __launch_bounds__(block_threads) unfold_kernel(Unfold call) {
  const int64_t width = call.kernel * call.channels;
  for (int64_t row = blockIdx.x; row < call.batch * call.out_len; row += gridDim.x) {
    const int64_t b = row / call.out_len;
    // Frames of a window follow each other in x too.
    const int64_t first = (row % call.out_len * call.stride - call.padding) * call.channels;
    const int64_t end = min(int64_t{call.lengths[b]}, call.in_len) * call.channels;
    const float* x = call.x + b * call.in_len * call.channels;
    bf16* y = call.y + row * width;
    for (int64_t i = threadIdx.x; i < width; i += block_threads) {
      const int64_t at = first + i;
      y[i] = from_float<bf16>(at >= 0 && at < end ? x[at] : 0.0f);
    }
  }
}

__global__ void __launch_bounds__(block_threads)
    sinusoids_kernel(const float* positions, bf16* x, int64_t rows, int width) {
  const int half = width / 2;
  constexpr float log2_of_10000 = 13.287712379549449f;
  for (int i = threadIdx.x; i < half; i += block_threads) {
    const float frequency =
        exp2f(-log2_of_10000 * static_cast<float>(i) / static_cast<float>(half));
    for (int64_t n = blockIdx.x; n < rows; n += gridDim.x) {
      float sine, cosine;
      sincosf(positions[n] * frequency, &sine, &cosine);
      bf16* row = x + n * width;
      row[i] = from_float<bf16>(to_float(row[i]) + sine);
      row[half + i] = from_float<bf16>(to_float(row[half + i]) + cosine);
    }
  }
}

template <bool kSquare, typename T>
__global__ void __launch_bounds__(block_threads)
    sequence_partial_kernel(const T* x, const int32_t* lengths, int64_t inner, int64_t seq_len,
                            int64_t width, double* partials) {
  __shared__ BlockSum<double>::Storage storage;
  BlockSum<double> block_sum(storage);
  const int64_t counted = min(int64_t{lengths[blockIdx.x / inner]}, seq_len) * width;
  x += blockIdx.x * seq_len * width;
  double sum = 0.0;
  for (int64_t i = threadIdx.x; i < counted; i += block_threads) {
    const double value = to_float(x[i]);
    sum += kSquare ? value * value : value;
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

template <bool kSquare>
__global__ void sequence_finish_kernel(const double* partials, const int32_t* lengths,
                                       int64_t batch, int64_t inner, int64_t seq_len, int64_t width,
                                       float* result) {
  if (threadIdx.x != 0) return;
  double sum = 0.0;
  int64_t counted = 0;
  for (int64_t b = 0; b < batch; ++b) {
    counted += min(int64_t{lengths[b]}, seq_len) * inner * width;
    for (int64_t i = 0; i < inner; ++i) sum += partials[b * inner + i];
  }
  if (counted == 0) {
    *result = 0.0f;
    return;
  }
  const double mean = sum / static_cast<double>(counted);
  *result = static_cast<float>(kSquare ? sqrt(mean) : mean);
}

template <bool kSquare, typename T>
void reduce_sequences(const T* x, const int32_t* lengths, int64_t batch, int64_t inner,
                      int64_t seq_len, int64_t width, double* partials, float* result,
                      cudaStream_t stream) {
  sequence_partial_kernel<kSquare>
      <<<static_cast<unsigned>(batch * inner), block_threads, 0, stream>>>(
          x, lengths, inner, seq_len, width, partials);
  sequence_finish_kernel<kSquare>
      <<<1, 32, 0, stream>>>(partials, lengths, batch, inner, seq_len, width, result);
}

}  // namespace

void unfold(const Unfold& call, cudaStream_t stream) {
  if (call.batch * call.out_len <= 0) return;
  unfold_kernel<<<grid_size(call.batch * call.out_len, 1, blocks_per_multiprocessor), block_threads,
                  0, stream>>>(call);
}

void add_sinusoids(const float* positions, bf16* x, int64_t rows, int64_t width,
                   cudaStream_t stream) {
  if (rows <= 0) return;
  sinusoids_kernel<<<grid_size(rows, 4, blocks_per_multiprocessor), block_threads, 0, stream>>>(
      positions, x, rows, static_cast<int>(width));
}

void sequence_root_mean_square(const bf16* x, const int32_t* lengths, int64_t batch, int64_t inner,
                               int64_t seq_len, int64_t width, double* partials, float* result,
                               cudaStream_t stream) {
  reduce_sequences<true>(x, lengths, batch, inner, seq_len, width, partials, result, stream);
}

void sequence_mean(const float* x, const int32_t* lengths, int64_t batch, int64_t inner,
                   int64_t seq_len, int64_t width, double* partials, float* result,
                   cudaStream_t stream) {
  reduce_sequences<false>(x, lengths, batch, inner, seq_len, width, partials, result, stream);
}

}  // namespace sigtrain::kernels
