// Cross-entropy of few classes, against one class or a distribution over them.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "fault.h"

namespace sigtrain::kernels {

/// What a row adds to the sums; all zeros for a row without a label.
struct ClassificationRow {
  float objective, nll, count, correct, correct_of_5;
};

struct ClassificationLoss {
  int64_t rows, classes;
  float gradient_scale;
  const __nv_bfloat16* logits;  // [rows, classes]
  const int32_t* labels;        // [rows]; negative: none
  const float* targets;         // [rows, classes] or null: the label is all
  __nv_bfloat16* d_logits;      // [rows, classes] or null
  ClassificationRow* results;   // [rows]
  Fault* fault;
};

/// Adds to sums [5], in double and in a fixed order.
void classification_loss(const ClassificationLoss& call, float* sums, cudaStream_t stream);

}  // namespace sigtrain::kernels
