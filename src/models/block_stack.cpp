#include "models/block_stack.h"

#include "config/derived.h"
#include "nn/positions.h"
#include "ops/host_values.h"

namespace sigtrain {
namespace {

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

BlockStack::BlockStack(ParameterTable& table, const ModelConfig& config) : config_(config) {
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    const std::string name = "layers." + std::to_string(layer);
    block_groups_.push_back(table.begin_group(name));
    blocks_.emplace_back(table, name, config, layer);
  }
  head_group_ = table.begin_group("head");
  if (config.norm.structure != NormStructure::post)
    final_norm_.emplace(table, "final_norm", config.norm, config.width);
}

void BlockStack::make_tables(Ops& ops) {
  const PositionConfig& position = config_.position;
  const int64_t head_dim = sigtrain::head_dim(config_);
  if (position.kind == PositionKind::rope) {
    tables_.rope = make_table(ops, {config_.seq_len, head_dim},
                              rope_table(config_.seq_len, head_dim, position.rope_theta),
                              ops.accumulate_dtype(), table_memory_);
  }
  if (position.kind == PositionKind::alibi) {
    tables_.alibi_slopes = make_table(ops, {config_.heads}, alibi_slopes(config_.heads),
                                      ops.accumulate_dtype(), table_memory_);
  }
}

std::vector<Stream> BlockStack::allocate_inputs(const Context& context,
                                                const Stream& stream) const {
  std::vector<Stream> inputs{stream};
  while (inputs.size() <= blocks_.size()) {
    Stream input;
    input.residual = context.activation(config_.width);
    if (config_.norm.structure != NormStructure::post)
      input.branch.delta = context.activation(config_.width);
    if (config_.stochastic_depth > 0.0 || config_.layer_drop > 0.0)
      input.branch.sample_scale = context.statistic({context.batch});
    inputs.push_back(input);
  }
  return inputs;
}

Tensor BlockStack::forward(const Context& context, const Tensor& x, const Tensor& key_lengths,
                           Pass& pass) const {
  pass.sequence = tables_;
  pass.sequence.key_lengths = key_lengths;
  if (context.training) {
    StreamGradient& gradient = pass.gradient;
    gradient.residual = context.activation(config_.width, Purpose::gradient);
    gradient.input = context.activation(config_.width, Purpose::gradient);
    if (config_.dropout > 0.0 || config_.stochastic_depth > 0.0 || config_.layer_drop > 0.0 ||
        config_.layer_scale > 0.0)
      gradient.branch_buffer = context.activation(config_.width, Purpose::gradient);
  }
  pass.buffers.delta = context.activation(config_.width, Purpose::temporary);
  if (context.recompute == Recompute::norms_and_activations)
    pass.buffers.normed = context.activation(config_.width, Purpose::temporary);
  const Tensor output = final_norm_ ? context.activation(config_.width) : Tensor{};
  Stream stream{x, {}, kNoParameter};
  const bool keeps_inputs = context.training && context.recompute == Recompute::block;
  if (keeps_inputs) pass.inputs = allocate_inputs(context, stream);
  pass.blocks.resize(blocks_.size());
  for (size_t i = 0; i < blocks_.size(); ++i) {
    pass.marks.push_back(context.arena.mark());
    blocks_[i].forward(context, pass.sequence, pass.buffers, stream, pass.blocks[i]);
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

Tensor BlockStack::d_output(const Pass& pass) const {
  return final_norm_ ? pass.gradient.input : pass.gradient.residual;
}

void BlockStack::backward_block(const Context& context, size_t layer, Pass& pass) const {
  if (context.recompute == Recompute::block) {
    Context again = context;
    again.diagnostics = nullptr;
    Stream stream = pass.inputs[layer];
    pass.marks[layer] = context.arena.mark();
    blocks_[layer].forward(again, pass.sequence, pass.buffers, stream, pass.blocks[layer]);
  }
  blocks_[layer].backward(context, pass.sequence, pass.blocks[layer], pass.gradient);
  context.arena.release(pass.marks[layer]);
}

Tensor BlockStack::backward(const Context& context, Pass& pass) const {
  StreamGradient& gradient = pass.gradient;
  if (final_norm_) {
    final_norm_->backward(context, pass.final_norm, gradient.input, gradient);
  } else {
    gradient.has_residual = true;
  }
  context.gradients_complete(head_group_);
  for (size_t i = blocks_.size(); i-- > 0;) {
    backward_block(context, i, pass);
    context.gradients_complete(block_groups_[i]);
  }
  return gradient.residual;
}

Tensor make_table(Ops& ops, Shape shape, const std::vector<double>& values, DType dtype,
                  DeviceMemory& memory) {
  Tensor table{nullptr, dtype, shape};
  if (ops.is_planning()) return table;
  memory = ops.allocate(table.bytes());
  table.data = memory.get();
  if (dtype == ops.accumulate_dtype()) {
    set_host_values(ops, table, values);
    return table;
  }
  Tensor wide{nullptr, ops.accumulate_dtype(), shape};
  const DeviceMemory wide_memory = ops.allocate(wide.bytes());
  wide.data = wide_memory.get();
  set_host_values(ops, wide, values);
  ops.copy(wide, table);
  ops.synchronize();
  return table;
}

}  // namespace sigtrain
