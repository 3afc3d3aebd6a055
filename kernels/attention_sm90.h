// FlashSigmoid: flash attention with Hopper's warpgroup products and copy engine (compute
// capability 9.0 alone), sigmoid and softmax.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

#include "attention.h"

namespace sigtrain::kernels {

/// Whether these kernels take a shape: head dimensions 64, 128 and 192. What device runs them is
/// the caller's business.
bool attention_sm90_supports(const AttentionShape& shape);
/// Bytes of AttentionBackward::workspace, aligned to 256.
size_t attention_sm90_backward_workspace(const AttentionShape& shape);
/// Launch on `stream`, without waiting. Throw Error for other head dimensions, and for pointers and
/// strides that are not multiples of 16 bytes.
void attention_sm90_forward(const AttentionForward& call, cudaStream_t stream);
void attention_sm90_backward(const AttentionBackward& call, cudaStream_t stream);

}  // namespace sigtrain::kernels
