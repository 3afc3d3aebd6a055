#include "attention_checks.h"

#include <algorithm>
#include <limits>

#include "core/error.h"
#include "launch.h"

namespace sigtrain::kernels {

void check_heads(const char* name, const HeadsPointer& heads) {
  if (reinterpret_cast<uintptr_t>(heads.data) % 16 != 0 || heads.row_stride % 8 != 0)
    throw Error(
        "attention: {} must begin at a multiple of 16 bytes and have a row stride that is a "
        "multiple of 8 elements; it begins at {} and has a stride of {}",
        name, static_cast<const void*>(heads.data), heads.row_stride);
}

void check_counts(const AttentionShape& shape) {
  // Sequences and heads count the grid's z and y, and TicketDesk has 16 bits for each. No kernel's
  // tiles are shorter than 32 positions.
  constexpr int most = 65535;
  const int64_t tiles = ceil_div(shape.seq_len, 32) * std::min(shape.batch, most + 1) *
                        std::min(shape.heads, most + 1);
  if (shape.batch > most || shape.heads > most || tiles > std::numeric_limits<int>::max())
    throw Error(
        "attention: {} sequences of {} positions with {} heads are more than the GPU kernels "
        "count: "
        "at most {} sequences, as many heads, and 2^31 tiles of 32 positions of all heads; pass "
        "fewer sequences at a time",
        shape.batch, shape.seq_len, shape.heads, most);
}

void reject_head_dim(int head_dim) {
  throw Error("attention: head_dim is {}; there are GPU kernels for 32, 64, 96, 128 and 192",
              head_dim);
}

void reject_shared_memory(size_t bytes, const char* reason) {
  throw Error("attention: this GPU refuses a kernel {} bytes of shared memory: {}", bytes, reason);
}

void reject_clearing(size_t bytes, const char* reason) {
  throw Error("attention: {} bytes of the workspace could not be cleared: {}", bytes, reason);
}

}  // namespace sigtrain::kernels
