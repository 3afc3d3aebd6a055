// What the attention launchers refuse. Apart from them because nvcc 13 does not compile fmt 9.
#pragma once

#include <cstddef>

#include "attention.h"

namespace sigtrain::kernels {

/// Throws Error unless every row of every head begins at a multiple of 16 bytes.
void check_heads(const char* name, const HeadsPointer& heads);
/// Throws Error for more sequences, heads or tiles than a launch can count.
void check_counts(const AttentionShape& shape);
[[noreturn]] void reject_head_dim(int head_dim);
/// `reason`: the CUDA error's text.
[[noreturn]] void reject_shared_memory(size_t bytes, const char* reason);
[[noreturn]] void reject_clearing(size_t bytes, const char* reason);

}  // namespace sigtrain::kernels
