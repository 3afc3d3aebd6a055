// Every operation a layer is made of, forward and backward, against PyTorch.
#include "models/golden.h"
#include "nn/positions.h"

namespace sigtrain {
namespace {

/// An all-zero buffer, for gradients that are added to.
template <typename Real>
Buffer<Real> zeros(Shape shape) {
  Buffer<Real> buffer(shape);
  std::fill(buffer.values.begin(), buffer.values.end(), Real{0});
  return buffer;
}

template <typename Real>
Buffer<Real> zeros_like(const Buffer<Real>& other) {
  return other.present ? zeros<Real>(other.shape) : Buffer<Real>();
}

template <typename Real>
class GoldenLayers : public ::testing::Test {
 protected:
  /// The values of the case at hand.
  Buffer<Real> in(const std::string& name) const { return golden_.read<Real>(name_of_case(name)); }
  Buffer<Real> in_if(const std::string& name) const {
    return golden_.read_if<Real>(name_of_case(name));
  }
  Buffer<int32_t> integers(const std::string& name) const {
    return golden_.integers(name_of_case(name));
  }
  bool has(const std::string& name) const { return golden_.has(name_of_case(name)); }
  void expect(const std::string& name, const Buffer<Real>& actual) const {
    expect_golden(golden_, name_of_case(name), actual, roundings);
  }
  std::string name_of_case(const std::string& name) const { return case_ + "." + name; }

  void check_linear(Activation activation);
  void check_norm(NormKind kind, bool with_branch);
  void check_qk_norm_rope();
  void check_attention(AttentionKind kind);
  void check_cross_entropy(int64_t chunk_rows);

  // Errors of either sign mostly cancel: the longest sums here, of 150 terms, come to about 10.
  static constexpr double roundings = 64;

