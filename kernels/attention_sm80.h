// Flash attention with the tensor-core instructions of compute capability 8.0, for every later GPU
// too.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

#include "attention.h"

namespace sigtrain::kernels {

/// Bytes of AttentionBackward::workspace, aligned to 256.
size_t attention_sm80_backward_workspace(const AttentionShape& shape);
/// Launches on `stream`, without waiting. Head dimensions 32, 64, 96, 128 and 192; throws Error for
/// another, or for pointers and strides that are not multiples of 16 bytes.
void attention_sm80_forward(const AttentionForward& call, cudaStream_t stream);
void attention_sm80_backward(const AttentionBackward& call, cudaStream_t stream);

}  // namespace sigtrain::kernels
