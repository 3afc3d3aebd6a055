// Connectionist temporal classification over bfloat16 logits, in log space and float.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "fault.h"

namespace sigtrain::kernels {

/// The largest logit of a frame, and log of the sum of exp counted from it.
struct CtcFrame {
  float maximum, log_z;
};

/// What a sequence adds to the sums: targets is -1 where it has too few frames for its targets.
struct CtcSequence {
  double nll;
  float log_paths;  // of all its paths, counted from the frames' maxima
  int32_t targets;
};

struct Ctc {
  int64_t batch, seq_len, vocab_size, max_targets;
  int32_t blank;
  float gradient_scale;
  const __nv_bfloat16* logits;    // [batch, seq_len, vocab_size]
  const int32_t* frame_lengths;   // [batch]
  const int32_t* targets;         // [batch, max_targets]
  const int32_t* target_lengths;  // [batch]
  float* losses;                  // [batch]
  float* sums;                    // [nll, sequences, targets, infeasible] +=
  __nv_bfloat16* d_logits;        // as logits, or null
  CtcFrame* frames;               // scratch [batch, seq_len]
  float *alpha, *beta;            // scratch [batch, seq_len, 2 max_targets + 1]; beta for d_logits
  CtcSequence* sequences;         // scratch [batch]
  Fault* fault;
};

/// Targets beyond this many a sequence do not fit in a block's shared memory.
int64_t ctc_most_targets();
void ctc_loss(const Ctc& call, cudaStream_t stream);

}  // namespace sigtrain::kernels
