// Token and position embedding; the backward pass without atomic additions.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "fault.h"

namespace sigtrain::kernels {

/// y[n] = weight[tokens[n]] + positions[n % seq_len]; a token outside the vocabulary gives zeros
/// and a fault.
struct EmbeddingForward {
  int64_t rows, width, vocab_size, seq_len;
  const int32_t* tokens;           // [rows]
  const __nv_bfloat16* weight;     // [vocab_size, width]
  const __nv_bfloat16* positions;  // optional [seq_len, width]
  __nv_bfloat16* y;                // [rows, width]
  Fault* fault;
};

/// dweight[tokens[n]] += dy[n], dpositions[n % seq_len] += dy[n].
struct EmbeddingBackward {
  int64_t rows, width, vocab_size, seq_len;
  const int32_t* tokens;
  const __nv_bfloat16* dy;
  float* dweight;     // [vocab_size, width], added to
  float* dpositions;  // optional [seq_len, width], added to
  Fault* fault;
  // Scratch: `rows` keys and places (twice: before and behind the sort), and
  // embedding_backward_partials(rows, width) floats.
  uint32_t* keys[2];
  int32_t* order[2];
  float* partials;
};

void embedding_forward(const EmbeddingForward& call, cudaStream_t stream);
void embedding_backward(const EmbeddingBackward& call, cudaStream_t stream);
int64_t embedding_backward_partials(int64_t rows, int64_t width);

}  // namespace sigtrain::kernels
