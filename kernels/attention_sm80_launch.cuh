// What both launchers share: the choice of a kernel.
#pragma once

#include <cuda_runtime.h>

#include <type_traits>

#include "attention_checks.h"
#include "attention_policy.cuh"

namespace sigtrain::kernels {

/// Calls body(head_dim, with_distance), both compile-time constants.
template <typename Body>
void choose_kernel(const AttentionForward& call, const Body& body) {
  const auto with_head_dim = [&](auto head_dim) {
    if (needs_distance(call))
      body(head_dim, std::true_type());
    else
      body(head_dim, std::false_type());
  };
  switch (call.shape.head_dim) {
    case 32:
      return with_head_dim(std::integral_constant<int, 32>());
    case 64:
      return with_head_dim(std::integral_constant<int, 64>());
    case 96:
      return with_head_dim(std::integral_constant<int, 96>());
    case 128:
      return with_head_dim(std::integral_constant<int, 128>());
    case 192:
      return with_head_dim(std::integral_constant<int, 192>());
    default:
      reject_head_dim(call.shape.head_dim);
  }
}

/// Kernels ask for more shared memory than the 48 KiB that every kernel may have, and for as many
/// blocks on a multiprocessor as its registers hold.
template <typename Kernel>
void allow_shared_memory(Kernel* kernel, int bytes) {
  cudaError_t status =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (status == cudaSuccess)
    status = cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                  cudaSharedmemCarveoutMaxShared);
  if (status != cudaSuccess) reject_shared_memory(bytes, cudaGetErrorString(status));
}

}  // namespace sigtrain::kernels
