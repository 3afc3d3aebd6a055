// Sequences put together from a shared prefix, tokens and positions, and taken down to one row.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace sigtrain::kernels {

/// tokens = prefix_tokens + those of x. Null pointers are absent.
struct SequenceShape {
  int64_t batch, tokens, prefix_tokens, width;
};

/// y[b] = (prefix, x[b]) + positions
void sequence_forward(const SequenceShape& shape, const __nv_bfloat16* prefix,
                      const __nv_bfloat16* x, const __nv_bfloat16* positions, __nv_bfloat16* y,
                      cudaStream_t stream);
/// dprefix and dpositions are added to, over sequences in order.
void sequence_backward(const SequenceShape& shape, const __nv_bfloat16* dy, __nv_bfloat16* dx,
                       float* dprefix, float* dpositions, cudaStream_t stream);

/// y[b] = mean of the first `pooled` tokens of x[b]
void pool_forward(int64_t batch, int64_t tokens, int64_t pooled, int64_t width,
                  const __nv_bfloat16* x, __nv_bfloat16* y, cudaStream_t stream);
void pool_backward(int64_t batch, int64_t tokens, int64_t pooled, int64_t width,
                   const __nv_bfloat16* dy, __nv_bfloat16* dx, cudaStream_t stream);

}  // namespace sigtrain::kernels
