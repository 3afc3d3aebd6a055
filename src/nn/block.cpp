#include "nn/block.h"

#include <utility>

namespace sigtrain {
namespace {

// Streams of random numbers: parameters use their index, which stays far below this.
constexpr uint64_t kFirstBlockStream = uint64_t{1} << 20;

std::string layer_name(const std::string& name, const char* part) { return name + "." + part; }

}  // namespace

Block::Half::Half(ParameterTable& table, const std::string& name, const ModelConfig& config,
                  int64_t index)
    : norm(table, name + "_norm", config.norm, config.width),
      dropout_stream(kFirstBlockStream + static_cast<uint64_t>(2 * index)),
      depth_stream(dropout_stream + 1) {
  if (config.norm.structure == NormStructure::hybrid)
    post_norm.emplace(table, name + "_post_norm", config.norm, config.width);
  if (config.layer_scale > 0.0) {
    layer_scale = table.add(name + "_scale.gamma", {config.width}, ParameterKind::layer_scale,
                            {config.layer_scale, 0.0});
  }
}

Block::Block(ParameterTable& table, const std::string& name, const ModelConfig& config,
             int64_t layer)
    : layer_(layer),
      width_(config.width),
      structure_(config.norm.structure),
      dropout_(config.dropout),
      // Rises linearly with depth (Huang et al. 2016): the first block always stays.
      drop_path_(config.layers > 1 ? config.stochastic_depth * static_cast<double>(layer) /
                                         static_cast<double>(config.layers - 1)
                                   : config.stochastic_depth),
      layer_drop_(config.layer_drop),
      attention_half_(table, layer_name(name, "attention"), config, 2 * layer),
      attention_(table, layer_name(name, "attention"), config),
      mlp_half_(table, layer_name(name, "mlp"), config, 2 * layer + 1),
      mlp_(table, layer_name(name, "mlp"), config) {}

void Block::forward(const Context& context, const SequenceInfo& sequence,
                    const BlockBuffers& buffers, Stream& stream, Saved& saved) const {
  forward_half(context, sequence, attention_half_, buffers, stream, saved.attention_half, true,
               [&](const Tensor& x, const Tensor& y) {
                 attention_.forward(context, sequence, layer_, x, y, saved.attention);
               });
  forward_half(context, sequence, mlp_half_, buffers, stream, saved.mlp_half, false,
               [&](const Tensor& x, const Tensor& y) { mlp_.forward(context, x, y, saved.mlp); });
}

void Block::backward(const Context& context, const SequenceInfo& sequence, const Saved& saved,
                     StreamGradient& gradient) const {
  // In a post-norm block the MLP reads what attention's norm wrote.
  if (structure_ == NormStructure::post)
    restore_normed(context, attention_half_, saved.attention_half);
  backward_half(
      context, mlp_half_, saved.mlp_half, gradient,
      [&](const Tensor& dy, const Tensor& dx) { mlp_.backward(context, saved.mlp, dy, dx); });
  backward_half(context, attention_half_, saved.attention_half, gradient,
                [&](const Tensor& dy, const Tensor& dx) {
                  attention_.backward(context, sequence, saved.attention, dy, dx);
                });
}

void Block::restore_normed(const Context& context, const Half& half, const HalfSaved& saved) const {
  if (context.recompute == Recompute::norms_and_activations)
    half.norm.recompute(context, saved.norm, saved.y);
}

template <typename F>
void Block::forward_half(const Context& context, const SequenceInfo& sequence, const Half& half,
                         const BlockBuffers& buffers, Stream& stream, HalfSaved& saved,
                         bool is_attention, F f) const {
  // The output of a post-norm block is the input of the next, which does not know its norm.
  const bool keeps_normed = context.recompute != Recompute::norms_and_activations ||
                            (structure_ == NormStructure::post && !is_attention);
  // The gradient of gamma is delta's product with another: only then must backward see delta again.
  const bool keeps_delta = context.training && half.layer_scale != kNoParameter;
  const Tensor delta = keeps_delta ? context.activation(width_) : buffers.delta;
  Tensor x = stream.residual;
  if (structure_ != NormStructure::post) {
    saved.y = keeps_normed ? context.activation(width_) : buffers.normed;
    half.norm.forward(context, stream, saved.y, saved.norm);
    x = saved.y;
  }
  if (half.post_norm) {
    saved.f_out = context.activation(width_);
    f(x, saved.f_out);
    half.post_norm->forward(context, saved.f_out, delta, saved.post_norm);
  } else {
    f(x, delta);
  }
  if (is_attention && context.diagnostics) {
    context.diagnostics->take_root_mean_square(context.ops, Diagnostic::attention_branch_rms,
                                               layer_, delta, sequence.key_lengths);
  }
  stream.branch = {delta, context.weight(half.layer_scale), {}};
  stream.layer_scale = half.layer_scale;
  if (context.training && dropout_ > 0.0)
    context.ops.dropout({context.seed, half.dropout_stream}, dropout_, delta, delta);
  if (context.training && drop_path_ > 0.0) {
    stream.branch.sample_scale = context.statistic({context.batch});
    context.ops.stochastic_depth({context.seed, half.depth_stream}, drop_path_,
                                 stream.branch.sample_scale);
  }
  if (context.training && layer_drop_ > 0.0) {
    stream.branch.sample_scale = context.statistic({context.batch});
    // Both halves draw the same number.
    context.ops.layer_drop({context.seed, attention_half_.depth_stream}, layer_drop_,
                           stream.branch.sample_scale);
  }
  if (structure_ == NormStructure::post) {
    saved.y = keeps_normed ? context.activation(width_) : buffers.normed;
    half.norm.forward(context, stream, saved.y, saved.norm);
    if (context.training) {
      stream.residual = saved.y;
    } else {
      context.ops.copy(saved.y, stream.residual);  // the stream outlives this block's memory
    }
  }
}

template <typename F>
void Block::backward_half(const Context& context, const Half& half, const HalfSaved& saved,
                          StreamGradient& gradient, F f_backward) const {
  if (structure_ == NormStructure::post) {
    std::swap(gradient.residual, gradient.input);
    gradient.has_residual = false;
    half.norm.backward(context, saved.norm, gradient.input, gradient);
  }
  Tensor d_delta = gradient.branch;
  if (dropout_ > 0.0) {
    context.ops.dropout({context.seed, half.dropout_stream}, dropout_, d_delta,
                        gradient.branch_buffer);
    d_delta = gradient.branch_buffer;
  }
  if (structure_ != NormStructure::post) restore_normed(context, half, saved);
  if (half.post_norm) {
    ArenaScope scope(context.arena);
    const Tensor d_f_out = context.activation(width_, Purpose::gradient);
    half.post_norm->backward(context, saved.post_norm, d_delta, d_f_out);
    f_backward(d_f_out, gradient.input);
  } else {
    f_backward(d_delta, gradient.input);
  }
  if (structure_ == NormStructure::post) {
    context.ops.add(gradient.input, gradient.residual);
  } else {
    half.norm.backward(context, saved.norm, gradient.input, gradient);
  }
}

}  // namespace sigtrain
