#include "attention_checks.h"

#include "core/error.h"

namespace sigtrain::kernels {

void check_heads(const char* name, const HeadsPointer& heads) {
  if (reinterpret_cast<uintptr_t>(heads.data) % 16 != 0 || heads.row_stride % 8 != 0)
    throw Error(
        "attention: {} must begin at a multiple of 16 bytes and have a row stride that is a "
        "multiple of 8 elements; it begins at {} and has a stride of {}",
        name, static_cast<const void*>(heads.data), heads.row_stride);
}

void reject_head_dim(int head_dim) {
  throw Error("attention: head_dim is {}; there are GPU kernels for 32, 64, 96, 128 and 192",
              head_dim);
}

void reject_shared_memory(size_t bytes, const char* reason) {
  throw Error("attention: this GPU refuses a kernel {} bytes of shared memory: {}", bytes, reason);
}

}  // namespace sigtrain::kernels
