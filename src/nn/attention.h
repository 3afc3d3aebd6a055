// Multi-head self-attention of either kind: packed q, k, v projection, optional QK-norm and RoPE,
// attention, projection.
#pragma once

#include <string>

#include "nn/linear.h"

namespace sigtrain {

/// What the attention of every layer shares and that is not learned: position tables and this
/// batch's lengths.
struct SequenceInfo {
  Tensor rope;          // [seq_len, head_dim] (cos, sin), present for RoPE
  Tensor alibi_slopes;  // [heads], present for ALiBi
  Tensor key_lengths;   // optional i32 [batch]: positions from there on are padding
};

class Attention {
 public:
  struct Saved {
    Tensor x, qkv, qk, rstd, out, log_sum_exp;
  };

  /// Registers NAME.qkv, NAME.out and, where configured, NAME.q_norm.weight, NAME.k_norm.weight
  /// [head_dim] and NAME.bias [heads] (the learned bias b).
  Attention(ParameterTable& table, const std::string& name, const ModelConfig& config);

  /// x [N, C] -> y [N, C] (the caller's).
  void forward(const Context& context, const SequenceInfo& sequence, int64_t layer, const Tensor& x,
               const Tensor& y, Saved& saved) const;
  /// dx [N, C] = gradient of x, given dy, which may not be dx.
  void backward(const Context& context, const SequenceInfo& sequence, const Saved& saved,
                const Tensor& dy, const Tensor& dx) const;

 private:
  AttentionDesc describe(const Context& context) const;
  AttentionInputs inputs(const Context& context, const SequenceInfo& sequence,
                         const Saved& saved) const;
  /// The table's rows for this batch's seq_len, which may be shorter than the model's.
  static Tensor rope(const Context& context, const SequenceInfo& sequence);
  QkNormRopeDesc describe_qk(const Context& context) const;
  int64_t q_columns() const { return heads_ * head_dim_; }
  int64_t kv_columns() const { return kv_heads_ * head_dim_; }

  AttentionKind kind_;
  int64_t heads_, kv_heads_, head_dim_, window_;
  double scale_, bias_, eps_;
  bool causal_, has_rope_;
  Linear qkv_, out_;
  ParameterId q_norm_ = kNoParameter, k_norm_ = kNoParameter, head_bias_ = kNoParameter;
};

}  // namespace sigtrain
