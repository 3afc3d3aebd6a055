// The CPU backend: the plain formula of every operation, in float to train and in double as the
// reference. One .cpp in this folder implements each group of operations of ops.h.
//
// Results do not depend on the number of threads: work is cut into pieces by shape alone, each
// piece is computed by one thread, and partial sums are added in a fixed order.
#pragma once

#include "ops/ops.h"

namespace sigtrain {

template <typename Real>
class CpuOps : public Ops {
 public:
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
  size_t embedding_backward_workspace(int64_t rows, int64_t vocab_size,
                                      int64_t width) const override;
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
  size_t linear_backward_workspace(int64_t rows, int64_t in, int64_t out) const override;
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
  size_t residual_norm_backward_workspace(int64_t rows, int64_t width) const override;
  void qk_norm_rope_forward(const QkNormRopeDesc& desc, const Tensor& qkv, const Tensor& q_weight,
                            const Tensor& k_weight, const Tensor& rope, const Tensor& qk_out,
                            const Tensor& rstd) override;
  void qk_norm_rope_backward(const QkNormRopeDesc& desc, const Tensor& qkv, const Tensor& q_weight,
                             const Tensor& k_weight, const Tensor& rope, const Tensor& rstd,
                             const Tensor& d_qkv, const Tensor& dq_weight,
                             const Tensor& dk_weight) override;
  size_t qk_norm_rope_backward_workspace(const QkNormRopeDesc& desc) const override;
  void attention_forward(const AttentionDesc& desc, const AttentionInputs& inputs,
                         const HeadsView& out, const Tensor& log_sum_exp,
                         const Tensor& row_sum) override;
  size_t attention_forward_workspace(const AttentionDesc& desc) const override;
  void attention_backward(const AttentionDesc& desc, const AttentionInputs& inputs,
                          const HeadsView& out, const Tensor& log_sum_exp, const HeadsView& d_out,
                          const HeadsView& dq, const HeadsView& dk, const HeadsView& dv,
                          const Tensor& d_head_bias) override;
  size_t attention_backward_workspace(const AttentionDesc& desc) const override;
  void vocab_cross_entropy(const CrossEntropyDesc& desc, const Tensor& x, const Tensor& weight,
                           const Tensor& targets, const Tensor& sums, const Tensor& dx,
                           const Tensor& dweight) override;
  size_t vocab_cross_entropy_workspace(const CrossEntropyDesc& desc, int64_t rows, int64_t width,
                                       int64_t vocab_size) const override;
  void classification_loss(double gradient_scale, const Tensor& logits, const Tensor& labels,
                           const Tensor& targets, const Tensor& sums,
                           const Tensor& d_logits) override;
  void ctc_loss(const CtcDesc& desc, const Tensor& logits, const Tensor& frame_lengths,
                const Tensor& targets, const Tensor& target_lengths, const Tensor& losses,
                const Tensor& sums, const Tensor& d_logits) override;
  size_t ctc_loss_workspace(const CtcDesc& desc) const override;
  void dropout(const RandomStream& stream, double p, const Tensor& x, const Tensor& y) override;
  void stochastic_depth(const RandomStream& stream, double p, const Tensor& scale) override;
  void layer_drop(const RandomStream& stream, double p, const Tensor& scale) override;
  void root_mean_square(const Tensor& x, const Tensor& result) override;
  void mean(const Tensor& x, const Tensor& result) override;
  void sum_of_squares(const Tensor& x, const Tensor& result) override;
  size_t reduction_workspace(int64_t numel) const override;
  void sequence_root_mean_square(const Tensor& x, const Tensor& lengths,
                                 const Tensor& result) override;
  void sequence_mean(const Tensor& x, const Tensor& lengths, const Tensor& result) override;
  size_t sequence_reduction_workspace(int64_t sequences) const override;
  void clip_factor(const Tensor& group_sums, double max_norm, const Tensor& control) override;
  void adamw(const AdamWDesc& desc, const Tensor& control, const Tensor& gradients,
             const Tensor& weights, const Tensor& first_moment, const Tensor& second_moment,
             const Tensor& compute_weights) override;
  void ema_update(double decay, const Tensor& control, const Tensor& weights,
                  const Tensor& average) override;

 private:
  uint64_t random_step_ = 0;
};

}  // namespace sigtrain
