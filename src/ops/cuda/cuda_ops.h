// The backend for NVIDIA GPUs: bfloat16 activations, fp32 statistics, gradients of parameters and
// optimizer. Everything runs on one stream, the host never waits inside a step, and every sum has a
// fixed order: the same step gives the same bits. Its kernels are in kernels/.
#pragma once

#include <cuda_runtime.h>

#include <memory>
#include <string>

#include "kernels/attention_launch.h"
#include "kernels/fault.h"
#include "ops/cuda/matmul.h"
#include "ops/cuda/staging.h"
#include "ops/ops.h"

namespace sigtrain {

class CudaOps final : public Ops {
 public:
  /// Why no GPU of this machine can be used; empty if one can.
  static std::string unavailable_reason();
  /// GPUs that this process sees.
  static int count();

  /// On GPU `device`, which becomes the thread's current one. Throws Error where
  /// unavailable_reason() has something to say.
  explicit CudaOps(int device = 0);
  ~CudaOps() override;
  CudaOps(const CudaOps&) = delete;
  CudaOps& operator=(const CudaOps&) = delete;

  /// Where all work goes, in order.
  cudaStream_t stream() const { return stream_; }
  /// The attention kernels to use from now on, which the device must be able to run, for tests and
  /// measurements: else each pass takes the fastest ones.
  void set_attention_impl(kernels::AttentionImpl impl) { attention_impl_ = impl; }

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
  std::optional<MemoryUse> memory_use() const override;
  bool can_capture() const override;
  std::unique_ptr<CapturedWork> capture(const std::function<void()>& work) override;
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
  size_t classification_loss_workspace(int64_t rows) const override;
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
  /// What the device and the host share outside of tensors.
  struct DeviceState {
    kernels::Fault fault;
    uint64_t random_step;
    int attention_tickets[2];
  };

  /// Waits for the stream, then throws if a kernel met an input it could not use.
  void wait();

  cudaStream_t stream_ = nullptr;
  DeviceState* state_ = nullptr;             // device memory
  kernels::Fault* fault_on_host_ = nullptr;  // pinned
  std::unique_ptr<Staging> staging_;
  std::unique_ptr<Matmul> matmul_;
  kernels::AttentionImpl attention_impl_ = kernels::AttentionImpl::automatic;
};

}  // namespace sigtrain
