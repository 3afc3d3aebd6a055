#include "launch.h"
#include "sequence.h"
#include "vector.cuh"

namespace sigtrain::kernels {
namespace {

constexpr int block_threads = 256;
constexpr int blocks_per_multiprocessor = 8;

/// Calls body(row, begin, end) for the parts of rows of `width` elements: of 8 with kAligned, of 1
/// without.
template <bool kAligned, typename Body>
__global__ void __launch_bounds__(block_threads)
    for_row_parts(int64_t rows, int64_t width, Body body) {
  constexpr int step = kAligned ? vector_size : 1;
  const int64_t parts = width / step, count = rows * parts;
  const int64_t stride = int64_t{gridDim.x} * block_threads;
  for (int64_t i = int64_t{blockIdx.x} * block_threads + threadIdx.x; i < count; i += stride) {
    const int64_t row = i / parts, begin = (i - row * parts) * step;
    body(row, begin, begin + step);
  }
}

template <typename Body>
void launch_row_parts(bool aligned, int64_t rows, int64_t width, cudaStream_t stream, Body body) {
  if (rows <= 0 || width <= 0) return;
  const int64_t parts = rows * (aligned ? width / vector_size : width);
  const int grid = grid_size(parts, block_threads, blocks_per_multiprocessor);
  if (aligned) {
    for_row_parts<true><<<grid, block_threads, 0, stream>>>(rows, width, body);
  } else {
    for_row_parts<false><<<grid, block_threads, 0, stream>>>(rows, width, body);
  }
}

template <typename... Pointers>
bool rows_aligned(int64_t width, const Pointers*... pointers) {
  return width % vector_size == 0 && aligned16(pointers...);
}

struct Forward {
  SequenceShape shape;
  const bf16 *prefix, *x, *positions;
  bf16* y;
  __device__ void operator()(int64_t n, int64_t begin, int64_t end) const {
    const int64_t b = n / shape.tokens, t = n - b * shape.tokens;
    const int64_t own = shape.tokens - shape.prefix_tokens;
    const bf16* row = t < shape.prefix_tokens
                          ? prefix + t * shape.width
                          : x + (b * own + t - shape.prefix_tokens) * shape.width;
    float v[8], position[8];
    load_part(row, begin, end, v);
    if (positions) {
      load_part(positions + t * shape.width, begin, end, position);
#pragma unroll
      for (int i = 0; i < 8; ++i) v[i] += position[i];
    }
    store_part(y + n * shape.width, begin, end, v);
  }
};

// A thread goes through all sequences at one place: the sums have one order, and neighbouring
// threads read neighbouring memory.
struct Backward {
  SequenceShape shape;
  const bf16* dy;
  bf16* dx;
  float *dprefix, *dpositions;
  __device__ void operator()(int64_t t, int64_t begin, int64_t end) const {
    const int64_t own = shape.tokens - shape.prefix_tokens;
    const bool in_prefix = t < shape.prefix_tokens;
    float sum[8] = {};
#pragma unroll 4
    for (int64_t b = 0; b < shape.batch; ++b) {
      float v[8];
      load_part(dy + (b * shape.tokens + t) * shape.width, begin, end, v);
      if (!in_prefix && dx)
        store_part(dx + (b * own + t - shape.prefix_tokens) * shape.width, begin, end, v);
#pragma unroll
      for (int i = 0; i < 8; ++i) sum[i] += v[i];
    }
    if (in_prefix) add_to(dprefix + t * shape.width, begin, end, sum);
    if (dpositions) add_to(dpositions + t * shape.width, begin, end, sum);
  }
  static __device__ void add_to(float* row, int64_t begin, int64_t end, const float (&sum)[8]) {
    float total[8];
    load_part(row, begin, end, total);
#pragma unroll
    for (int i = 0; i < 8; ++i) total[i] += sum[i];
    store_part(row, begin, end, total);
  }
};

struct PoolForward {
  int64_t tokens, pooled, width;
  const bf16* x;
  bf16* y;
  __device__ void operator()(int64_t b, int64_t begin, int64_t end) const {
    float sum[8] = {};
#pragma unroll 4
    for (int64_t t = 0; t < pooled; ++t) {
      float v[8];
      load_part(x + (b * tokens + t) * width, begin, end, v);
#pragma unroll
      for (int i = 0; i < 8; ++i) sum[i] += v[i];
    }
    const float share = 1.0f / static_cast<float>(pooled);
#pragma unroll
    for (int i = 0; i < 8; ++i) sum[i] *= share;
    store_part(y + b * width, begin, end, sum);
  }
};

struct PoolBackward {
  int64_t tokens, pooled, width;
  const bf16* dy;
  bf16* dx;
  __device__ void operator()(int64_t n, int64_t begin, int64_t end) const {
    const int64_t b = n / tokens, t = n - b * tokens;
    float v[8] = {};
    if (t < pooled) {
      load_part(dy + b * width, begin, end, v);
      const float share = 1.0f / static_cast<float>(pooled);
#pragma unroll
      for (int i = 0; i < 8; ++i) v[i] *= share;
    }
    store_part(dx + n * width, begin, end, v);
  }
};

}  // namespace

void sequence_forward(const SequenceShape& shape, const bf16* prefix, const bf16* x,
                      const bf16* positions, bf16* y, cudaStream_t stream) {
  launch_row_parts(rows_aligned(shape.width, prefix, x, positions, y), shape.batch * shape.tokens,
                   shape.width, stream, Forward{shape, prefix, x, positions, y});
}

void sequence_backward(const SequenceShape& shape, const bf16* dy, bf16* dx, float* dprefix,
                       float* dpositions, cudaStream_t stream) {
  launch_row_parts(rows_aligned(shape.width, dy, dx, dprefix, dpositions), shape.tokens,
                   shape.width, stream, Backward{shape, dy, dx, dprefix, dpositions});
}

void pool_forward(int64_t batch, int64_t tokens, int64_t pooled, int64_t width, const bf16* x,
                  bf16* y, cudaStream_t stream) {
  launch_row_parts(rows_aligned(width, x, y), batch, width, stream,
                   PoolForward{tokens, pooled, width, x, y});
}

void pool_backward(int64_t batch, int64_t tokens, int64_t pooled, int64_t width, const bf16* dy,
                   bf16* dx, cudaStream_t stream) {
  launch_row_parts(rows_aligned(width, dy, dx), batch * tokens, width, stream,
                   PoolBackward{tokens, pooled, width, dy, dx});
}

}  // namespace sigtrain::kernels
