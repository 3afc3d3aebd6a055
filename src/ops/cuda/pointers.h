// Device pointers of tensors; bfloat16 has no type in core/.
#pragma once

#include <cuda_bf16.h>

#include "core/tensor.h"

namespace sigtrain {

/// The elements of a bf16 tensor; null for an absent one. Throws Error for another dtype.
inline __nv_bfloat16* bf16_pointer(const Tensor& x) {
  if (!x) return nullptr;
  if (x.dtype != DType::bf16)
    throw Error("tensor of {} read as {}", name_of(x.dtype), name_of(DType::bf16));
  return static_cast<__nv_bfloat16*>(x.data);
}

}  // namespace sigtrain
