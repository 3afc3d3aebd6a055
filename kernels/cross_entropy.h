// Cross-entropy over rows of logits, whose gradient replaces them.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "fault.h"

namespace sigtrain::kernels {

/// The objective of a row is (1 - s) nll + s (mean of -log p) + z_loss (log Z)^2.
struct CrossEntropySettings {
  int32_t ignore_index;
  double label_smoothing, z_loss, gradient_scale;
};

/// What a row adds to the sums; all zeros for a row that is ignored.
struct CrossEntropyRow {
  float objective, nll, count, correct;
};

struct CrossEntropy {
  CrossEntropySettings settings;
  int64_t rows, vocab_size;
  int64_t row_stride;        // elements, a multiple of 8
  __nv_bfloat16* logits;     // [rows, row_stride], on 16 bytes; with `gradient` overwritten by it
  bool gradient;             // of the objective, times gradient_scale
  const int32_t* targets;    // [rows]
  int64_t first_row;         // of the batch, for fault reports
  CrossEntropyRow* results;  // [rows]
  Fault* fault;
};

void cross_entropy(const CrossEntropy& call, cudaStream_t stream);
/// sums[objective, nll, count, correct] += sums over rows, in double and in a fixed order.
void add_cross_entropy_rows(const CrossEntropyRow* results, int64_t rows, float* sums,
                            cudaStream_t stream);

}  // namespace sigtrain::kernels
