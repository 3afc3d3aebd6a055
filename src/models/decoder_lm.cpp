#include "models/decoder_lm.h"

#include <cmath>

#include "config/derived.h"
#include "nn/positions.h"
#include "ops/host_values.h"

namespace sigtrain {
namespace {

// Streams of random numbers above all blocks'.
constexpr uint64_t kEmbeddingDropoutStream = uint64_t{1} << 23;

/// Gives the stream memory that outlives its block: that of `kept`.
void copy_stream(Ops& ops, const Stream& stream, Stream& kept) {
  ops.copy(stream.residual, kept.residual);
  if (stream.branch.delta) ops.copy(stream.branch.delta, kept.branch.delta);
  if (stream.branch.sample_scale) {
    ops.copy(stream.branch.sample_scale, kept.branch.sample_scale);
  } else {
    kept.branch.sample_scale = {};
  }
  kept.branch.layer_scale = stream.branch.layer_scale;
  kept.layer_scale = stream.layer_scale;
}

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
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    const std::string name = "layers." + std::to_string(layer);
    table.begin_group(name);
    blocks_.emplace_back(table, name, config, layer);
  }
  table.begin_group("head");
  // A post-norm stack ends in a norm already.
  if (config.norm.structure != NormStructure::post)
    final_norm_.emplace(table, "final_norm", config.norm, config.width);
  if (!config.tied_embedding) {
    head_ = table.add("head.weight", {config.vocab_size, config.width},
                      ParameterKind::linear_weight, fan_out);
  }
}

void DecoderLm::make_tables(Ops& ops) {
  const int64_t head_dim = sigtrain::head_dim(config_);
  struct Table {
    Tensor* tensor;
    Shape shape;
    std::vector<double> values;
  };
  std::vector<Table> tables;
  if (config_.position.kind == PositionKind::rope) {
    tables.push_back({&sequence_.rope,
                      {config_.seq_len, head_dim},
                      rope_table(config_.seq_len, head_dim, config_.position.rope_theta)});
  }
  if (config_.position.kind == PositionKind::alibi) {
    tables.push_back({&sequence_.alibi_slopes, {config_.heads}, alibi_slopes(config_.heads)});
  }
  if (config_.position.kind == PositionKind::sincos) {
    tables.push_back(
        {&sincos_, {config_.seq_len, config_.width}, sincos_table(config_.seq_len, config_.width)});
  }
  for (Table& table : tables) {  // at most one kind of position
    *table.tensor = {nullptr, ops.accumulate_dtype(), table.shape};
    if (ops.is_planning()) continue;
    DeviceMemory memory = ops.allocate(table.tensor->bytes());
    table.tensor->data = memory.get();
    set_host_values(ops, *table.tensor, table.values);
    if (table.tensor == &sincos_ && ops.compute_dtype() != ops.accumulate_dtype()) {
      const Tensor wide = sincos_;
      DeviceMemory narrow =
          ops.allocate(static_cast<size_t>(wide.numel()) * size_of(ops.compute_dtype()));
      sincos_ = {narrow.get(), ops.compute_dtype(), wide.shape};
      ops.copy(wide, sincos_);
      ops.synchronize();
      memory = narrow;
    }
    table_memory_ = memory;
  }
  if (sincos_) sincos_.dtype = ops.compute_dtype();
}

Tensor DecoderLm::head_weight(const Context& context) const {
  return context.weight(config_.tied_embedding ? embedding_ : head_);
}

std::vector<Stream> DecoderLm::allocate_inputs(const Context& context, const Stream& stream) const {
  std::vector<Stream> inputs{stream};
  while (inputs.size() <= blocks_.size()) {
    Stream input;
    input.residual = context.activation(config_.width);
    if (config_.norm.structure != NormStructure::post)
      input.branch.delta = context.activation(config_.width);
    if (config_.stochastic_depth > 0.0)
      input.branch.sample_scale = context.statistic({context.batch});
    inputs.push_back(input);
  }
  return inputs;
}

