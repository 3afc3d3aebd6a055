// The backward pass of attention_sm90.h at head_dim 192.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

#include "attention.h"

namespace sigtrain::kernels {

size_t attention_sm90_backward_wide_workspace(const AttentionShape& shape);
/// Launches on `stream`, without waiting; `call` has been checked, and is not empty.
void attention_sm90_backward_wide(const AttentionBackward& call, cudaStream_t stream);

}  // namespace sigtrain::kernels
