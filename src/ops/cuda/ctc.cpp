// Connectionist temporal classification.
#include "kernels/ctc.h"

#include "ops/cuda/check.h"
#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/pointers.h"
#include "ops/cuda/scratch.h"

namespace sigtrain {
namespace {

static_assert(ctc_sum_nll == 0 && ctc_sum_sequences == 1 && ctc_sum_targets == 2 &&
              ctc_sum_infeasible == 3 && ctc_sum_slots == 4);

void take_scratch(Scratch& scratch, const CtcDesc& desc, kernels::Ctc& call) {
  const int64_t frames = desc.batch * desc.seq_len, states = 2 * desc.max_targets + 1;
  call.frames = scratch.take<kernels::CtcFrame>(frames);
  call.alpha = scratch.take<float>(frames * states);
  call.beta = scratch.take<float>(frames * states);
  call.sequences = scratch.take<kernels::CtcSequence>(desc.batch);
}

}  // namespace

void CudaOps::ctc_loss(const CtcDesc& desc, const Tensor& logits, const Tensor& frame_lengths,
                       const Tensor& targets, const Tensor& target_lengths, const Tensor& losses,
                       const Tensor& sums, const Tensor& d_logits) {
  Scratch scratch(workspace_, "ctc_loss");
  kernels::Ctc call{};
  call.batch = desc.batch, call.seq_len = desc.seq_len;
  call.vocab_size = desc.vocab_size, call.max_targets = desc.max_targets;
  call.blank = desc.blank;
  call.gradient_scale = static_cast<float>(desc.gradient_scale);
  call.logits = bf16_pointer(logits);
  call.frame_lengths = frame_lengths.as<int32_t>();
  call.targets = targets.as<int32_t>();
  call.target_lengths = target_lengths.as<int32_t>();
  call.losses = losses.as<float>();
  call.sums = sums.as<float>();
  call.d_logits = bf16_pointer(d_logits);
  call.fault = &state_->fault;
  take_scratch(scratch, desc, call);
  kernels::ctc_loss(call, stream_);
  check_launch("ctc_loss");
}

/// Planning asks for it before step 1, and so learns of the limit then.
size_t CudaOps::ctc_loss_workspace(const CtcDesc& desc) const {
  if (desc.max_targets > kernels::ctc_most_targets()) {
    throw Error(
        "ctc: {} letters an utterance are more than the {} that fit on this GPU: leave the longest "
        "utterances out by a smaller last of data.speech.bucket_seconds",
        desc.max_targets, kernels::ctc_most_targets());
  }
  Scratch scratch;
  kernels::Ctc call{};
  take_scratch(scratch, desc, call);
  return scratch.bytes();
}

}  // namespace sigtrain
