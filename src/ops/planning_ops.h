// A backend that computes nothing: it checks the shapes and dtypes of every call against ops.h,
// counts matrix-product FLOPs and finds the largest workspace. A run makes one planning pass before
// step 1; --dry-run prints it.
#pragma once

#include <string>

#include "ops/ops.h"

namespace sigtrain {

class PlanningOps final : public Ops {
 public:
  /// Plans for `backend`: its dtypes and its workspace sizes. The backend must outlive this.
  explicit PlanningOps(const Ops& backend);
  /// Plans for a device that is not here. Its workspaces, whose sizes go by the device, are not
  /// counted.
  PlanningOps(std::string name, DType compute_dtype, DType accumulate_dtype);

  /// Bytes of the largest scratch memory any call so far would need.
  size_t workspace_bytes() const { return workspace_bytes_; }
  /// Floating-point operations of the matrix products so far; attention is counted over visible
  /// keys.
  double flops() const { return flops_; }
  bool is_planning() const override { return true; }

  std::string_view name() const override;
  DType compute_dtype() const override;
  DType accumulate_dtype() const override;
  DeviceMemory allocate(size_t bytes) override;
  void upload(const Tensor& destination, const void* host) override;
  void download(void* host, const Tensor& source) override;
  void fill(const Tensor& x, double value) override;
  void copy(const Tensor& source, const Tensor& destination) override;
  void add(const Tensor& x, const Tensor& y) override;
  void synchronize() override;
  bool is_synchronous() const override;
  void set_random_step(uint64_t step) override;
  void next_random_step() override;
  void embedding_forward(const Tensor& tokens, const Tensor& weight, const Tensor& positions,
                         const Tensor& y) override;
  void embedding_backward(const Tensor& tokens, const Tensor& dy, const Tensor& dweight,
                          const Tensor& dpositions) override;
  void image_patches(int64_t patch_size, const Tensor& images, const Tensor& factors,
                     const Tensor& offsets, const Tensor& y) override;
  void sequence_forward(const Tensor& prefix, const Tensor& x, const Tensor& positions,
                        const Tensor& y) override;
  void sequence_backward(const Tensor& dy, const Tensor& dx, const Tensor& dprefix,
                         const Tensor& dpositions) override;
  void pool_forward(ImagePool pool, const Tensor& x, const Tensor& y) override;
  void pool_backward(ImagePool pool, const Tensor& dy, const Tensor& dx) override;
  void linear_forward(const Tensor& x, const Tensor& weight, const Tensor& bias,
                      Activation activation, const Tensor& pre_activation,
                      const Tensor& y) override;
  void linear_backward(const Tensor& x, const Tensor& weight, const Tensor& dy,
                       Activation activation, const Tensor& pre_activation, const Tensor& dx,
                       const Tensor& dweight, const Tensor& dbias,
                       const Tensor& dbias_before) override;
  void activation_forward(Activation activation, const Tensor& x, const Tensor& y) override;
  void swiglu_forward(const Tensor& x, const Tensor& y) override;
  void swiglu_backward(const Tensor& x, const Tensor& dy, const Tensor& dx) override;
  void glu_forward(const Tensor& x, const Tensor& y) override;
  void glu_backward(const Tensor& x, const Tensor& dy, const Tensor& dx) override;
  void unfold(const UnfoldDesc& desc, const Tensor& x, const Tensor& lengths,
              const Tensor& y) override;
  void add_sinusoids(const Tensor& positions, const Tensor& x) override;
  void residual_norm_forward(const NormDesc& desc, const Tensor& residual,
                             const ResidualBranch& branch, const Tensor& residual_out,
                             const Tensor& weight, const Tensor& bias, const Tensor& y,
                             const Tensor& mean, const Tensor& rstd) override;
  void residual_norm_backward(const NormDesc& desc, const Tensor& x, const Tensor& weight,
                              const Tensor& mean, const Tensor& rstd, const Tensor& dy,
                              bool accumulate, const Tensor& d_residual, const Tensor& dweight,
                              const Tensor& dbias, const ResidualBranch& branch,
                              const Tensor& d_delta, const Tensor& d_layer_scale) override;
  void qk_norm_rope_forward(const QkNormRopeDesc& desc, const Tensor& qkv, const Tensor& q_weight,
                            const Tensor& k_weight, const Tensor& rope, const Tensor& qk_out,
                            const Tensor& rstd) override;
  void qk_norm_rope_backward(const QkNormRopeDesc& desc, const Tensor& qkv, const Tensor& q_weight,
                             const Tensor& k_weight, const Tensor& rope, const Tensor& rstd,
                             const Tensor& d_qkv, const Tensor& dq_weight,
                             const Tensor& dk_weight) override;
  void attention_forward(const AttentionDesc& desc, const AttentionInputs& inputs,
                         const HeadsView& out, const Tensor& log_sum_exp,
                         const Tensor& row_sum) override;
  void attention_backward(const AttentionDesc& desc, const AttentionInputs& inputs,
                          const HeadsView& out, const Tensor& log_sum_exp, const HeadsView& d_out,
                          const HeadsView& dq, const HeadsView& dk, const HeadsView& dv,
                          const Tensor& d_head_bias) override;
  void vocab_cross_entropy(const CrossEntropyDesc& desc, const Tensor& x, const Tensor& weight,
                           const Tensor& targets, const Tensor& sums, const Tensor& dx,
                           const Tensor& dweight) override;
  void classification_loss(double gradient_scale, const Tensor& logits, const Tensor& labels,
                           const Tensor& targets, const Tensor& sums,
                           const Tensor& d_logits) override;
  void ctc_loss(const CtcDesc& desc, const Tensor& logits, const Tensor& frame_lengths,
                const Tensor& targets, const Tensor& target_lengths, const Tensor& losses,
                const Tensor& sums, const Tensor& d_logits) override;
  void dropout(const RandomStream& stream, double p, const Tensor& x, const Tensor& y) override;
  void stochastic_depth(const RandomStream& stream, double p, const Tensor& scale) override;
  void layer_drop(const RandomStream& stream, double p, const Tensor& scale) override;
  void root_mean_square(const Tensor& x, const Tensor& result) override;
  void mean(const Tensor& x, const Tensor& result) override;
  void sum_of_squares(const Tensor& x, const Tensor& result) override;
  void sequence_root_mean_square(const Tensor& x, const Tensor& lengths,
                                 const Tensor& result) override;
  void sequence_mean(const Tensor& x, const Tensor& lengths, const Tensor& result) override;
  void clip_factor(const Tensor& group_sums, double max_norm, const Tensor& control) override;
  void adamw(const AdamWDesc& desc, const Tensor& control, const Tensor& gradients,
             const Tensor& weights, const Tensor& first_moment, const Tensor& second_moment,
             const Tensor& compute_weights) override;
  void ema_update(double decay, const Tensor& control, const Tensor& weights,
                  const Tensor& average) override;

 private:
  void need_workspace(size_t bytes);
  /// What knows the sizes of workspaces: Ops itself says 0 of all.
  const Ops& workspaces() const { return backend_ ? *backend_ : *this; }
  /// Throws unless x has this dtype and shape; `what` names the call and the argument.
  void expect(const Tensor& x, DType dtype, const Shape& shape, std::string_view what) const;
  /// The same for an optional argument.
  void expect_if(const Tensor& x, DType dtype, const Shape& shape, std::string_view what) const;
  void expect_heads(const HeadsView& view, const AttentionDesc& desc, int64_t heads,
                    std::string_view what) const;
  void check_attention(const AttentionDesc& desc, const AttentionInputs& inputs) const;
  void check_sequence(const Tensor& prefix, const Tensor& x, const Tensor& positions,
                      const Tensor& y, DType parameters) const;
  void check_linear(const Tensor& x, const Tensor& weight, const Tensor& y) const;

  const Ops* backend_ = nullptr;
  std::string name_;
  DType compute_dtype_, accumulate_dtype_;
  bool is_synchronous_ = false;
  size_t workspace_bytes_ = 0;
  double flops_ = 0.0;
};

}  // namespace sigtrain