  CpuOps<Real> ops_;
  GoldenFile golden_{"layers.safetensors"};
  std::string case_;
};

using Reals = ::testing::Types<float, double>;
TYPED_TEST_SUITE(GoldenLayers, Reals);

// ---- linear

template <typename Real>
void GoldenLayers<Real>::check_linear(Activation activation) {
  Buffer<Real> x = in("x"), weight1 = in("weight1"), bias1 = in("bias1"), weight2 = in("weight2"),
               bias2 = in("bias2"), dy = in("d_y");
  const int64_t rows = x.shape[0], hidden = weight1.shape[0];
  Buffer<Real> pre({rows, hidden}), h({rows, hidden}), y(dy.shape);
  const bool is_none = activation == Activation::none;
  ops_.linear_forward(x, weight1, bias1, activation, is_none ? Tensor{} : Tensor(pre), h);
  ops_.linear_forward(h, weight2, bias2, Activation::none, {}, y);
  expect("y", y);

  Buffer<Real> dx(x.shape), d_pre(pre.shape),
      dweight1 = zeros_like(weight1), dbias1 = zeros_like(bias1), dweight2 = zeros_like(weight2),
      dbias2 = zeros_like(bias2);
  const ExactWorkspace workspace(
      ops_, std::max(ops_.linear_backward_workspace(rows, hidden, dy.shape[1]),
                     ops_.linear_backward_workspace(rows, x.shape[1], hidden)));
  // With an activation the first layer's bias gets its gradient from the second layer's backward.
  const Tensor from_second = is_none ? Tensor{} : Tensor(dbias1);
  ops_.linear_backward(h, weight2, dy, activation, is_none ? Tensor{} : Tensor(pre), d_pre,
                       dweight2, dbias2, from_second);
  ops_.linear_backward(x, weight1, d_pre, Activation::none, {}, dx, dweight1,
                       is_none ? Tensor(dbias1) : Tensor{}, {});
  expect("dx", dx);
  expect("dweight1", dweight1);
  expect("dbias1", dbias1);
  expect("dweight2", dweight2);
  expect("dbias2", dbias2);
}

TYPED_TEST(GoldenLayers, LinearWithoutActivation) {
  this->case_ = "linear_none";
  this->check_linear(Activation::none);
}
TYPED_TEST(GoldenLayers, LinearGelu) {
  this->case_ = "linear_gelu";
  this->check_linear(Activation::gelu);
}
TYPED_TEST(GoldenLayers, LinearReluSquared) {
  this->case_ = "linear_relu2";
  this->check_linear(Activation::relu2);
}

// ---- norms on the residual stream

template <typename Real>
void GoldenLayers<Real>::check_norm(NormKind kind, bool with_branch) {
  const NormDesc desc{kind, 1e-5};
  Buffer<Real> residual = in("residual"), weight = in("weight"), bias = in_if("bias"),
               delta = in_if("delta"), layer_scale = in_if("layer_scale"), dy = in("d_y"),
               sample_scale = golden_.read<Real>("sample_scale");
  const int64_t rows = residual.shape[0], width = residual.shape[1];
  const ResidualBranch branch{delta, layer_scale, with_branch ? Tensor(sample_scale) : Tensor{}};
  Buffer<Real> residual_out = with_branch ? Buffer<Real>(residual.shape) : Buffer<Real>(),
               y(residual.shape), rstd({rows}),
               mean = kind == NormKind::layernorm ? Buffer<Real>({rows}) : Buffer<Real>();
  ops_.residual_norm_forward(desc, residual, branch, residual_out, weight, bias, y, mean, rstd);
  expect("y", y);
  if (with_branch) expect("residual_out", residual_out);

  Buffer<Real> d_residual = with_branch ? in("d_residual_out") : Buffer<Real>(residual.shape);
  Buffer<Real> dweight = zeros_like(weight), dbias = zeros_like(bias),
               d_delta = with_branch ? Buffer<Real>(delta.shape) : Buffer<Real>(),
               d_layer_scale = zeros_like(layer_scale);
  const ExactWorkspace workspace(ops_, ops_.residual_norm_backward_workspace(rows, width));
  ops_.residual_norm_backward(desc, with_branch ? Tensor(residual_out) : Tensor(residual), weight,
                              mean, rstd, dy, with_branch, d_residual, dweight, dbias, branch,
                              d_delta, d_layer_scale);
  expect("dresidual", d_residual);
  expect("dweight", dweight);
  if (bias.present) expect("dbias", dbias);
  if (with_branch) {
    expect("ddelta", d_delta);
    expect("dlayer_scale", d_layer_scale);
  }
}

TYPED_TEST(GoldenLayers, RmsNorm) {
  this->case_ = "rmsnorm_alone";
  this->check_norm(NormKind::rmsnorm, false);
}
TYPED_TEST(GoldenLayers, RmsNormOfAScaledBranch) {
  this->case_ = "rmsnorm_branch";
  this->check_norm(NormKind::rmsnorm, true);
}
TYPED_TEST(GoldenLayers, LayerNorm) {
  this->case_ = "layernorm_alone";
  this->check_norm(NormKind::layernorm, false);
}
TYPED_TEST(GoldenLayers, LayerNormOfAScaledBranch) {
  this->case_ = "layernorm_branch";
  this->check_norm(NormKind::layernorm, true);
}

// ---- gated activation

TYPED_TEST(GoldenLayers, SwiGlu) {
  this->case_ = "swiglu";
  Buffer<TypeParam> x = this->in("x"), dy = this->in("d_y"), y(dy.shape), dx(x.shape);
  this->ops_.swiglu_forward(x, y);
  this->ops_.swiglu_backward(x, dy, dx);
  this->expect("y", y);
  this->expect("dx", dx);
}

// ---- QK-norm and RoPE

template <typename Real>
void GoldenLayers<Real>::check_qk_norm_rope() {
  const QkNormRopeDesc desc{2, 5, 4, 2, 6, 1e-5};
  const bool normed = case_ != "qk_rope", rotated = case_ != "qk_norm";
  const int64_t rows = desc.batch * desc.seq_len, q_and_k = desc.heads + desc.kv_heads;
  Buffer<Real> qkv = in("qkv"), q_weight = in_if("q_weight"), k_weight = in_if("k_weight"),
               d_qk = in("d_qk"), qk(d_qk.shape), rope, rstd;
  if (normed) rstd = Buffer<Real>({rows, q_and_k});
  if (rotated) {
    rope = Buffer<Real>({desc.seq_len, desc.head_dim});
    const std::vector<double> table = rope_table(desc.seq_len, desc.head_dim, 100.0);
    rope.values.assign(table.begin(), table.end());
  }
  ops_.qk_norm_rope_forward(desc, qkv, q_weight, k_weight, rope, qk, rstd);
  expect("qk", qk);

  // v columns hold what they must keep: zeros, their gradient here.
  Buffer<Real> d_qkv = zeros_like(qkv), dq_weight = zeros_like(q_weight),
               dk_weight = zeros_like(k_weight);
  for (int64_t row = 0; row < rows; ++row)
    std::copy_n(&d_qk[row * d_qk.shape[1]], d_qk.shape[1], &d_qkv[row * qkv.shape[1]]);
  const ExactWorkspace workspace(ops_, ops_.qk_norm_rope_backward_workspace(desc));
  ops_.qk_norm_rope_backward(desc, qkv, q_weight, k_weight, rope, rstd, d_qkv, dq_weight,
                             dk_weight);
  expect("dqkv", d_qkv);
  if (normed) {
    expect("dq_weight", dq_weight);
    expect("dk_weight", dk_weight);
  }
}

TYPED_TEST(GoldenLayers, QkNormAndRope) {
  for (const char* name : {"qk_norm", "qk_rope", "qk_norm_rope"}) {
    this->case_ = name;
    this->check_qk_norm_rope();
  }
}

// ---- attention

template <typename Real>
void GoldenLayers<Real>::check_attention(AttentionKind kind) {
  Buffer<int32_t> sizes = integers("sizes"), mask = integers("mask"), key_lengths;
  if (has("key_lengths")) key_lengths = integers("key_lengths");
  AttentionDesc desc;
  desc.kind = kind;
  desc.batch = sizes[0], desc.seq_len = sizes[1];
  desc.heads = sizes[2], desc.kv_heads = sizes[3], desc.head_dim = sizes[4];
  desc.scale = 1.0 / std::sqrt(static_cast<double>(desc.head_dim));
  desc.bias = in("bias")[0];
  desc.causal = mask[0] != 0;
  desc.window = mask[1];
  Buffer<Real> q = in("q"), k = in("k"), v = in("v"), d_out = in("d_out"),
               head_bias = in_if("head_bias"), slopes;
  if (mask[2] != 0) {
    const std::vector<double> values = alibi_slopes(desc.heads);
    slopes = Buffer<Real>({desc.heads});
    slopes.values.assign(values.begin(), values.end());
  }
  const auto view = [](Buffer<Real>& x) { return HeadsView{x, 0, x.shape[1]}; };
  const AttentionInputs inputs{view(q), view(k), view(v), head_bias, slopes, key_lengths};
  Buffer<Real> out(q.shape), log_sum_exp;
  if (kind == AttentionKind::softmax)
    log_sum_exp = Buffer<Real>({desc.batch, desc.heads, desc.seq_len});
  {
    const ExactWorkspace workspace(ops_, ops_.attention_forward_workspace(desc));
    ops_.attention_forward(desc, inputs, view(out), log_sum_exp, {});
  }
  expect("out", out);

  Buffer<Real> dq(q.shape), dk(k.shape), dv(v.shape), d_head_bias = zeros_like(head_bias);
  {
    const ExactWorkspace workspace(ops_, ops_.attention_backward_workspace(desc));
    ops_.attention_backward(desc, inputs, view(out), log_sum_exp, view(d_out), view(dq), view(dk),
                            view(dv), d_head_bias);
  }
  expect("dq", dq);
  expect("dk", dk);
  expect("dv", dv);
  if (head_bias.present) expect("dhead_bias", d_head_bias);
}

TYPED_TEST(GoldenLayers, SigmoidAttention) {
  for (const char* name :
       {"sigmoid_causal_alibi", "sigmoid_window", "sigmoid_head_bias", "sigmoid_lengths",
        "long_sigmoid_causal_alibi", "long_sigmoid_lengths"}) {
    this->case_ = name;
    this->check_attention(AttentionKind::sigmoid);
  }
}
TYPED_TEST(GoldenLayers, SoftmaxAttention) {
  for (const char* name : {"softmax_causal", "softmax_causal_alibi", "softmax_window",
                           "softmax_lengths", "long_softmax_causal", "long_softmax_lengths"}) {
    this->case_ = name;
    this->check_attention(AttentionKind::softmax);
  }
}

// ---- embedding, loss and position tables

TYPED_TEST(GoldenLayers, Embedding) {
  this->case_ = "embedding";
  Buffer<int32_t> tokens = this->integers("tokens");
  Buffer<TypeParam> weight = this->in("weight"), positions = this->in("positions"),
                    dy = this->in("d_y"), y(dy.shape), dweight = zeros_like(weight),
                    dpositions = zeros_like(positions);
  this->ops_.embedding_forward(tokens, weight, positions, y);
  const ExactWorkspace workspace(this->ops_, this->ops_.embedding_backward_workspace(
                                                 tokens.size(), weight.shape[0], weight.shape[1]));
  this->ops_.embedding_backward(tokens, dy, dweight, dpositions);
  this->expect("y", y);
  this->expect("dweight", dweight);
  this->expect("dpositions", dpositions);
}

template <typename Real>
void GoldenLayers<Real>::check_cross_entropy(int64_t chunk_rows) {
  Buffer<Real> x = in("x"), weight = in("weight"), dx(x.shape), dweight = zeros_like(weight),
               sums = zeros<Real>({loss_sum_slots});
  Buffer<int32_t> targets = integers("targets");
  const Buffer<double> settings = golden_.template read<double>(name_of_case("settings"));
  const double count = golden_.template read<double>(name_of_case("sums"))[loss_sum_count];
  const CrossEntropyDesc desc{-1, settings[0], settings[1], chunk_rows, 1.0 / count};
  const ExactWorkspace workspace(
      ops_, ops_.vocab_cross_entropy_workspace(desc, x.shape[0], x.shape[1], weight.shape[0]));
  ops_.vocab_cross_entropy(desc, x, weight, targets, sums, dx, dweight);
  expect("sums", sums);
  expect("dx", dx);
  expect("dweight", dweight);
}

TYPED_TEST(GoldenLayers, CrossEntropy) {
  for (const char* name : {"cross_entropy_plain", "cross_entropy_smoothing", "cross_entropy_z_loss",
                           "cross_entropy_both"}) {
    this->case_ = name;
    this->check_cross_entropy(0);
    this->check_cross_entropy(4);
  }
}

TEST(GoldenPositions, Tables) {
  const GoldenFile golden("layers.safetensors");
  const auto expect_table = [&](const std::string& name, const std::vector<double>& values) {
    Buffer<double> actual({static_cast<int64_t>(values.size())});
    actual.values = values;
    expect_close(actual, golden.read<double>(name), 10, name);
  };
  expect_table("alibi_slopes_8", alibi_slopes(8));
  expect_table("alibi_slopes_12", alibi_slopes(12));
  expect_table("sincos_positions", sincos_table(5, 6));
}

}  // namespace
}  // namespace sigtrain
