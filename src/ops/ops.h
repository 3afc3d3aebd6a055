// Every operation a layer may use, declared once with its shapes. Backends derive from Ops:
// CpuOps<float> trains, CpuOps<double> is the reference, CudaOps is the fast one; PlanningOps
// checks shapes and counts, and computes nothing.
//
// Conventions
// - N = batch * seq_len rows; C = width. Tensors are dense and row-major; every memory is the
// caller's.
// - Activations and the weights that layers read are of compute_dtype(); gradients of parameters,
// statistics and losses
//   are of accumulate_dtype(); token ids and targets are i32.
// - Gradients of parameters are added to (+=). Every other output is overwritten, whatever it held.
// - An absent Tensor (Tensor{}) leaves an optional input or output out.
// - Shapes are checked by PlanningOps, through which every run passes before step 1, and not again
// in the loop.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "config/schema.h"
#include "core/philox.h"
#include "core/tensor.h"

namespace sigtrain {

/// Owned memory of a backend, aligned to Arena::alignment.
using DeviceMemory = std::shared_ptr<void>;

/// Elementwise function fused behind a linear layer: gelu is the exact form x Phi(x); relu2 is
/// max(x, 0)^2.
enum class Activation : uint8_t { none, gelu, relu2 };

struct NormDesc {
  NormKind kind = NormKind::rmsnorm;
  double eps = 1e-5;
};

/// What is added to the residual stream: layer_scale * sample_scale * delta.
struct ResidualBranch {
  Tensor delta;         // [N, C]
  Tensor layer_scale;   // optional [C]
  Tensor sample_scale;  // optional [batch], accumulate_dtype: 0 or 1/keep_probability (stochastic
                        // depth)
};

struct QkNormRopeDesc {
  int64_t batch = 0, seq_len = 0, heads = 0, kv_heads = 0, head_dim = 0;
  double eps = 1e-5;
};

/// Heads inside a row-major matrix: element (row, head, d) lies at offset + row * row_stride + head
/// * head_dim + d. So q, k and v can be parts of one packed matrix, and outputs can be written
/// where the next layer reads them.
struct HeadsView {
  Tensor storage;
  int64_t offset = 0;
  int64_t row_stride = 0;
};

struct AttentionDesc {
  AttentionKind kind = AttentionKind::sigmoid;
  int64_t batch = 0, seq_len = 0, heads = 0, kv_heads = 0, head_dim = 0;
  double scale = 1.0;  // of q.k
  double bias = 0.0;   // added to every logit
  bool causal = true;
  int64_t window = 0;  // key j is seen from query i only if |i - j| < window; 0: no window
};

/// Logits S[i, j] = scale q_i.k_j + bias + head_bias - alibi_slope |i - j| over the visible keys j.
struct AttentionInputs {
  HeadsView q, k, v;    // heads, kv_heads and kv_heads heads of head_dim
  Tensor head_bias;     // optional [heads], compute_dtype, learned
  Tensor alibi_slopes;  // optional [heads], accumulate_dtype
  Tensor key_lengths;   // optional i32 [batch]: keys j >= key_lengths[b] are not attended to
};

struct CrossEntropyDesc {
  int32_t ignore_index = -1;
  double label_smoothing = 0.0;  // target distribution (1 - s) onehot + s / V
  double z_loss = 0.0;           // adds z_loss * (log Z)^2 for each counted row
  int64_t chunk_rows = 0;        // logits held at a time; 0: the backend's choice
  double gradient_scale =
      1.0;  // of the summed objective: 1 / (targets counted in the global batch) for their mean
};

/// Slots of the sums that vocab_cross_entropy adds to.
enum LossSum : int {
  loss_sum_objective,
  loss_sum_nll,
  loss_sum_count,
  loss_sum_correct,
  loss_sum_slots
};

/// Slots of the sums that classification_loss adds to.
enum ClassificationSum : int {
  class_sum_objective,
  class_sum_nll,
  class_sum_count,
  class_sum_correct,
  class_sum_correct_of_5,
  class_sum_slots
};

/// Frames of variable length under a strided window, as a convolution over time sees them.
struct UnfoldDesc {
  int64_t batch = 0, in_len = 0, out_len = 0, channels = 0;
  int64_t kernel = 0, stride = 0, padding = 0;
};

struct CtcDesc {
  int64_t batch = 0, seq_len = 0, vocab_size = 0;
  int64_t max_targets = 0;  // columns of the targets
  int32_t blank = 0;
  double gradient_scale = 1.0;  // of the summed loss
};

/// Slots of the sums that ctc_loss adds to.
enum CtcSum : int {
  ctc_sum_nll,         // of the counted sequences, in nats
  ctc_sum_sequences,   // counted
  ctc_sum_targets,     // of the counted sequences
  ctc_sum_infeasible,  // sequences with too few frames for their targets, counted here alone
  ctc_sum_slots
};

/// Slots of the optimizer's control vector; it lives on the device so that a step never waits for
/// the host.
enum ControlSlot : int {
  control_grad_norm,   // set by clip_factor: global norm before clipping
  control_clip_scale,  // set by clip_factor: what gradients are multiplied by; 1 if not finite
  control_finite,  // set by clip_factor: 1, or 0 if any gradient is not finite; adamw then changes
                   // nothing
  control_applied_steps,        // advanced by clip_factor when finite; bias correction uses it
  control_skipped_steps,        // advanced by clip_factor when not finite
  control_consecutive_skipped,  // likewise; set to 0 by a finite step
  control_learning_rate,        // set by the host
  control_schedule,             // set by the host: learning rate over its peak
  control_slots
};

struct AdamWDesc {
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8;
  double rate_scale = 1.0;    // of this range's update
  double weight_decay = 0.0;  // of this range; 0 where it does not decay
  DecayMode decay_mode = DecayMode::coupled;
};

/// Work that Ops::capture recorded; must not outlive its Ops.
class CapturedWork {
 public:
  virtual ~CapturedWork() = default;
  /// Does the work once more, with what its memory holds then.
  virtual void replay() = 0;
};

/// Bytes of a device's own memory: those in use by all programs, and all it has.
struct MemoryUse {
  size_t used = 0, total = 0;
};

class Ops {
 public:
  virtual ~Ops() = default;

