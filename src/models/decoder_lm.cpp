#include "models/decoder_lm.h"

#include <cmath>

#include "nn/positions.h"

namespace sigtrain {
namespace {

// Streams of random numbers above all blocks'.
constexpr uint64_t kEmbeddingDropoutStream = uint64_t{1} << 23;

}  // namespace

DecoderLm::DecoderLm(ParameterTable& table, const ModelConfig& config) : config_(config) {
  // Fan-out scaling: rows of unit expected norm, so that tied logits start at unit variance after
  // the final norm.
  const Initializer fan_out{0.0, 1.0 / std::sqrt(static_cast<double>(config.width))};
  table.begin_group("embedding");
  embedding_ = table.add("embedding.weight", {config.vocab_size, config.width},
                         ParameterKind::embedding, fan_out);
  if (config.position.kind == PositionKind::learned) {
    positions_ = table.add("positions.weight", {config.seq_len, config.width},
                           ParameterKind::embedding, fan_out);
  }
  stack_.emplace(table, config);
  if (!config.tied_embedding) {
    head_ = table.add("head.weight", {config.vocab_size, config.width},
                      ParameterKind::linear_weight, fan_out);
  }
}

void DecoderLm::make_tables(Ops& ops) {
  stack_->make_tables(ops);
  if (config_.position.kind != PositionKind::sincos) return;
  sincos_ =
      make_table(ops, {config_.seq_len, config_.width},
                 sincos_table(config_.seq_len, config_.width), ops.compute_dtype(), sincos_memory_);
}

Tensor DecoderLm::head_weight(const Context& context) const {
  return context.weight(config_.tied_embedding ? embedding_ : head_);
}

Tensor DecoderLm::forward(const Context& context, const Tensor& tokens,
                          BlockStack::Pass& pass) const {
  const Tensor x = context.activation(config_.width);
  const Tensor position_rows = positions_ != kNoParameter ? context.weight(positions_) : sincos_;
  const Tensor positions = position_rows ? position_rows.slice(0, context.seq_len) : Tensor{};
  context.ops.embedding_forward(tokens, context.weight(embedding_), positions, x);
  if (context.training && config_.dropout > 0.0)
    context.ops.dropout({context.seed, kEmbeddingDropoutStream}, config_.dropout, x, x);
  return stack_->forward(context, x, {}, pass);
}

void DecoderLm::train(const Context& context, const Tensor& tokens, const Tensor& targets,
                      const CrossEntropyDesc& loss, const Tensor& sums) const {
  ArenaScope scope(context.arena);
  BlockStack::Pass pass;
  const Tensor output = forward(context, tokens, pass);
  const ParameterId head = config_.tied_embedding ? embedding_ : head_;
  context.ops.vocab_cross_entropy(loss, output, head_weight(context), targets, sums,
                                  stack_->d_output(pass), context.gradient(head));
  const Tensor dx = stack_->backward(context, pass);
  if (config_.dropout > 0.0)
    context.ops.dropout({context.seed, kEmbeddingDropoutStream}, config_.dropout, dx, dx);
  Tensor d_positions;
  if (positions_ != kNoParameter)
    d_positions = context.gradient(positions_).slice(0, context.seq_len);
  context.ops.embedding_backward(tokens, dx, context.gradient(embedding_), d_positions);
}

void DecoderLm::evaluate(const Context& context, const Tensor& tokens, const Tensor& targets,
                         const CrossEntropyDesc& loss, const Tensor& sums) const {
  ArenaScope scope(context.arena);
  BlockStack::Pass pass;
  const Tensor output = forward(context, tokens, pass);
  context.ops.vocab_cross_entropy(loss, output, head_weight(context), targets, sums, {}, {});
}

void DecoderLm::next_token_logits(const Context& context, const Tensor& tokens, int64_t row,
                                  const Tensor& logits) const {
  ArenaScope scope(context.arena);
  BlockStack::Pass pass;
  const Tensor output = forward(context, tokens, pass);
  context.ops.linear_forward(output.slice(row, row + 1), head_weight(context), {}, Activation::none,
                             {}, logits);
}

}  // namespace sigtrain
