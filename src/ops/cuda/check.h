// Turns CUDA's and cuBLASLt's status codes into exceptions.
#pragma once

#include <cublasLt.h>
#include <cuda_runtime.h>

#include "core/error.h"

namespace sigtrain {

[[noreturn]] inline void throw_cuda_error(cudaError_t status, const char* what) {
  throw Error("{}: {} ({})", what, cudaGetErrorString(status), cudaGetErrorName(status));
}

/// `what` is what was being done, for the message. An error may also come from work that was
/// started earlier, since kernels run behind the host: CUDA_LAUNCH_BLOCKING=1 in the environment
/// finds it.
inline void check_cuda(cudaError_t status, const char* what) {
  if (status != cudaSuccess) throw_cuda_error(status, what);
}

/// After a kernel's launcher.
inline void check_launch(const char* operation) { check_cuda(cudaGetLastError(), operation); }

inline void check_cublas(cublasStatus_t status, const char* what) {
  if (status != CUBLAS_STATUS_SUCCESS) throw Error("{}: {}", what, cublasLtGetStatusString(status));
}

}  // namespace sigtrain
