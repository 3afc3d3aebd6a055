#include "nn/attention.h"

#include "config/derived.h"

namespace sigtrain {

Attention::Attention(ParameterTable& table, const std::string& name, const ModelConfig& config)
    : kind_(config.attention.kind),
      heads_(config.heads),
      kv_heads_(sigtrain::kv_heads(config)),
      head_dim_(sigtrain::head_dim(config)),
      window_(config.attention.window),
      scale_(attention_scale(config)),
      bias_(config.attention.learned_bias ? 0.0 : attention_bias(config)),
      eps_(config.norm.eps),
      causal_(config.attention.causal),
      has_rope_(config.position.kind == PositionKind::rope),
      qkv_(table, name + ".qkv", config.width, (heads_ + 2 * kv_heads_) * head_dim_,
           config.linear_bias),
      out_(table, name + ".out", heads_ * head_dim_, config.width, config.linear_bias) {
  if (config.attention.qk_norm) {
    q_norm_ =
        table.add(name + ".q_norm.weight", {head_dim_}, ParameterKind::norm_weight, {1.0, 0.0});
    k_norm_ =
        table.add(name + ".k_norm.weight", {head_dim_}, ParameterKind::norm_weight, {1.0, 0.0});
  }
  if (config.attention.learned_bias) {
    head_bias_ =
        table.add(name + ".bias", {heads_}, ParameterKind::bias, {attention_bias(config), 0.0});
  }
}

AttentionDesc Attention::describe(const Context& context) const {
  return {kind_,     context.batch, context.seq_len, heads_,  kv_heads_,
          head_dim_, scale_,        bias_,           causal_, window_};
}

QkNormRopeDesc Attention::describe_qk(const Context& context) const {
  return {context.batch, context.seq_len, heads_, kv_heads_, head_dim_, eps_};
}

Tensor Attention::rope(const Context& context, const SequenceInfo& sequence) {
  return sequence.rope ? sequence.rope.slice(0, context.seq_len) : Tensor{};
}

AttentionInputs Attention::inputs(const Context& context, const SequenceInfo& sequence,
                                  const Saved& saved) const {
  const int64_t packed = q_columns() + 2 * kv_columns();
  AttentionInputs in;
  if (saved.qk) {
    const int64_t stride = q_columns() + kv_columns();
    in.q = {saved.qk, 0, stride};
    in.k = {saved.qk, q_columns(), stride};
  } else {
    in.q = {saved.qkv, 0, packed};
    in.k = {saved.qkv, q_columns(), packed};
  }
  in.v = {saved.qkv, q_columns() + kv_columns(), packed};
  in.head_bias = context.weight(head_bias_);
  in.alibi_slopes = sequence.alibi_slopes;
  in.key_lengths = sequence.key_lengths;
  return in;
}

void Attention::forward(const Context& context, const SequenceInfo& sequence, int64_t layer,
                        const Tensor& x, const Tensor& y, Saved& saved) const {
  Ops& ops = context.ops;
  saved.x = x;
  saved.qkv = context.activation(q_columns() + 2 * kv_columns());
  qkv_.forward(context, x, Activation::none, {}, saved.qkv);
  if (q_norm_ != kNoParameter || has_rope_) {
    saved.qk = context.activation(q_columns() + kv_columns());
    if (q_norm_ != kNoParameter)
      saved.rstd = context.statistic({context.rows(), heads_ + kv_heads_});
    ops.qk_norm_rope_forward(describe_qk(context), saved.qkv, context.weight(q_norm_),
                             context.weight(k_norm_), rope(context, sequence), saved.qk,
                             saved.rstd);
  }
  saved.out = context.activation(q_columns());
  const Shape per_query{context.batch, heads_, context.seq_len};
  if (kind_ == AttentionKind::softmax) saved.log_sum_exp = context.statistic(per_query);
  {
    ArenaScope scope(context.arena);
    const Tensor row_sum = context.diagnostics ? context.statistic(per_query) : Tensor{};
    ops.attention_forward(describe(context), inputs(context, sequence, saved),
                          {saved.out, 0, q_columns()}, saved.log_sum_exp, row_sum);
    if (context.diagnostics) {
      context.diagnostics->take_mean(ops, Diagnostic::attention_row_sum, layer, row_sum,
                                     sequence.key_lengths);
      context.diagnostics->take_root_mean_square(ops, Diagnostic::attention_out_rms, layer,
                                                 saved.out, sequence.key_lengths);
    }
  }
  out_.forward(context, saved.out, Activation::none, {}, y);
}

void Attention::backward(const Context& context, const SequenceInfo& sequence, const Saved& saved,
                         const Tensor& dy, const Tensor& dx) const {
  ArenaScope scope(context.arena);
  const int64_t packed = q_columns() + 2 * kv_columns();
  const Tensor d_out = context.activation(q_columns(), Purpose::gradient);
  out_.backward(context, saved.out, dy, Activation::none, {}, d_out);
  const Tensor d_qkv = context.activation(packed, Purpose::gradient);
  context.ops.attention_backward(
      describe(context), inputs(context, sequence, saved), {saved.out, 0, q_columns()},
      saved.log_sum_exp, {d_out, 0, q_columns()}, {d_qkv, 0, packed}, {d_qkv, q_columns(), packed},
      {d_qkv, q_columns() + kv_columns(), packed}, context.gradient(head_bias_));
  if (saved.qk) {
    context.ops.qk_norm_rope_backward(describe_qk(context), saved.qkv, context.weight(q_norm_),
                                      context.weight(k_norm_), rope(context, sequence), saved.rstd,
                                      d_qkv, context.gradient(q_norm_), context.gradient(k_norm_));
  }
  qkv_.backward(context, saved.x, d_qkv, Activation::none, {}, dx);
}

}  // namespace sigtrain
