// Windows of frames, sinusoids at real positions, and sums that leave padding out.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace sigtrain::kernels {

struct Unfold {
  int64_t batch, in_len, out_len, channels, kernel, stride, padding;
  const float* x;          // [batch, in_len, channels]
  const int32_t* lengths;  // [batch]
  __nv_bfloat16* y;        // [batch * out_len, kernel * channels]
};

/// Frames before the first and from lengths[b] on read as 0.
void unfold(const Unfold& call, cudaStream_t stream);

/// x[n] += (sin, cos)(positions[n] 10000^(-2i / width)), i < width / 2 each.
void add_sinusoids(const float* positions, __nv_bfloat16* x, int64_t rows, int64_t width,
                   cudaStream_t stream);

/// Of x [batch, inner, seq_len, width] over the first lengths[b] rows of each sequence: the root of
/// the mean square, or the mean; 0 where nothing counts. `partials` has batch * inner doubles.
void sequence_root_mean_square(const __nv_bfloat16* x, const int32_t* lengths, int64_t batch,
                               int64_t inner, int64_t seq_len, int64_t width, double* partials,
                               float* result, cudaStream_t stream);
void sequence_mean(const float* x, const int32_t* lengths, int64_t batch, int64_t inner,
                   int64_t seq_len, int64_t width, double* partials, float* result,
                   cudaStream_t stream);

}  // namespace sigtrain::kernels
