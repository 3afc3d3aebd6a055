#include "ops/planning_ops.h"

#include <algorithm>

namespace sigtrain {
namespace {

/// Number of (query, key) pairs of one head and sequence that the mask leaves visible.
double visible_pairs(const AttentionDesc& desc) {
  double pairs = 0.0;
  const int64_t reach = desc.window > 0 ? std::min(desc.window, desc.seq_len) : desc.seq_len;
  for (int64_t i = 0; i < desc.seq_len; ++i) {
    const int64_t first = std::max<int64_t>(0, i - reach + 1);
    const int64_t last = desc.causal ? i : std::min(desc.seq_len - 1, i + reach - 1);
    pairs += static_cast<double>(last - first + 1);
  }
  return pairs;
}

/// Positions repeat with every sequence.
void check_positions(const Tensor& positions, int64_t rows) {
  if (positions.rows() == 0 || rows % positions.rows() != 0)
    throw Error("embedding: {} rows are no whole number of {}", rows, positions.rows());
}

/// FLOPs of one product over the visible scores: 2 head_dim for each, over all heads and sequences.
double score_product_flops(const AttentionDesc& desc) {
  return 2.0 * static_cast<double>(desc.batch * desc.heads * desc.head_dim) * visible_pairs(desc);
}

}  // namespace

// ---- checks

PlanningOps::PlanningOps(const Ops& backend)
    : backend_(&backend),
      name_(backend.name()),
      compute_dtype_(backend.compute_dtype()),
      accumulate_dtype_(backend.accumulate_dtype()),
      is_synchronous_(backend.is_synchronous()) {}

PlanningOps::PlanningOps(std::string name, DType compute_dtype, DType accumulate_dtype)
    : name_(std::move(name)), compute_dtype_(compute_dtype), accumulate_dtype_(accumulate_dtype) {}

void PlanningOps::need_workspace(size_t bytes) {
  workspace_bytes_ = std::max(workspace_bytes_, bytes);
}

void PlanningOps::expect(const Tensor& x, DType dtype, const Shape& shape,
                         std::string_view what) const {
  if (!x) throw Error("{} is missing", what);
  if (x.dtype != dtype) throw Error("{} is of {}, not {}", what, name_of(x.dtype), name_of(dtype));
  if (x.shape != shape)
    throw Error("{} is {}, not {}", what, x.shape.to_string(), shape.to_string());
}

void PlanningOps::expect_if(const Tensor& x, DType dtype, const Shape& shape,
                            std::string_view what) const {
  if (x) expect(x, dtype, shape, what);
}

void PlanningOps::expect_heads(const HeadsView& view, const AttentionDesc& desc, int64_t heads,
                               std::string_view what) const {
  const Tensor& storage = view.storage;
  if (!storage || storage.dtype != compute_dtype())
    throw Error("{} has no storage of {}", what, name_of(compute_dtype()));
  const int64_t rows = desc.batch * desc.seq_len;
  const int64_t end = view.offset + (rows - 1) * view.row_stride + heads * desc.head_dim;
  if (view.offset < 0 || view.row_stride < heads * desc.head_dim || end > storage.numel()) {
    throw Error("{}: {} rows of {} heads of {} from {} with stride {} do not fit in {}", what, rows,
                heads, desc.head_dim, view.offset, view.row_stride, storage.shape.to_string());
  }
}

void PlanningOps::check_attention(const AttentionDesc& desc, const AttentionInputs& inputs) const {
  if (desc.kv_heads <= 0 || desc.heads % desc.kv_heads != 0) {
    throw Error("attention: {} heads cannot share {} key/value heads", desc.heads, desc.kv_heads);
  }
  if (desc.window < 0) throw Error("attention: window is {}", desc.window);
  expect_heads(inputs.q, desc, desc.heads, "attention q");
  expect_heads(inputs.k, desc, desc.kv_heads, "attention k");
  expect_heads(inputs.v, desc, desc.kv_heads, "attention v");
  expect_if(inputs.head_bias, compute_dtype(), {desc.heads}, "attention head_bias");
  expect_if(inputs.alibi_slopes, accumulate_dtype(), {desc.heads}, "attention alibi_slopes");
  expect_if(inputs.key_lengths, DType::i32, {desc.batch}, "attention key_lengths");
}

void PlanningOps::check_linear(const Tensor& x, const Tensor& weight, const Tensor& y) const {
  expect(x, compute_dtype(), {x.rows(), x.columns()}, "linear x");
  expect(weight, compute_dtype(), {y.columns(), x.columns()}, "linear weight");
  expect(y, compute_dtype(), {x.rows(), y.columns()}, "linear y");
}

// ---- the device

std::string_view PlanningOps::name() const { return name_; }
DType PlanningOps::compute_dtype() const { return compute_dtype_; }
DType PlanningOps::accumulate_dtype() const { return accumulate_dtype_; }
DeviceMemory PlanningOps::allocate(size_t) { return nullptr; }
void PlanningOps::upload(const Tensor&, const void*) {}
void PlanningOps::download(void*, const Tensor&) {
  throw Error("a planning run has no values to read");
}
void PlanningOps::fill(const Tensor&, double) {}
void PlanningOps::copy(const Tensor& source, const Tensor& destination) {
  if (source.numel() != destination.numel()) {
    throw Error("copy of {} to {}", source.shape.to_string(), destination.shape.to_string());
  }
}
void PlanningOps::add(const Tensor& x, const Tensor& y) {
  expect(x, compute_dtype(), x.shape, "add x");
  expect(y, compute_dtype(), x.shape, "add y");
}
void PlanningOps::synchronize() {}
bool PlanningOps::is_synchronous() const { return is_synchronous_; }
void PlanningOps::set_random_step(uint64_t) {}
void PlanningOps::next_random_step() {}

// ---- embedding and linear

void PlanningOps::embedding_forward(const Tensor& tokens, const Tensor& weight,
                                    const Tensor& positions, const Tensor& y) {
  expect(tokens, DType::i32, {y.rows()}, "embedding tokens");
  expect(weight, compute_dtype(), {weight.rows(), y.columns()}, "embedding weight");
  if (positions) {
    expect(positions, compute_dtype(), {positions.rows(), y.columns()}, "embedding positions");
    check_positions(positions, y.rows());
  }
  expect(y, compute_dtype(), {y.rows(), y.columns()}, "embedding y");
}

void PlanningOps::embedding_backward(const Tensor& tokens, const Tensor& dy, const Tensor& dweight,
                                     const Tensor& dpositions) {
  expect(tokens, DType::i32, {dy.rows()}, "embedding tokens");
  expect(dy, compute_dtype(), {dy.rows(), dy.columns()}, "embedding dy");
  expect(dweight, accumulate_dtype(), {dweight.rows(), dy.columns()}, "embedding dweight");
  if (dpositions) {
    expect(dpositions, accumulate_dtype(), {dpositions.rows(), dy.columns()},
           "embedding dpositions");
    check_positions(dpositions, dy.rows());
  }
  need_workspace(
      workspaces().embedding_backward_workspace(dy.rows(), dweight.rows(), dy.columns()));
}

void PlanningOps::image_patches(int64_t patch_size, const Tensor& images, const Tensor& factors,
                                const Tensor& offsets, const Tensor& y) {
  expect(images, DType::u8, images.shape, "patches images");
  const Shape& shape = images.shape;
  if (shape.rank() != 4 || patch_size < 1 || shape[1] % patch_size != 0 ||
      shape[2] % patch_size != 0) {
    throw Error("patches images {} are no whole number of patches of {}", shape.to_string(),
                patch_size);
  }
  expect(factors, accumulate_dtype(), {shape[3]}, "patches factors");
  expect(offsets, accumulate_dtype(), {shape[3]}, "patches offsets");
  expect(y, compute_dtype(),
         {shape[0] * (shape[1] / patch_size) * (shape[2] / patch_size),
          shape[3] * patch_size * patch_size},
         "patches y");
}

void PlanningOps::check_sequence(const Tensor& prefix, const Tensor& x, const Tensor& positions,
                                 const Tensor& y, DType parameters) const {
  if (y.shape.rank() != 3)
    throw Error("sequence y is {}, not batch by tokens by width", y.shape.to_string());
  const int64_t batch = y.shape[0], tokens = y.shape[1], width = y.columns();
  const int64_t prefix_tokens = prefix ? prefix.shape[0] : 0;
  expect(y, compute_dtype(), {batch, tokens, width}, "sequence y");
  expect_if(prefix, parameters, {prefix_tokens, width}, "sequence prefix");
  expect_if(x, compute_dtype(), {batch, tokens - prefix_tokens, width}, "sequence x");
  expect_if(positions, parameters, {tokens, width}, "sequence positions");
}

void PlanningOps::sequence_forward(const Tensor& prefix, const Tensor& x, const Tensor& positions,
                                   const Tensor& y) {
  if (!x) throw Error("sequence x is missing");
  check_sequence(prefix, x, positions, y, compute_dtype());
}

void PlanningOps::sequence_backward(const Tensor& dy, const Tensor& dx, const Tensor& dprefix,
                                    const Tensor& dpositions) {
  check_sequence(dprefix, dx, dpositions, dy, accumulate_dtype());
}

void PlanningOps::pool_forward(ImagePool, const Tensor& x, const Tensor& y) {
  if (x.shape.rank() != 3)
    throw Error("pool x is {}, not batch by tokens by width", x.shape.to_string());
  expect(x, compute_dtype(), x.shape, "pool x");
  expect(y, compute_dtype(), {x.shape[0], x.columns()}, "pool y");
}

void PlanningOps::pool_backward(ImagePool pool, const Tensor& dy, const Tensor& dx) {
  pool_forward(pool, dx, dy);
}

void PlanningOps::linear_forward(const Tensor& x, const Tensor& weight, const Tensor& bias,
                                 Activation activation, const Tensor& pre_activation,
                                 const Tensor& y) {
  check_linear(x, weight, y);
  expect_if(bias, compute_dtype(), {y.columns()}, "linear bias");
  if (activation != Activation::none)
    expect(pre_activation, compute_dtype(), y.shape, "linear pre_activation");
  flops_ += 2.0 * static_cast<double>(x.rows() * x.columns()) * static_cast<double>(y.columns());
}

void PlanningOps::linear_backward(const Tensor& x, const Tensor& weight, const Tensor& dy,
                                  Activation activation, const Tensor& pre_activation,
                                  const Tensor& dx, const Tensor& dweight, const Tensor& dbias,
                                  const Tensor& dbias_before) {
  check_linear(x, weight, dy);
  if (activation != Activation::none)
    expect(pre_activation, compute_dtype(), x.shape, "linear pre_activation of x");
  expect_if(dx, compute_dtype(), x.shape, "linear dx");
  expect(dweight, accumulate_dtype(), weight.shape, "linear dweight");
  expect_if(dbias, accumulate_dtype(), {dy.columns()}, "linear dbias");
  if (dbias_before) {
    if (activation == Activation::none || !dx)
      throw Error("linear dbias_before needs an activation in front of x, and dx");
    expect(dbias_before, accumulate_dtype(), {x.columns()}, "linear dbias_before");
  }
  need_workspace(workspaces().linear_backward_workspace(x.rows(), x.columns(), dy.columns()));
  flops_ += (dx ? 4.0 : 2.0) * static_cast<double>(x.rows() * x.columns()) *
            static_cast<double>(dy.columns());
}

void PlanningOps::activation_forward(Activation activation, const Tensor& x, const Tensor& y) {
  if (activation == Activation::none) throw Error("activation_forward needs an activation");
  expect(x, compute_dtype(), y.shape, "activation x");
  expect(y, compute_dtype(), y.shape, "activation y");
}

void PlanningOps::swiglu_forward(const Tensor& x, const Tensor& y) {
  expect(x, compute_dtype(), {y.rows(), 2 * y.columns()}, "swiglu x");
  expect(y, compute_dtype(), {y.rows(), y.columns()}, "swiglu y");
}

void PlanningOps::swiglu_backward(const Tensor& x, const Tensor& dy, const Tensor& dx) {
  swiglu_forward(x, dy);
  expect(dx, compute_dtype(), x.shape, "swiglu dx");
}

void PlanningOps::glu_forward(const Tensor& x, const Tensor& y) {
  expect(x, compute_dtype(), {y.rows(), 2 * y.columns()}, "glu x");
  expect(y, compute_dtype(), {y.rows(), y.columns()}, "glu y");
}

void PlanningOps::glu_backward(const Tensor& x, const Tensor& dy, const Tensor& dx) {
  glu_forward(x, dy);
  expect(dx, compute_dtype(), x.shape, "glu dx");
}

void PlanningOps::unfold(const UnfoldDesc& desc, const Tensor& x, const Tensor& lengths,
                         const Tensor& y) {
  if (desc.kernel < 1 || desc.stride < 1 || desc.padding < 0) {
    throw Error("unfold: a kernel of {}, a stride of {} and a padding of {} are impossible",
                desc.kernel, desc.stride, desc.padding);
  }
  expect(x, DType::f32, {desc.batch, desc.in_len, desc.channels}, "unfold x");
  expect(lengths, DType::i32, {desc.batch}, "unfold lengths");
  expect(y, compute_dtype(), {desc.batch * desc.out_len, desc.kernel * desc.channels}, "unfold y");
}

void PlanningOps::add_sinusoids(const Tensor& positions, const Tensor& x) {
  if (x.columns() % 2 != 0) throw Error("add_sinusoids: {} columns are not even", x.columns());
  expect(positions, DType::f32, {x.rows()}, "sinusoid positions");
  expect(x, compute_dtype(), {x.rows(), x.columns()}, "sinusoid x");
}

// ---- norms

void PlanningOps::residual_norm_forward(const NormDesc& desc, const Tensor& residual,
                                        const ResidualBranch& branch, const Tensor& residual_out,
                                        const Tensor& weight, const Tensor& bias, const Tensor& y,
                                        const Tensor& mean, const Tensor& rstd) {
  const Shape columns{residual.columns()}, rows{residual.rows()};
  expect(residual, compute_dtype(), residual.shape, "norm residual");
  expect(weight, compute_dtype(), columns, "norm weight");
  expect_if(bias, compute_dtype(), columns, "norm bias");
  expect(y, compute_dtype(), residual.shape, "norm y");
  if (desc.kind == NormKind::layernorm) expect(mean, accumulate_dtype(), rows, "norm mean");
  expect(rstd, accumulate_dtype(), rows, "norm rstd");
  expect_if(branch.delta, compute_dtype(), residual.shape, "norm branch");
  if (branch.delta) expect(residual_out, compute_dtype(), residual.shape, "norm residual_out");
  expect_if(branch.layer_scale, compute_dtype(), columns, "norm layer_scale");
  if (branch.sample_scale) {
    expect(branch.sample_scale, accumulate_dtype(), {branch.sample_scale.numel()},
           "norm sample_scale");
    if (residual.rows() % branch.sample_scale.numel() != 0) {
      throw Error("norm: {} rows are no whole number of {} samples", residual.rows(),
                  branch.sample_scale.numel());
    }
  }
}

void PlanningOps::residual_norm_backward(const NormDesc& desc, const Tensor& x,
                                         const Tensor& weight, const Tensor& mean,
                                         const Tensor& rstd, const Tensor& dy, bool,
                                         const Tensor& d_residual, const Tensor& dweight,
                                         const Tensor& dbias, const ResidualBranch& branch,
                                         const Tensor& d_delta, const Tensor& d_layer_scale) {
  residual_norm_forward(desc, x, branch, x, weight, {}, dy, mean, rstd);
  const Shape columns{x.columns()};
  expect(d_residual, compute_dtype(), x.shape, "norm d_residual");
  expect(dweight, accumulate_dtype(), columns, "norm dweight");
  expect_if(dbias, accumulate_dtype(), columns, "norm dbias");
  if (branch.layer_scale || branch.sample_scale)
    expect(d_delta, compute_dtype(), x.shape, "norm d_delta");
  if (branch.layer_scale) expect(d_layer_scale, accumulate_dtype(), columns, "norm d_layer_scale");
  need_workspace(workspaces().residual_norm_backward_workspace(x.rows(), x.columns()));
}

// ---- attention

void PlanningOps::qk_norm_rope_forward(const QkNormRopeDesc& desc, const Tensor& qkv,
                                       const Tensor& q_weight, const Tensor& k_weight,
                                       const Tensor& rope, const Tensor& qk_out,
                                       const Tensor& rstd) {
  const int64_t rows = desc.batch * desc.seq_len, q_and_k = desc.heads + desc.kv_heads;
  expect(qkv, compute_dtype(), {rows, (q_and_k + desc.kv_heads) * desc.head_dim}, "qkv");
  expect(qk_out, compute_dtype(), {rows, q_and_k * desc.head_dim}, "qk");
  expect_if(rope, accumulate_dtype(), {desc.seq_len, desc.head_dim}, "rope table");
  if (q_weight || k_weight) {
    expect(q_weight, compute_dtype(), {desc.head_dim}, "q_norm weight");
    expect(k_weight, compute_dtype(), {desc.head_dim}, "k_norm weight");
    expect(rstd, accumulate_dtype(), {rows, q_and_k}, "qk rstd");
  }
}

void PlanningOps::qk_norm_rope_backward(const QkNormRopeDesc& desc, const Tensor& qkv,
                                        const Tensor& q_weight, const Tensor& k_weight,
                                        const Tensor& rope, const Tensor& rstd, const Tensor& d_qkv,
                                        const Tensor& dq_weight, const Tensor& dk_weight) {
  const int64_t rows = desc.batch * desc.seq_len, q_and_k = desc.heads + desc.kv_heads;
  expect(qkv, compute_dtype(), {rows, (q_and_k + desc.kv_heads) * desc.head_dim}, "qkv");
  expect(d_qkv, compute_dtype(), qkv.shape, "d_qkv");
  expect_if(rope, accumulate_dtype(), {desc.seq_len, desc.head_dim}, "rope table");
  if (q_weight || k_weight) {
    expect(q_weight, compute_dtype(), {desc.head_dim}, "q_norm weight");
    expect(k_weight, compute_dtype(), {desc.head_dim}, "k_norm weight");
    expect(rstd, accumulate_dtype(), {rows, q_and_k}, "qk rstd");
    expect(dq_weight, accumulate_dtype(), {desc.head_dim}, "q_norm gradient");
    expect(dk_weight, accumulate_dtype(), {desc.head_dim}, "k_norm gradient");
  }
  need_workspace(workspaces().qk_norm_rope_backward_workspace(desc));
}

void PlanningOps::attention_forward(const AttentionDesc& desc, const AttentionInputs& inputs,
                                    const HeadsView& out, const Tensor& log_sum_exp,
                                    const Tensor& row_sum) {
  check_attention(desc, inputs);
  expect_heads(out, desc, desc.heads, "attention out");
  const Shape per_query{desc.batch, desc.heads, desc.seq_len};
  if (desc.kind == AttentionKind::softmax)
    expect(log_sum_exp, accumulate_dtype(), per_query, "attention log_sum_exp");
  expect_if(row_sum, accumulate_dtype(), per_query, "attention row_sum");
  need_workspace(workspaces().attention_forward_workspace(desc));
  flops_ += 2.0 * score_product_flops(desc);
}

void PlanningOps::attention_backward(const AttentionDesc& desc, const AttentionInputs& inputs,
                                     const HeadsView& out, const Tensor& log_sum_exp,
                                     const HeadsView& d_out, const HeadsView& dq,
                                     const HeadsView& dk, const HeadsView& dv,
                                     const Tensor& d_head_bias) {
  check_attention(desc, inputs);
  expect_heads(out, desc, desc.heads, "attention out");
  expect_heads(d_out, desc, desc.heads, "attention d_out");
  expect_heads(dq, desc, desc.heads, "attention dq");
  expect_heads(dk, desc, desc.kv_heads, "attention dk");
  expect_heads(dv, desc, desc.kv_heads, "attention dv");
  if (desc.kind == AttentionKind::softmax) {
    expect(log_sum_exp, accumulate_dtype(), {desc.batch, desc.heads, desc.seq_len},
           "attention log_sum_exp");
  }
  expect_if(d_head_bias, accumulate_dtype(), {desc.heads}, "attention d_head_bias");
  need_workspace(workspaces().attention_backward_workspace(desc));
  flops_ += 4.0 * score_product_flops(desc);  // dV, dP, dQ, dK; computing S again is no model FLOP
}

// ---- loss

void PlanningOps::vocab_cross_entropy(const CrossEntropyDesc& desc, const Tensor& x,
                                      const Tensor& weight, const Tensor& targets,
                                      const Tensor& sums, const Tensor& dx, const Tensor& dweight) {
  expect(x, compute_dtype(), {x.rows(), x.columns()}, "cross-entropy x");
  expect(weight, compute_dtype(), {weight.rows(), x.columns()}, "cross-entropy weight");
  expect(targets, DType::i32, {x.rows()}, "cross-entropy targets");
  expect(sums, accumulate_dtype(), {loss_sum_slots}, "cross-entropy sums");
  if (static_cast<bool>(dx) != static_cast<bool>(dweight))
    throw Error("cross-entropy: dx and dweight go together");
  expect_if(dx, compute_dtype(), x.shape, "cross-entropy dx");
  expect_if(dweight, accumulate_dtype(), weight.shape, "cross-entropy dweight");
  need_workspace(
      workspaces().vocab_cross_entropy_workspace(desc, x.rows(), x.columns(), weight.rows()));
  flops_ += (dx ? 6.0 : 2.0) * static_cast<double>(x.rows() * x.columns()) *
            static_cast<double>(weight.rows());
}

void PlanningOps::ctc_loss(const CtcDesc& desc, const Tensor& logits, const Tensor& frame_lengths,
                           const Tensor& targets, const Tensor& target_lengths,
                           const Tensor& losses, const Tensor& sums, const Tensor& d_logits) {
  if (desc.blank < 0 || desc.blank >= desc.vocab_size)
    throw Error("ctc: the blank {} is not in the vocabulary [0, {})", desc.blank, desc.vocab_size);
  expect(logits, compute_dtype(), {desc.batch * desc.seq_len, desc.vocab_size}, "ctc logits");
  expect(frame_lengths, DType::i32, {desc.batch}, "ctc frame_lengths");
  expect(targets, DType::i32, {desc.batch, desc.max_targets}, "ctc targets");
  expect(target_lengths, DType::i32, {desc.batch}, "ctc target_lengths");
  expect(losses, accumulate_dtype(), {desc.batch}, "ctc losses");
  expect(sums, accumulate_dtype(), {ctc_sum_slots}, "ctc sums");
  expect_if(d_logits, compute_dtype(), logits.shape, "ctc d_logits");
  need_workspace(workspaces().ctc_loss_workspace(desc));
}

// ---- randomness, reductions, optimizer

void PlanningOps::classification_loss(double, const Tensor& logits, const Tensor& labels,
                                      const Tensor& targets, const Tensor& sums,
                                      const Tensor& d_logits) {
  expect(logits, compute_dtype(), {logits.rows(), logits.columns()}, "classification logits");
  expect(labels, DType::i32, {logits.rows()}, "classification labels");
  expect_if(targets, accumulate_dtype(), logits.shape, "classification targets");
  expect(sums, accumulate_dtype(), {class_sum_slots}, "classification sums");
  expect_if(d_logits, compute_dtype(), logits.shape, "classification d_logits");
  need_workspace(workspaces().classification_loss_workspace(logits.rows()));
}

void PlanningOps::dropout(const RandomStream&, double, const Tensor& x, const Tensor& y) {
  expect(x, compute_dtype(), x.shape, "dropout x");
  expect(y, compute_dtype(), x.shape, "dropout y");
}

void PlanningOps::stochastic_depth(const RandomStream&, double, const Tensor& scale) {
  expect(scale, accumulate_dtype(), {scale.numel()}, "stochastic depth scale");
}

void PlanningOps::layer_drop(const RandomStream&, double, const Tensor& scale) {
  expect(scale, accumulate_dtype(), {scale.numel()}, "layer drop scale");
}

void PlanningOps::root_mean_square(const Tensor& x, const Tensor& result) {
  expect(x, compute_dtype(), x.shape, "rms x");
  expect(result, accumulate_dtype(), {1}, "rms result");
  need_workspace(workspaces().reduction_workspace(x.numel()));
}

void PlanningOps::mean(const Tensor& x, const Tensor& result) {
  expect(x, accumulate_dtype(), x.shape, "mean x");
  expect(result, accumulate_dtype(), {1}, "mean result");
  need_workspace(workspaces().reduction_workspace(x.numel()));
}

void PlanningOps::sum_of_squares(const Tensor& x, const Tensor& result) {
  expect(x, accumulate_dtype(), x.shape, "sum of squares x");
  expect(result, accumulate_dtype(), {1}, "sum of squares result");
  need_workspace(workspaces().reduction_workspace(x.numel()));
}

void PlanningOps::sequence_root_mean_square(const Tensor& x, const Tensor& lengths,
                                            const Tensor& result) {
  expect(x, compute_dtype(), x.shape, "sequence rms x");
  expect(lengths, DType::i32, {lengths.numel()}, "sequence rms lengths");
  if (x.rows() % lengths.numel() != 0)
    throw Error("sequence rms: {} rows are no whole number of {}", x.rows(), lengths.numel());
  expect(result, accumulate_dtype(), {1}, "sequence rms result");
  need_workspace(workspaces().sequence_reduction_workspace(lengths.numel()));
}

void PlanningOps::sequence_mean(const Tensor& x, const Tensor& lengths, const Tensor& result) {
  expect(x, accumulate_dtype(), {lengths.numel(), x.shape[1], x.shape[2]}, "sequence mean x");
  expect(lengths, DType::i32, {lengths.numel()}, "sequence mean lengths");
  expect(result, accumulate_dtype(), {1}, "sequence mean result");
  need_workspace(workspaces().sequence_reduction_workspace(x.shape[0] * x.shape[1]));
}

void PlanningOps::clip_factor(const Tensor& group_sums, double, const Tensor& control) {
  expect(group_sums, accumulate_dtype(), {group_sums.numel()}, "gradient sums");
  expect(control, accumulate_dtype(), {control_slots}, "optimizer control");
}

void PlanningOps::adamw(const AdamWDesc&, const Tensor& control, const Tensor& gradients,
                        const Tensor& weights, const Tensor& first_moment,
                        const Tensor& second_moment, const Tensor& compute_weights) {
  expect(control, accumulate_dtype(), {control_slots}, "optimizer control");
  for (const Tensor& x : {weights, gradients, first_moment, second_moment})
    expect(x, accumulate_dtype(), weights.shape, "adamw range");
  expect_if(compute_weights, compute_dtype(), weights.shape, "adamw compute weights");
}

void PlanningOps::ema_update(double, const Tensor& control, const Tensor& weights,
                             const Tensor& average) {
  expect(control, accumulate_dtype(), {control_slots}, "optimizer control");
  expect(weights, accumulate_dtype(), weights.shape, "averaged weights");
  expect(average, accumulate_dtype(), weights.shape, "average");
}

}  // namespace sigtrain