Tensor DecoderLm::forward(const Context& context, const Tensor& tokens, Pass& pass) const {
  pass.buffers.delta = context.activation(config_.width, Purpose::temporary);
  if (context.recompute == Recompute::norms_and_activations)
    pass.buffers.normed = context.activation(config_.width, Purpose::temporary);
  const Tensor output = context.activation(config_.width);
  Stream stream{context.activation(config_.width), {}, kNoParameter};
  const Tensor position_rows = positions_ != kNoParameter ? context.weight(positions_) : sincos_;
  const Tensor positions = position_rows ? position_rows.slice(0, context.seq_len) : Tensor{};
  context.ops.embedding_forward(tokens, context.weight(embedding_), positions, stream.residual);
  if (context.training && config_.dropout > 0.0) {
    context.ops.dropout({context.seed, kEmbeddingDropoutStream}, config_.dropout, stream.residual,
                        stream.residual);
  }
  const bool keeps_inputs = context.training && context.recompute == Recompute::block;
  if (keeps_inputs) pass.inputs = allocate_inputs(context, stream);
  pass.blocks.resize(blocks_.size());
  for (size_t i = 0; i < blocks_.size(); ++i) {
    pass.marks.push_back(context.arena.mark());
    blocks_[i].forward(context, sequence_, pass.buffers, stream, pass.blocks[i]);
    if (keeps_inputs) {
      copy_stream(context.ops, stream, pass.inputs[i + 1]);
      stream = pass.inputs[i + 1];
    }
    if (keeps_inputs || !context.training) context.arena.release(pass.marks.back());
  }
  if (!final_norm_) return stream.residual;
  final_norm_->forward(context, stream, output, pass.final_norm);
  return output;
}

void DecoderLm::backward_block(const Context& context, size_t layer, Pass& pass,
                               StreamGradient& gradient) const {
  if (context.recompute == Recompute::block) {
    Context again = context;
    again.diagnostics = nullptr;
    Stream stream = pass.inputs[layer];
    pass.marks[layer] = context.arena.mark();
    blocks_[layer].forward(again, sequence_, pass.buffers, stream, pass.blocks[layer]);
  }
  blocks_[layer].backward(context, sequence_, pass.blocks[layer], gradient);
  context.arena.release(pass.marks[layer]);
}

void DecoderLm::train(const Context& context, const Tensor& tokens, const Tensor& targets,
                      const CrossEntropyDesc& loss, const Tensor& sums) const {
  ArenaScope scope(context.arena);
  StreamGradient gradient;
  gradient.residual = context.activation(config_.width, Purpose::gradient);
  gradient.input = context.activation(config_.width, Purpose::gradient);
  if (config_.dropout > 0.0 || config_.stochastic_depth > 0.0 || config_.layer_scale > 0.0) {
    gradient.branch_buffer = context.activation(config_.width, Purpose::gradient);
  }
  Pass pass;
  const Tensor output = forward(context, tokens, pass);

  const Tensor d_output = final_norm_ ? gradient.input : gradient.residual;
  const ParameterId head = config_.tied_embedding ? embedding_ : head_;
  context.ops.vocab_cross_entropy(loss, output, head_weight(context), targets, sums, d_output,
                                  context.gradient(head));
  if (final_norm_) {
    final_norm_->backward(context, pass.final_norm, gradient.input, gradient);
  } else {
    gradient.has_residual = true;
  }
  for (size_t i = blocks_.size(); i-- > 0;) backward_block(context, i, pass, gradient);
  if (config_.dropout > 0.0) {
    context.ops.dropout({context.seed, kEmbeddingDropoutStream}, config_.dropout, gradient.residual,
                        gradient.residual);
  }
  Tensor d_positions;
  if (positions_ != kNoParameter)
    d_positions = context.gradient(positions_).slice(0, context.seq_len);
  context.ops.embedding_backward(tokens, gradient.residual, context.gradient(embedding_),
                                 d_positions);
}

void DecoderLm::evaluate(const Context& context, const Tensor& tokens, const Tensor& targets,
                         const CrossEntropyDesc& loss, const Tensor& sums) const {
  ArenaScope scope(context.arena);
  Pass pass;
  const Tensor output = forward(context, tokens, pass);
  context.ops.vocab_cross_entropy(loss, output, head_weight(context), targets, sums, {}, {});
}

void DecoderLm::next_token_logits(const Context& context, const Tensor& tokens, int64_t row,
                                  const Tensor& logits) const {
  ArenaScope scope(context.arena);
  Pass pass;
  const Tensor output = forward(context, tokens, pass);
  context.ops.linear_forward(output.slice(row, row + 1), head_weight(context), {}, Activation::none,
                             {}, logits);
}

}  // namespace sigtrain