  // ---- the device and its memory
  virtual std::string_view name() const = 0;
  /// True for PlanningOps: tensors have no memory and nothing is computed.
  virtual bool is_planning() const { return false; }
  virtual DType compute_dtype() const = 0;
  virtual DType accumulate_dtype() const = 0;
  /// Uninitialised; throws Error naming the bytes asked for and those free.
  virtual DeviceMemory allocate(size_t bytes) = 0;
  virtual void upload(const Tensor& destination,
                      const void* host) = 0;  // destination.bytes() of its dtype
  virtual void download(void* host,
                        const Tensor& source) = 0;  // waits for the source to be complete
  virtual void fill(const Tensor& x, double value) = 0;
  virtual void copy(const Tensor& source,
                    const Tensor& destination) = 0;        // same numel; converts floating dtypes
  virtual void add(const Tensor& x, const Tensor& y) = 0;  // y += x, compute_dtype
  virtual void synchronize() = 0;
  /// True if reading a device value costs nothing, so that the loop may look at every step's
  /// gradient norm.
  virtual bool is_synchronous() const = 0;
  /// The step whose random numbers dropout and stochastic depth draw from now on: unique to a
  /// micro-batch.
  virtual void set_random_step(uint64_t step) = 0;
  /// Goes on to the step behind, without the host knowing which: a replayed micro-batch has new
  /// numbers.
  virtual void next_random_step() = 0;
  /// Absent where the device has no memory of its own.
  virtual std::optional<MemoryUse> memory_use() const;
  virtual bool can_capture() const;
  /// Calls `work`, whose operations are recorded instead of done. They must have been done before,
  /// and `work` may not upload, download, allocate or wait: what changes between replays is in
  /// memory that the host writes between them. Throws Error where can_capture() is false.
  virtual std::unique_ptr<CapturedWork> capture(const std::function<void()>& work);
  /// Scratch memory shared by all operations, at least as large as the largest *_workspace of the
  /// run.
  void set_workspace(const Tensor& workspace) { workspace_ = workspace; }
  /// False lets a backend add in an order that differs from time to time, where that is faster.
  void set_deterministic(bool deterministic) { deterministic_ = deterministic; }

