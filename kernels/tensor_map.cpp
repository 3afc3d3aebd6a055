#include "tensor_map.h"

#include <cuda_runtime.h>

#include "core/error.h"

namespace sigtrain::kernels {
namespace {

using Encode = decltype(&cuTensorMapEncodeTiled);

/// A function of the driver, found at run time: programs need not be linked against libcuda, which
/// machines without a GPU lack.
Encode find_encode() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found{};
#if CUDART_VERSION >= 12050
  const cudaError_t status = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function,
                                                              12000, cudaEnableDefault, &found);
#else
  const cudaError_t status =
      cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &function, cudaEnableDefault, &found);
#endif
  if (status != cudaSuccess || found != cudaDriverEntryPointSuccess || !function)
    throw Error(
        "attention: the CUDA driver lacks cuTensorMapEncodeTiled: it is older than CUDA 12");
  return reinterpret_cast<Encode>(function);
}

}  // namespace

CUtensorMap heads_map(const HeadsPointer& data, const AttentionShape& shape, int heads, int rows) {
  static const Encode encode = find_encode();
  const auto row_bytes = static_cast<cuuint64_t>(data.row_stride) * sizeof(__nv_bfloat16);
  const cuuint64_t sizes[] = {
      static_cast<cuuint64_t>(shape.head_dim), static_cast<cuuint64_t>(heads),
      static_cast<cuuint64_t>(shape.seq_len), static_cast<cuuint64_t>(shape.batch)};
  const cuuint64_t strides[] = {shape.head_dim * sizeof(__nv_bfloat16), row_bytes,
                                row_bytes * shape.seq_len};
  const cuuint32_t box[] = {64, 1, static_cast<cuuint32_t>(rows), 1};
  const cuuint32_t steps[] = {1, 1, 1, 1};
  CUtensorMap map;
  const CUresult status =
      encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 4, data.data, sizes, strides, box, steps,
             CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (status != CUDA_SUCCESS)
    throw Error(
        "attention: the CUDA driver refuses to describe heads of batch {}, seq_len {}, {} heads, "
        "head_dim {} and row stride {} (error {})",
        shape.batch, shape.seq_len, heads, shape.head_dim, data.row_stride,
        static_cast<int>(status));
  return map;
}

}  // namespace sigtrain::kernels
