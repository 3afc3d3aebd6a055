// Speech encoder for CTC: a convolution over time with a gated linear unit, positions, blocks, a
// head over letters.
#pragma once

#include <optional>

#include "config/schema.h"
#include "models/block_stack.h"
#include "nn/context.h"
#include "nn/linear.h"

namespace sigtrain {

/// The utterances of a micro-batch, each padded to feature_frames, which are context.seq_len of the
/// model's frames, and what is said in them.
struct SpokenBatch {
  Tensor features;         // f32 [batch, feature_frames, mel_bins]
  Tensor feature_lengths;  // i32 [batch]
  Tensor frame_lengths;    // i32 [batch]: feature_lengths / stride, rounded up
  Tensor positions;        // f32 [batch * seq_len], of the frames; read by sincos and cape
  Tensor targets;          // i32 [batch, most]
  Tensor target_lengths;   // i32 [batch]
  Tensor losses;           // [batch]: written
};

class SpeechEncoder {
 public:
  /// Registers every parameter, in forward order. config.vocab_size counts the blank, which is 0;
  /// config.seq_len is the most frames of an utterance.
  SpeechEncoder(ParameterTable& table, const ModelConfig& config);

  /// Tables in the backend's memory, owned by the model; call once before any pass. A planning
  /// backend gets the shapes alone.
  void make_tables(Ops& ops);

  /// Forward and backward of one micro-batch: adds to sums [ctc_sum_slots], and to the gradients of
  /// context.parameters those of the summed losses times gradient_scale.
  void train(const Context& context, const SpokenBatch& batch, double gradient_scale,
             const Tensor& sums) const;
  /// Forward alone, block by block in the same memory; adds to sums. logits [batch * seq_len,
  /// vocab] are the caller's.
  void evaluate(const Context& context, const SpokenBatch& batch, const Tensor& logits,
                const Tensor& sums) const;
  /// The logits alone: targets, losses and sums are not needed.
  void transcribe(const Context& context, const SpokenBatch& batch, const Tensor& logits) const;

  const ModelConfig& config() const { return config_; }

 private:
  struct Pass {
    Tensor windows;  // [N, kernel mel_bins]
    Tensor gated;    // [N, 2C], before the gate
    BlockStack::Pass stack;
    Tensor output;  // [N, C]
  };

  void forward(const Context& context, const SpokenBatch& batch, Pass& pass) const;
  CtcDesc loss(const Context& context, const SpokenBatch& batch, double gradient_scale) const;

  ModelConfig config_;
  std::optional<Linear> convolution_, head_;
  std::optional<BlockStack> stack_;
};

}  // namespace sigtrain