  // ---- embedding: y[n] = weight[tokens[n]] + positions[n % seq_len]
  virtual void embedding_forward(const Tensor& tokens /*i32 [N]*/, const Tensor& weight /*[V, C]*/,
                                 const Tensor& positions /*optional [seq_len, C]*/,
                                 const Tensor& y /*[N, C]*/) = 0;
  virtual void embedding_backward(const Tensor& tokens, const Tensor& dy,
                                  const Tensor& dweight /*+=*/,
                                  const Tensor& dpositions /*optional, +=*/) = 0;
  virtual size_t embedding_backward_workspace(int64_t rows, int64_t vocab_size,
                                              int64_t width) const;

  // ---- images to tokens, tokens to sequences, sequences to a row
  /// Unfolds images: row b P + p of y holds patch p (left to right, then down) of image b, by
  /// channel, row and column of the patch, as PyTorch's convolution orders its weights. Each value
  /// is factor x + offset of its channel.
  virtual void image_patches(int64_t patch_size,
                             const Tensor& images /*u8 [batch, H, W, channels]*/,
                             const Tensor& factors /*[channels], accumulate_dtype*/,
                             const Tensor& offsets /*likewise*/,
                             const Tensor& y /*[batch P, channels patch_size^2]*/) = 0;
  /// y[b] = (prefix, x[b]) + positions, for T = prefix tokens + S.
  virtual void sequence_forward(const Tensor& prefix /*optional [T - S, C]*/,
                                const Tensor& x /*[batch, S, C]*/,
                                const Tensor& positions /*optional [T, C]*/,
                                const Tensor& y /*[batch, T, C]*/) = 0;
  virtual void sequence_backward(const Tensor& dy /*[batch, T, C]*/,
                                 const Tensor& dx /*optional [batch, S, C]*/,
                                 const Tensor& dprefix /*optional, +=*/,
                                 const Tensor& dpositions /*optional, +=*/) = 0;
  /// y[b] = the first token of x[b], or the mean of its tokens.
  virtual void pool_forward(ImagePool pool, const Tensor& x /*[batch, T, C]*/,
                            const Tensor& y /*[batch, C]*/) = 0;
  virtual void pool_backward(ImagePool pool, const Tensor& dy, const Tensor& dx) = 0;

  // ---- linear: y = activation(x weight^T + bias)
  /// pre_activation receives x weight^T + bias for the backward pass; absent when activation is
  /// none.
  virtual void linear_forward(const Tensor& x /*[N, I]*/, const Tensor& weight /*[O, I]*/,
                              const Tensor& bias /*optional [O]*/, Activation activation,
                              const Tensor& pre_activation /*[N, O]*/,
                              const Tensor& y /*[N, O]*/) = 0;
  /// dx (optional) is the gradient of x or, if x = activation(pre_activation), of that
  /// pre_activation [N, I]. dy is that of x weight^T + bias. dbias_before, for which dx and an
  /// activation must be there, is the gradient of the bias that was added in pre_activation: the
  /// sum of dx over its rows, had for nothing while dx is written.
  virtual void linear_backward(const Tensor& x, const Tensor& weight, const Tensor& dy,
                               Activation activation, const Tensor& pre_activation,
                               const Tensor& dx, const Tensor& dweight /*+=*/,
                               const Tensor& dbias /*optional, +=*/,
                               const Tensor& dbias_before /*optional [I], +=*/) = 0;
  virtual size_t linear_backward_workspace(int64_t rows, int64_t in, int64_t out) const;

  /// y = activation(x), as linear_forward computes it from its pre_activation; not for none.
  virtual void activation_forward(Activation activation, const Tensor& x /*[N, F]*/,
                                  const Tensor& y /*[N, F]*/) = 0;

  // ---- gated activation (SwiGLU, Shazeer 2020): y = silu(gate) * up, where a row of x is (gate,
  // up)
  virtual void swiglu_forward(const Tensor& x /*[N, 2F]*/, const Tensor& y /*[N, F]*/) = 0;
  virtual void swiglu_backward(const Tensor& x, const Tensor& dy, const Tensor& dx /*[N, 2F]*/) = 0;

  // ---- gated linear unit (Dauphin et al. 2017): y = value * sigmoid(gate), where a row of x is
  // (value, gate)
  virtual void glu_forward(const Tensor& x /*[N, 2F]*/, const Tensor& y /*[N, F]*/) = 0;
  virtual void glu_backward(const Tensor& x, const Tensor& dy, const Tensor& dx /*[N, 2F]*/) = 0;

