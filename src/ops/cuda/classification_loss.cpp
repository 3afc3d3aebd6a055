// Cross-entropy of few classes, against one class or a distribution over them.
#include "kernels/classification_loss.h"

#include "ops/cuda/check.h"
#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/pointers.h"
#include "ops/cuda/scratch.h"

namespace sigtrain {

static_assert(class_sum_objective == 0 && class_sum_nll == 1 && class_sum_count == 2 &&
              class_sum_correct == 3 && class_sum_correct_of_5 == 4 && class_sum_slots == 5);

void CudaOps::classification_loss(double gradient_scale, const Tensor& logits, const Tensor& labels,
                                  const Tensor& targets, const Tensor& sums,
                                  const Tensor& d_logits) {
  Scratch scratch(workspace_, "classification_loss");
  kernels::ClassificationLoss call{};
  call.rows = logits.rows();
  call.classes = logits.columns();
  call.gradient_scale = static_cast<float>(gradient_scale);
  call.logits = bf16_pointer(logits);
  call.labels = labels.as<int32_t>();
  call.targets = targets.as<float>();
  call.d_logits = bf16_pointer(d_logits);
  call.results = scratch.take<kernels::ClassificationRow>(call.rows);
  call.fault = &state_->fault;
  kernels::classification_loss(call, sums.as<float>(), stream_);
  check_launch("classification_loss");
}

size_t CudaOps::classification_loss_workspace(int64_t rows) const {
  Scratch scratch;
  scratch.take<kernels::ClassificationRow>(rows);
  return scratch.bytes();
}

}  // namespace sigtrain
