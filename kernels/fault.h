// How a kernel reports an input it cannot use: the host looks when it next waits for the device.
#pragma once

#include <cstdint>

namespace sigtrain::kernels {

enum class FaultKind : int32_t { none, token_id, target, label, ctc_target };

/// In device memory. The first to find a fault writes it; the kernel goes on without that row.
struct Fault {
  int32_t kind;  // FaultKind
  int32_t value;
  int64_t row;
  int64_t vocab_size;
};

#if defined(__CUDACC__)
__device__ inline void report_fault(Fault* fault, FaultKind kind, int32_t value, int64_t row,
                                    int64_t vocab_size) {
  if (atomicCAS(&fault->kind, 0, static_cast<int32_t>(kind)) == 0) {
    fault->value = value;
    fault->row = row;
    fault->vocab_size = vocab_size;
  }
}
#endif

}  // namespace sigtrain::kernels
