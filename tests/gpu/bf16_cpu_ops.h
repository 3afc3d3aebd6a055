// The CPU in float with every activation, and gradient of one, rounded to bfloat16 where the GPU
// stores it: what the format alone costs a model, apart from how the GPU's kernels compute.
#pragma once

#include <cuda_bf16.h>

#include "ops/cpu/cpu_ops.h"

namespace sigtrain {

inline float rounded_to_bf16(float x) { return __bfloat162float(__float2bfloat16(x)); }

/// Of the operations that store activations, those that a decoder with RMSNorm and SwiGLU uses.
class Bf16CpuOps final : public CpuOps<float> {
 public:
  void embedding_forward(const Tensor& tokens, const Tensor& weight, const Tensor& positions,
                         const Tensor& y) override {
    CpuOps::embedding_forward(tokens, weight, positions, y);
    round(y);
  }
  void linear_forward(const Tensor& x, const Tensor& weight, const Tensor& bias,
                      Activation activation, const Tensor& pre_activation,
                      const Tensor& y) override {
    CpuOps::linear_forward(x, weight, bias, activation, pre_activation, y);
    round(pre_activation);
    round(y);
  }
  void linear_backward(const Tensor& x, const Tensor& weight, const Tensor& dy,
                       Activation activation, const Tensor& pre_activation, const Tensor& dx,
                       const Tensor& dweight, const Tensor& dbias,
                       const Tensor& dbias_before) override {
    CpuOps::linear_backward(x, weight, dy, activation, pre_activation, dx, dweight, dbias,
                            dbias_before);
    round(dx);
  }
  void swiglu_forward(const Tensor& x, const Tensor& y) override {
    CpuOps::swiglu_forward(x, y);
    round(y);
  }
  void swiglu_backward(const Tensor& x, const Tensor& dy, const Tensor& dx) override {
    CpuOps::swiglu_backward(x, dy, dx);
    round(dx);
  }
  void residual_norm_forward(const NormDesc& desc, const Tensor& residual,
                             const ResidualBranch& branch, const Tensor& residual_out,
                             const Tensor& weight, const Tensor& bias, const Tensor& y,
                             const Tensor& mean, const Tensor& rstd) override {
    CpuOps::residual_norm_forward(desc, residual, branch, residual_out, weight, bias, y, mean,
                                  rstd);
    round(residual_out);
    round(y);
  }
  void residual_norm_backward(const NormDesc& desc, const Tensor& x, const Tensor& weight,
                              const Tensor& mean, const Tensor& rstd, const Tensor& dy,
                              bool accumulate, const Tensor& d_residual, const Tensor& dweight,
                              const Tensor& dbias, const ResidualBranch& branch,
                              const Tensor& d_delta, const Tensor& d_layer_scale) override {
    CpuOps::residual_norm_backward(desc, x, weight, mean, rstd, dy, accumulate, d_residual, dweight,
                                   dbias, branch, d_delta, d_layer_scale);
    round(d_residual);
    round(d_delta);
  }
  void qk_norm_rope_forward(const QkNormRopeDesc& desc, const Tensor& qkv, const Tensor& q_weight,
                            const Tensor& k_weight, const Tensor& rope, const Tensor& qk_out,
                            const Tensor& rstd) override {
    CpuOps::qk_norm_rope_forward(desc, qkv, q_weight, k_weight, rope, qk_out, rstd);
    round(qk_out);
  }
  void qk_norm_rope_backward(const QkNormRopeDesc& desc, const Tensor& qkv, const Tensor& q_weight,
                             const Tensor& k_weight, const Tensor& rope, const Tensor& rstd,
                             const Tensor& d_qkv, const Tensor& dq_weight,
                             const Tensor& dk_weight) override {
    CpuOps::qk_norm_rope_backward(desc, qkv, q_weight, k_weight, rope, rstd, d_qkv, dq_weight,
                                  dk_weight);
    round(d_qkv);
  }
  void attention_forward(const AttentionDesc& desc, const AttentionInputs& inputs,
                         const HeadsView& out, const Tensor& log_sum_exp,
                         const Tensor& row_sum) override {
    CpuOps::attention_forward(desc, inputs, out, log_sum_exp, row_sum);
    round(desc, desc.heads, out);
  }
  void attention_backward(const AttentionDesc& desc, const AttentionInputs& inputs,
                          const HeadsView& out, const Tensor& log_sum_exp, const HeadsView& d_out,
                          const HeadsView& dq, const HeadsView& dk, const HeadsView& dv,
                          const Tensor& d_head_bias) override {
    CpuOps::attention_backward(desc, inputs, out, log_sum_exp, d_out, dq, dk, dv, d_head_bias);
    round(desc, desc.heads, dq);
    round(desc, desc.kv_heads, dk);
    round(desc, desc.kv_heads, dv);
  }
  void vocab_cross_entropy(const CrossEntropyDesc& desc, const Tensor& x, const Tensor& weight,
                           const Tensor& targets, const Tensor& sums, const Tensor& dx,
                           const Tensor& dweight) override {
    CpuOps::vocab_cross_entropy(desc, x, weight, targets, sums, dx, dweight);
    round(dx);
  }

 private:
  static void round(float* x, int64_t count) {
    for (int64_t i = 0; i < count; ++i) x[i] = rounded_to_bf16(x[i]);
  }
  static void round(const Tensor& x) {
    if (x) round(x.as<float>(), x.numel());
  }
  static void round(const AttentionDesc& desc, int64_t heads, const HeadsView& x) {
    for (int64_t row = 0; row < desc.batch * desc.seq_len; ++row)
      round(x.storage.as<float>() + x.offset + row * x.row_stride, heads * desc.head_dim);
  }
};

}  // namespace sigtrain
