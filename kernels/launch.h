// What launchers need to know of the device and of pointers to choose a grid.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace sigtrain::kernels {

struct DeviceLimits {
  int multiprocessors = 1;
  int compute_capability = 0;             // 10 major + minor
  int shared_bytes_per_block = 48 << 10;  // with the opt-in attribute
};

/// Of the device that was current at the first call: a process uses one.
inline const DeviceLimits& device_limits() {
  static const DeviceLimits limits = [] {
    DeviceLimits found;
    int device = 0;
    if (cudaGetDevice(&device) == cudaSuccess) {
      cudaDeviceGetAttribute(&found.multiprocessors, cudaDevAttrMultiProcessorCount, device);
      int major = 0, minor = 0;
      cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
      cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
      found.compute_capability = 10 * major + minor;
      cudaDeviceGetAttribute(&found.shared_bytes_per_block, cudaDevAttrMaxSharedMemoryPerBlockOptin,
                             device);
    }
    return found;
  }();
  return limits;
}

__host__ __device__ constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
__host__ __device__ constexpr int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

/// Blocks for `items` units of work, `per_block` at a time, that a grid-stride loop shares out: no
/// more than fill the device `waves` times over.
inline int grid_size(int64_t items, int64_t per_block, int blocks_per_multiprocessor) {
  const int64_t most = int64_t{device_limits().multiprocessors} * blocks_per_multiprocessor;
  return static_cast<int>(std::clamp<int64_t>(ceil_div(items, per_block), 1, most));
}

/// Whether 16-byte accesses may be used on all of these (null pointers: yes).
template <typename... Pointers>
bool aligned16(const Pointers*... pointers) {
  return ((reinterpret_cast<uintptr_t>(pointers) % 16 == 0) && ...);
}

}  // namespace sigtrain::kernels