  // ---- windows of frames, so that a convolution over time is a linear layer on rows of y
  /// Row (b, t) of y holds frames t stride - padding ... + kernel - 1 of sequence b, one behind the
  /// other; frames before the first and from lengths[b] on read as 0.
  virtual void unfold(const UnfoldDesc& desc, const Tensor& x /*f32 [batch, in_len, channels]*/,
                      const Tensor& lengths /*i32 [batch]*/,
                      const Tensor& y /*[batch * out_len, kernel * channels]*/) = 0;

  // ---- sinusoids (Vaswani et al. 2017) at any real position, as augmented positions need them
  /// Row n of x gets (sin, cos)(positions[n] * 10000^(-2i/C)) added, i < C/2 each.
  virtual void add_sinusoids(const Tensor& positions /*f32 [N]*/, const Tensor& x /*[N, C]*/) = 0;

  // ---- residual add and norm: residual_out = residual + branch;  y = norm(residual_out) * weight
  // + bias
  /// Without a branch delta, residual_out is absent and y = norm(residual). residual_out may be
  /// residual itself.
  virtual void residual_norm_forward(
      const NormDesc& desc, const Tensor& residual /*[N, C]*/, const ResidualBranch& branch,
      const Tensor& residual_out /*[N, C]*/, const Tensor& weight /*[C]*/,
      const Tensor& bias /*optional [C]*/, const Tensor& y /*[N, C]*/,
      const Tensor& mean /*[N], layernorm only*/, const Tensor& rstd /*[N]*/) = 0;
  /// d_residual holds the gradient of residual_out from above (or, if !accumulate, nothing) and
  /// gets that of norm(...) added: on return it is the gradient of residual_out and of residual.
  /// d_delta (optional; not needed when the branch has no scales, being equal to d_residual)
  /// receives that of branch.delta, which is read only for d_layer_scale.
  virtual void residual_norm_backward(const NormDesc& desc,
                                      const Tensor& x /*residual_out of forward*/,
                                      const Tensor& weight, const Tensor& mean, const Tensor& rstd,
                                      const Tensor& dy, bool accumulate, const Tensor& d_residual,
                                      const Tensor& dweight /*+=*/,
                                      const Tensor& dbias /*optional, +=*/,
                                      const ResidualBranch& branch, const Tensor& d_delta,
                                      const Tensor& d_layer_scale /*optional, +=*/) = 0;
  virtual size_t residual_norm_backward_workspace(int64_t rows, int64_t width) const;

  // ---- per-head RMSNorm of q and k, then rotary position embedding (Su et al. 2021; halves
  // rotated, as in LLaMA)
  /// qkv rows are (heads q, kv_heads k, kv_heads v) of head_dim; qk_out rows are (heads q, kv_heads
  /// k). Weights absent: no norm. rope absent: no rotation; else its rows are (cos[head_dim/2],
  /// sin[head_dim/2]) by position.
  virtual void qk_norm_rope_forward(
      const QkNormRopeDesc& desc, const Tensor& qkv, const Tensor& q_weight /*[head_dim]*/,
      const Tensor& k_weight, const Tensor& rope /*[seq_len, head_dim], accumulate_dtype*/,
      const Tensor& qk_out, const Tensor& rstd /*[N, heads + kv_heads], with the norm*/) = 0;
  /// d_qkv: on entry its q and k columns hold the gradient of qk_out, on return that of qkv; its v
  /// columns are left alone.
  virtual void qk_norm_rope_backward(const QkNormRopeDesc& desc, const Tensor& qkv,
                                     const Tensor& q_weight, const Tensor& k_weight,
                                     const Tensor& rope, const Tensor& rstd, const Tensor& d_qkv,
                                     const Tensor& dq_weight /*+=*/,
                                     const Tensor& dk_weight /*+=*/) = 0;
  virtual size_t qk_norm_rope_backward_workspace(const QkNormRopeDesc& desc) const;

