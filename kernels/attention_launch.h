// The attention of the GPU at hand: the fastest kernels that take a shape.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

#include "attention.h"

namespace sigtrain::kernels {

/// Which kernels: those of a compute capability, or the fastest that the device and the shape
/// allow.
enum class AttentionImpl { automatic, sm80, sm90 };

/// What `automatic` means for a shape on the current device.
AttentionImpl choose_attention(const AttentionShape& shape);

/// Bytes of AttentionBackward::workspace, aligned to 256.
size_t attention_backward_workspace(const AttentionShape& shape,
                                    AttentionImpl impl = AttentionImpl::automatic);
/// Launch on `stream`, without waiting. Throw Error for head dimensions that no kernel takes, and
/// for pointers and strides that are not multiples of 16 bytes.
void attention_forward(const AttentionForward& call, cudaStream_t stream,
                       AttentionImpl impl = AttentionImpl::automatic);
void attention_backward(const AttentionBackward& call, cudaStream_t stream,
                        AttentionImpl impl = AttentionImpl::automatic);

}  // namespace sigtrain::kernels
