// What attention does to its heads: QK-norm and rotation, then attention itself.
#include "kernels/qk_norm_rope.h"
#include "ops/cuda/check.h"
#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/pointers.h"
#include "ops/cuda/scratch.h"

namespace sigtrain {
namespace {

kernels::QkShape qk_shape(const QkNormRopeDesc& desc) {
  if (!kernels::qk_norm_rope_supports(desc.head_dim)) {
    throw Error(
        "QK-norm and rope: the CUDA backend works on head dimensions that are multiples of 16 up "
        "to 512, not {}",
        desc.head_dim);
  }
  return {desc.batch * desc.seq_len,       desc.seq_len,
          static_cast<int>(desc.heads),    static_cast<int>(desc.kv_heads),
          static_cast<int>(desc.head_dim), static_cast<float>(desc.eps)};
}

float* weight_partials(Scratch& scratch, const kernels::QkShape& shape) {
  return scratch.take<float>(kernels::qk_norm_rope_backward_partials(shape));
}

kernels::AttentionShape attention_shape(const AttentionDesc& desc) {
  kernels::AttentionShape shape{};
  shape.batch = static_cast<int>(desc.batch);
  shape.seq_len = static_cast<int>(desc.seq_len);
  shape.heads = static_cast<int>(desc.heads);
  shape.kv_heads = static_cast<int>(desc.kv_heads);
  shape.head_dim = static_cast<int>(desc.head_dim);
  shape.softmax = desc.kind == AttentionKind::softmax;
  shape.causal = desc.causal;
  shape.window = static_cast<int>(desc.window);
  shape.scale = static_cast<float>(desc.scale);
  shape.bias = static_cast<float>(desc.bias);
  return shape;
}

kernels::HeadsPointer heads_pointer(const HeadsView& view) {
  return {bf16_pointer(view.storage) + view.offset, view.row_stride};
}

kernels::AttentionForward forward_call(const AttentionDesc& desc, const AttentionInputs& inputs,
                                       const HeadsView& out, const Tensor& log_sum_exp,
                                       int* tickets) {
  kernels::AttentionForward call{};
  call.shape = attention_shape(desc);
  call.q = heads_pointer(inputs.q);
  call.k = heads_pointer(inputs.k);
  call.v = heads_pointer(inputs.v);
  call.out = heads_pointer(out);
  call.head_bias = bf16_pointer(inputs.head_bias);
  call.alibi_slopes = inputs.alibi_slopes.as<float>();
  call.key_lengths = inputs.key_lengths.as<int32_t>();
  call.log_sum_exp = log_sum_exp.as<float>();
  call.tickets = tickets;
  return call;
}

std::byte* attention_scratch(Scratch& scratch, const AttentionDesc& desc,
                             kernels::AttentionImpl impl) {
  return scratch.take<std::byte>(
      static_cast<int64_t>(kernels::attention_backward_workspace(attention_shape(desc), impl)));
}

}  // namespace

void CudaOps::qk_norm_rope_forward(const QkNormRopeDesc& desc, const Tensor& qkv,
                                   const Tensor& q_weight, const Tensor& k_weight,
                                   const Tensor& rope, const Tensor& qk_out, const Tensor& rstd) {
  kernels::QkNormRopeForward call{};
  call.shape = qk_shape(desc);
  call.qkv = bf16_pointer(qkv);
  call.q_weight = bf16_pointer(q_weight);
  call.k_weight = bf16_pointer(k_weight);
  call.rope = rope.as<float>();
  call.qk_out = bf16_pointer(qk_out);
  call.rstd = rstd.as<float>();
  kernels::qk_norm_rope_forward(call, stream_);
  check_launch("qk_norm_rope_forward");
}

void CudaOps::qk_norm_rope_backward(const QkNormRopeDesc& desc, const Tensor& qkv,
                                    const Tensor& q_weight, const Tensor& k_weight,
                                    const Tensor& rope, const Tensor& rstd, const Tensor& d_qkv,
                                    const Tensor& dq_weight, const Tensor& dk_weight) {
  Scratch scratch(workspace_, "qk_norm_rope_backward");
  kernels::QkNormRopeBackward call{};
  call.shape = qk_shape(desc);
  call.qkv = bf16_pointer(qkv);
  call.q_weight = bf16_pointer(q_weight);
  call.k_weight = bf16_pointer(k_weight);
  call.rope = rope.as<float>();
  call.rstd = rstd.as<float>();
  call.d_qkv = bf16_pointer(d_qkv);
  call.dq_weight = dq_weight.as<float>();
  call.dk_weight = dk_weight.as<float>();
  if (q_weight) call.partials = weight_partials(scratch, call.shape);
  kernels::qk_norm_rope_backward(call, stream_);
  check_launch("qk_norm_rope_backward");
}

size_t CudaOps::qk_norm_rope_backward_workspace(const QkNormRopeDesc& desc) const {
  Scratch scratch;
  weight_partials(scratch, qk_shape(desc));
  return scratch.bytes();
}

void CudaOps::attention_forward(const AttentionDesc& desc, const AttentionInputs& inputs,
                                const HeadsView& out, const Tensor& log_sum_exp,
                                const Tensor& row_sum) {
  kernels::AttentionForward call =
      forward_call(desc, inputs, out, log_sum_exp, state_->attention_tickets);
  call.row_sum = row_sum.as<float>();
  kernels::attention_forward(call, stream_, attention_impl_);
  check_launch("attention_forward");
}

void CudaOps::attention_backward(const AttentionDesc& desc, const AttentionInputs& inputs,
                                 const HeadsView& out, const Tensor& log_sum_exp,
                                 const HeadsView& d_out, const HeadsView& dq, const HeadsView& dk,
                                 const HeadsView& dv, const Tensor& d_head_bias) {
  Scratch scratch(workspace_, "attention_backward");
  kernels::AttentionBackward call{};
  call.forward = forward_call(desc, inputs, out, log_sum_exp, state_->attention_tickets);
  call.d_out = heads_pointer(d_out);
  call.dq = heads_pointer(dq);
  call.dk = heads_pointer(dk);
  call.dv = heads_pointer(dv);
  call.d_head_bias = d_head_bias.as<float>();
  call.workspace = attention_scratch(scratch, desc, attention_impl_);
  call.deterministic = deterministic_;
  kernels::attention_backward(call, stream_, attention_impl_);
  check_launch("attention_backward");
}

size_t CudaOps::attention_backward_workspace(const AttentionDesc& desc) const {
  Scratch scratch;
  attention_scratch(scratch, desc, attention_impl_);
  return scratch.bytes();
}

}  // namespace sigtrain