  // ---- attention: out = P v, P = sigmoid(S) or softmax(S); memory linear in seq_len in both
  // directions
  /// log_sum_exp [batch, heads, seq_len] is written for softmax (the backward needs it); absent for
  /// sigmoid. row_sum (optional, same shape) receives the sum over keys of P. A query that sees no
  /// key gets 0.
  virtual void attention_forward(const AttentionDesc& desc, const AttentionInputs& inputs,
                                 const HeadsView& out, const Tensor& log_sum_exp,
                                 const Tensor& row_sum) = 0;
  virtual size_t attention_forward_workspace(const AttentionDesc& desc) const;
  /// out and log_sum_exp are the forward's; only softmax reads them. dq, dk and dv have the shapes
  /// of q, k and v.
  virtual void attention_backward(const AttentionDesc& desc, const AttentionInputs& inputs,
                                  const HeadsView& out, const Tensor& log_sum_exp,
                                  const HeadsView& d_out, const HeadsView& dq, const HeadsView& dk,
                                  const HeadsView& dv,
                                  const Tensor& d_head_bias /*optional [heads], +=*/) = 0;
  virtual size_t attention_backward_workspace(const AttentionDesc& desc) const;

  // ---- vocabulary projection and cross-entropy, in chunks of rows that never hold all the logits
  /// logits = x weight^T. Adds to sums [loss_sum_slots]; with dx and dweight (both or neither) also
  /// their gradients, times desc.gradient_scale. Rows whose target is ignore_index count for
  /// nothing.
  virtual void vocab_cross_entropy(const CrossEntropyDesc& desc, const Tensor& x /*[N, C]*/,
                                   const Tensor& weight /*[V, C]*/,
                                   const Tensor& targets /*i32 [N]*/, const Tensor& sums,
                                   const Tensor& dx /*optional*/,
                                   const Tensor& dweight /*optional, +=*/) = 0;
  virtual size_t vocab_cross_entropy_workspace(const CrossEntropyDesc& desc, int64_t rows,
                                               int64_t width, int64_t vocab_size) const;

  // ---- cross-entropy of few classes, against one class or a distribution over them
  /// For each row whose label is not negative, adds to sums [class_sum_slots]: -targets . log p
  /// (the objective; without targets nll), -log p[label], 1, and whether the label is the largest
  /// and whether it is among the five largest logits (of equal ones the first is the larger).
  /// d_logits (optional) gets the gradient of the objective times gradient_scale; zeros where the
  /// label is negative.
  virtual void classification_loss(double gradient_scale, const Tensor& logits /*[N, V]*/,
                                   const Tensor& labels /*i32 [N]*/,
                                   const Tensor& targets /*optional [N, V], accumulate_dtype; rows
                                                           add up to 1*/
                                   ,
                                   const Tensor& sums, const Tensor& d_logits) = 0;
  virtual size_t classification_loss_workspace(int64_t rows) const;

  // ---- connectionist temporal classification (Graves et al. 2006), in log space
  /// losses[b] = -log p(targets of b | logits of its first frame_lengths[b] frames), infinite where
  /// the frames are fewer than the targets and the blanks between equal neighbours: such a sequence
  /// is counted in its own sum and has no gradient. Adds to sums [ctc_sum_slots]. d_logits
  /// (optional) gets the gradient of the summed losses times desc.gradient_scale, 0 from
  /// frame_lengths[b] on. Frames that are enough but leave the targets no probability, by a logit
  /// of -inf, are counted as any: their loss is infinite and their gradient has NaN, so that the
  /// optimizer skips the step.
  virtual void ctc_loss(const CtcDesc& desc, const Tensor& logits /*[batch * seq_len, V]*/,
                        const Tensor& frame_lengths /*i32 [batch]*/,
                        const Tensor& targets /*i32 [batch, max_targets], not blank*/,
                        const Tensor& target_lengths /*i32 [batch]*/,
                        const Tensor& losses /*[batch]*/, const Tensor& sums,
                        const Tensor& d_logits) = 0;
  /// Throws Error where max_targets are more than the backend can take.
  virtual size_t ctc_loss_workspace(const CtcDesc& desc) const;

  // ---- randomness, from Philox at (stream, the step of set_random_step): nothing is kept for
  // backward
  /// y = kept ? x / (1 - p) : 0; the backward is the same call on gradients. y may be x. Element i
  /// uses word i%4 of block i/4; it is kept where uniform >= p, both as float.
  virtual void dropout(const RandomStream& stream, double p, const Tensor& x, const Tensor& y) = 0;
  /// scale[b] = kept ? 1 / (1 - p) : 0 (Huang et al. 2016), kept as above with block b, word 0.
  virtual void stochastic_depth(const RandomStream& stream, double p,
                                const Tensor& scale /*[batch]*/) = 0;

