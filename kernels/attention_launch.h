// The attention of the GPU at hand: the fastest kernels that take a shape.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

#include "attention.h"

namespace sigtrain::kernels {

/// Which kernels: those of a compute capability, or the fastest that the device and the shape
/// allow.
enum class AttentionImpl { automatic, sm80, sm90 };

/// Whether the current device and the shape allow `sm90`.
bool attention_can_use_sm90(const AttentionShape& shape);
/// The kernels that run a pass where `impl` is asked for: never `automatic`.
AttentionImpl attention_forward_impl(const AttentionShape& shape, AttentionImpl impl);
AttentionImpl attention_backward_impl(const AttentionShape& shape, AttentionImpl impl);

/// Bytes of AttentionBackward::workspace, aligned to 256.
size_t attention_backward_workspace(const AttentionShape& shape,
                                    AttentionImpl impl = AttentionImpl::automatic);
/// Launch on `stream`, without waiting. Throw Error for head dimensions that no kernel takes, for
/// pointers and strides that are not multiples of 16 bytes, and for more than 65535 sequences or
/// heads.
void attention_forward(const AttentionForward& call, cudaStream_t stream,
                       AttentionImpl impl = AttentionImpl::automatic);
void attention_backward(const AttentionBackward& call, cudaStream_t stream,
                        AttentionImpl impl = AttentionImpl::automatic);

}  // namespace sigtrain::kernels
