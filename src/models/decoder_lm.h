// Decoder language model: embedding, blocks, final norm, vocabulary projection (tied or not) with
// cross-entropy.
#pragma once

#include <optional>

#include "config/schema.h"
#include "models/block_stack.h"
#include "nn/context.h"

namespace sigtrain {

class DecoderLm {
 public:
  /// Registers every parameter, in forward order. config.vocab_size must be set.
  DecoderLm(ParameterTable& table, const ModelConfig& config);

  /// Position tables in the backend's memory, owned by the model; call once before any pass. A
  /// planning backend gets the shapes alone.
  void make_tables(Ops& ops);

  /// Forward and backward of one micro-batch: adds its loss to sums [loss_sum_slots] and its
  /// gradients to those of context.parameters. tokens and targets are i32 [batch * seq_len].
  void train(const Context& context, const Tensor& tokens, const Tensor& targets,
             const CrossEntropyDesc& loss, const Tensor& sums) const;
  /// Forward alone, block by block in the same memory.
  void evaluate(const Context& context, const Tensor& tokens, const Tensor& targets,
                const CrossEntropyDesc& loss, const Tensor& sums) const;
  /// Logits [1, vocab_size] that follow row `row` of the batch; for sampling.
  void next_token_logits(const Context& context, const Tensor& tokens, int64_t row,
                         const Tensor& logits) const;

  const ModelConfig& config() const { return config_; }

 private:
  /// Embedding and blocks. Returns the final norm's output.
  Tensor forward(const Context& context, const Tensor& tokens, BlockStack::Pass& pass) const;
  Tensor head_weight(const Context& context) const;

  ModelConfig config_;
  ParameterId embedding_ = kNoParameter, positions_ = kNoParameter, head_ = kNoParameter;
  std::optional<BlockStack> stack_;
  DeviceMemory sincos_memory_;
  Tensor sincos_;
};

}  // namespace sigtrain