  /// scale[b] = kept ? 1 : 0, the same for all: a layer stays or goes as a whole (Fan et al. 2020),
  /// without rescaling; kept as above with block 0, word 0.
  virtual void layer_drop(const RandomStream& stream, double p,
                          const Tensor& scale /*[batch]*/) = 0;

  // ---- reductions to one number, deterministic
  virtual void root_mean_square(const Tensor& x,
                                const Tensor& result /*[1], accumulate_dtype*/) = 0;
  virtual void mean(const Tensor& x /*accumulate_dtype*/, const Tensor& result /*[1]*/) = 0;
  virtual void sum_of_squares(const Tensor& x /*accumulate_dtype*/,
                              const Tensor& result /*[1]*/) = 0;
  virtual size_t reduction_workspace(int64_t numel) const;
  /// The same over the first lengths[b] rows of each sequence alone: x is [batch * seq_len, C] for
  /// the one and [batch, heads, seq_len] for the other. 0 where all lengths are 0.
  virtual void sequence_root_mean_square(const Tensor& x, const Tensor& lengths /*i32 [batch]*/,
                                         const Tensor& result /*[1]*/) = 0;
  virtual void sequence_mean(const Tensor& x /*accumulate_dtype*/,
                             const Tensor& lengths /*i32 [batch]*/,
                             const Tensor& result /*[1]*/) = 0;
  /// Of batch sequences for the one, of batch * heads for the other.
  virtual size_t sequence_reduction_workspace(int64_t sequences) const;

  // ---- optimizer over flat ranges of parameters, all of accumulate_dtype
  /// From sums of squares by group: global norm, clip scale (1 if max_norm is 0), finiteness and
  /// step count into control.
  virtual void clip_factor(const Tensor& group_sums /*[groups]*/, double max_norm,
                           const Tensor& control /*[control_slots]*/) = 0;
  /// AdamW (Loshchilov & Hutter 2019) with g = clip_scale * gradient:
  ///   coupled:   w -= lr rate_scale (m^ / (sqrt(v^) + eps) + weight_decay w)
  ///   decoupled: w -= lr rate_scale m^ / (sqrt(v^) + eps) + schedule weight_decay w
  /// compute_weights (optional) receives w in compute_dtype.
  virtual void adamw(const AdamWDesc& desc, const Tensor& control, const Tensor& gradients,
                     const Tensor& weights, const Tensor& first_moment, const Tensor& second_moment,
                     const Tensor& compute_weights) = 0;
  /// average += (1 - decay) (weights - average), unless control says that the step was not finite.
  virtual void ema_update(double decay, const Tensor& control, const Tensor& weights,
                          const Tensor& average) = 0;

 protected:
  Tensor workspace_;
  bool deterministic_ = true;
};

// A backend that runs where the host does, one operation after the other.
inline std::optional<MemoryUse> Ops::memory_use() const { return std::nullopt; }
inline bool Ops::can_capture() const { return false; }
inline std::unique_ptr<CapturedWork> Ops::capture(const std::function<void()>&) {
  throw Error("the {} backend cannot capture work", name());
}

// A backend that needs no scratch for an operation leaves these as they are.
inline size_t Ops::embedding_backward_workspace(int64_t, int64_t, int64_t) const { return 0; }
inline size_t Ops::linear_backward_workspace(int64_t, int64_t, int64_t) const { return 0; }
inline size_t Ops::residual_norm_backward_workspace(int64_t, int64_t) const { return 0; }
inline size_t Ops::qk_norm_rope_backward_workspace(const QkNormRopeDesc&) const { return 0; }
inline size_t Ops::attention_forward_workspace(const AttentionDesc&) const { return 0; }
inline size_t Ops::attention_backward_workspace(const AttentionDesc&) const { return 0; }
inline size_t Ops::vocab_cross_entropy_workspace(const CrossEntropyDesc&, int64_t, int64_t,
                                                 int64_t) const {
  return 0;
}
inline size_t Ops::classification_loss_workspace(int64_t) const { return 0; }
inline size_t Ops::ctc_loss_workspace(const CtcDesc&) const { return 0; }
inline size_t Ops::reduction_workspace(int64_t) const { return 0; }
inline size_t Ops::sequence_reduction_workspace(int64_t) const { return 0; }

}  // namespace sigtrain
