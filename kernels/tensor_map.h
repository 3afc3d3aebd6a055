// Descriptions of tensors in global memory for Hopper's copy engine.
#pragma once

#include <cuda.h>

#include "attention.h"

namespace sigtrain::kernels {

/// The heads [batch, seq_len, heads, head_dim] behind `data`, to be moved in boxes of `rows`
/// positions and 64 columns of one head, in the 128-byte swizzle. Rows outside of a sequence read
/// as zeros and are not written. Throws Error where the driver refuses it.
CUtensorMap heads_map(const HeadsPointer& data, const AttentionShape& shape, int heads, int rows);

}  // namespace sigtrain::kernels
