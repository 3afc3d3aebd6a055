// PlanningOps stands between every run and wrong shapes: each argument of each operation, made
// wrong in turn, is refused by name.
#include "ops/planning_ops.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>

#include "../file_testing.h"
#include "ops/cpu/cpu_ops.h"

namespace sigtrain {
namespace {

using testing::HasSubstr;

constexpr int64_t N = 10, B = 2, T = 5, C = 8, V = 11, I = 5, F = 4, H = 4, K = 2, D = 2, P = 3;

Tensor floats(Shape shape) { return {nullptr, DType::f32, shape}; }
Tensor ints(Shape shape) { return {nullptr, DType::i32, shape}; }

// The arguments of a call by name. A case changes one of them.
class Arguments {
 public:
  Arguments(std::initializer_list<std::pair<const std::string, Tensor>> tensors)
      : tensors_(tensors) {}
  const Tensor& operator[](const std::string& name) const { return tensors_.at(name); }
  Tensor& at(const std::string& name) { return tensors_.at(name); }
  auto begin() const { return tensors_.begin(); }
  auto end() const { return tensors_.end(); }

 private:
  std::map<std::string, Tensor> tensors_;
};

struct Operation {
  std::string name;
  Arguments arguments;
  std::function<void(PlanningOps&, const Arguments&)> call;
  std::vector<std::string> optional;  // may be left out
};

NormDesc layernorm() { return {NormKind::layernorm, 1e-5}; }
QkNormRopeDesc qk_desc() { return {B, T, H, K, D, 1e-5}; }
AttentionDesc attention_desc() {
  return {AttentionKind::softmax, B, T, H, K, D, 1.0, 0.0, true, 0};
}
AttentionInputs attention_inputs(const Arguments& a) {
  AttentionInputs inputs;
  inputs.q = {a["q"], 0, H * D};
  inputs.k = {a["k"], 0, K * D};
  inputs.v = {a["v"], 0, K * D};
  inputs.head_bias = a["head_bias"];
  inputs.alibi_slopes = a["alibi_slopes"];
  inputs.key_lengths = a["key_lengths"];
  return inputs;
}

std::vector<Operation> operations() {
  const Tensor rows_by_width = floats({N, C}), width = floats({C}), rows = floats({N});
  const Tensor one = floats({1}), control = floats({control_slots});
  const Tensor queries = floats({N, H * D}), keys = floats({N, K * D});
  const Tensor per_query = floats({B, H, T});
  return {
      {"embedding_forward",
       {{"tokens", ints({N})},
        {"weight", floats({V, C})},
        {"positions", floats({T, C})},
        {"y", rows_by_width}},
       [](PlanningOps& ops, const Arguments& a) {
         ops.embedding_forward(a["tokens"], a["weight"], a["positions"], a["y"]);
       },
       {"positions"}},
      {"embedding_backward",
       {{"tokens", ints({N})},
        {"dy", rows_by_width},
        {"dweight", floats({V, C})},
        {"dpositions", floats({T, C})}},
       [](PlanningOps& ops, const Arguments& a) {
         ops.embedding_backward(a["tokens"], a["dy"], a["dweight"], a["dpositions"]);
       },
       {"dpositions"}},
      {"linear_forward",
       {{"x", floats({N, I})},
        {"weight", floats({C, I})},
        {"bias", width},
        {"pre_activation", rows_by_width},
        {"y", rows_by_width}},
       [](PlanningOps& ops, const Arguments& a) {
         ops.linear_forward(a["x"], a["weight"], a["bias"], Activation::gelu, a["pre_activation"],
                            a["y"]);
       },
       {"bias"}},
      {"linear_backward",
       {{"x", floats({N, I})},
        {"weight", floats({C, I})},
        {"dy", rows_by_width},
        {"pre_activation", floats({N, I})},
        {"dx", floats({N, I})},
        {"dweight", floats({C, I})},
        {"dbias", width},
        {"dbias_before", floats({I})}},
       [](PlanningOps& ops, const Arguments& a) {
         ops.linear_backward(a["x"], a["weight"], a["dy"], Activation::relu2, a["pre_activation"],
                             a["dx"], a["dweight"], a["dbias"], a["dbias_before"]);
       },
       {"dbias", "dbias_before"}},
      {"linear_backward of the first layer",
       {{"x", floats({N, I})},
        {"weight", floats({C, I})},
        {"dy", rows_by_width},
        {"dx", floats({N, I})},
        {"dweight", floats({C, I})}},
       [](PlanningOps& ops, const Arguments& a) {
         ops.linear_backward(a["x"], a["weight"], a["dy"], Activation::none, {}, a["dx"],
                             a["dweight"], {}, {});
       },
       {"dx"}},
      {"swiglu_forward",
       {{"x", floats({N, 2 * F})}, {"y", floats({N, F})}},
       [](PlanningOps& ops, const Arguments& a) { ops.swiglu_forward(a["x"], a["y"]); },
       {}},
      {"swiglu_backward",
       {{"x", floats({N, 2 * F})}, {"dy", floats({N, F})}, {"dx", floats({N, 2 * F})}},
       [](PlanningOps& ops, const Arguments& a) { ops.swiglu_backward(a["x"], a["dy"], a["dx"]); },
       {}},
      {"glu_forward",
       {{"x", floats({N, 2 * F})}, {"y", floats({N, F})}},
       [](PlanningOps& ops, const Arguments& a) { ops.glu_forward(a["x"], a["y"]); },
       {}},
      {"glu_backward",
       {{"x", floats({N, 2 * F})}, {"dy", floats({N, F})}, {"dx", floats({N, 2 * F})}},
       [](PlanningOps& ops, const Arguments& a) { ops.glu_backward(a["x"], a["dy"], a["dx"]); },
       {}},
      {"unfold",
       {{"x", floats({B, 3 * T, C})}, {"lengths", ints({B})}, {"y", floats({N, 7 * C})}},
       [](PlanningOps& ops, const Arguments& a) {
         ops.unfold({B, 3 * T, T, C, 7, 3, 3}, a["x"], a["lengths"], a["y"]);
       },
       {}},
      {"add_sinusoids",
       {{"positions", rows}, {"x", rows_by_width}},
       [](PlanningOps& ops, const Arguments& a) { ops.add_sinusoids(a["positions"], a["x"]); },
       {}},
      {"residual_norm_forward",
       {{"residual", rows_by_width},
        {"delta", rows_by_width},
        {"layer_scale", width},
        {"sample_scale", floats({B})},
        {"residual_out", rows_by_width},
        {"weight", width},
        {"bias", width},
        {"y", rows_by_width},
        {"mean", rows},
        {"rstd", rows}},
       [](PlanningOps& ops, const Arguments& a) {
         ops.residual_norm_forward(
             layernorm(), a["residual"], {a["delta"], a["layer_scale"], a["sample_scale"]},
             a["residual_out"], a["weight"], a["bias"], a["y"], a["mean"], a["rstd"]);
       },
       {"delta", "layer_scale", "sample_scale", "bias"}},
      {"residual_norm_backward",
       {{"x", rows_by_width},
        {"weight", width},
        {"mean", rows},
        {"rstd", rows},
        {"dy", rows_by_width},
        {"d_residual", rows_by_width},
        {"dweight", width},
        {"dbias", width},
        {"delta", rows_by_width},
        {"layer_scale", width},
        {"sample_scale", floats({B})},
        {"d_delta", rows_by_width},
        {"d_layer_scale", width}},
       [](PlanningOps& ops, const Arguments& a) {
         ops.residual_norm_backward(layernorm(), a["x"], a["weight"], a["mean"], a["rstd"], a["dy"],
                                    true, a["d_residual"], a["dweight"], a["dbias"],
                                    {a["delta"], a["layer_scale"], a["sample_scale"]}, a["d_delta"],
                                    a["d_layer_scale"]);
       },
       {"delta", "layer_scale", "sample_scale", "dbias"}},
      {"qk_norm_rope_forward",
       {{"qkv", floats({N, (H + 2 * K) * D})},
        {"q_weight", floats({D})},
        {"k_weight", floats({D})},
        {"rope", floats({T, D})},
        {"qk_out", floats({N, (H + K) * D})},
        {"rstd", floats({N, H + K})}},
       [](PlanningOps& ops, const Arguments& a) {
         ops.qk_norm_rope_forward(qk_desc(), a["qkv"], a["q_weight"], a["k_weight"], a["rope"],
                                  a["qk_out"], a["rstd"]);
       },
       {"rope"}},
      {"qk_norm_rope_backward",
       {{"qkv", floats({N, (H + 2 * K) * D})},
        {"q_weight", floats({D})},
        {"k_weight", floats({D})},
        {"rope", floats({T, D})},
        {"rstd", floats({N, H + K})},
        {"d_qkv", floats({N, (H + 2 * K) * D})},
        {"dq_weight", floats({D})},
        {"dk_weight", floats({D})}},
       [](PlanningOps& ops, const Arguments& a) {
         ops.qk_norm_rope_backward(qk_desc(), a["qkv"], a["q_weight"], a["k_weight"], a["rope"],
                                   a["rstd"], a["d_qkv"], a["dq_weight"], a["dk_weight"]);
       },
       {"rope"}},
      {"attention_forward",
       {{"q", queries},
        {"k", keys},
        {"v", keys},
        {"head_bias", floats({H})},
        {"alibi_slopes", floats({H})},
        {"key_lengths", ints({B})},
        {"out", queries},
        {"log_sum_exp", per_query},
        {"row_sum", per_query}},
       [](PlanningOps& ops, const Arguments& a) {
         ops.attention_forward(attention_desc(), attention_inputs(a), {a["out"], 0, H * D},
                               a["log_sum_exp"], a["row_sum"]);
       },
       {"head_bias", "alibi_slopes", "key_lengths", "row_sum"}},
      {"attention_backward",
       {{"q", queries},
        {"k", keys},
        {"v", keys},
        {"head_bias", floats({H})},
        {"alibi_slopes", floats({H})},
        {"key_lengths", ints({B})},
        {"out", queries},
        {"log_sum_exp", per_query},
        {"d_out", queries},
        {"dq", queries},
        {"dk", keys},
        {"dv", keys},
        {"d_head_bias", floats({H})}},
       [](PlanningOps& ops, const Arguments& a) {
         ops.attention_backward(attention_desc(), attention_inputs(a), {a["out"], 0, H * D},
                                a["log_sum_exp"], {a["d_out"], 0, H * D}, {a["dq"], 0, H * D},
                                {a["dk"], 0, K * D}, {a["dv"], 0, K * D}, a["d_head_bias"]);
       },
       {"head_bias", "alibi_slopes", "key_lengths", "d_head_bias"}},
      {"vocab_cross_entropy",
       {{"x", rows_by_width},
        {"weight", floats({V, C})},
        {"targets", ints({N})},
        {"sums", floats({loss_sum_slots})},
        {"dx", rows_by_width},
        {"dweight", floats({V, C})}},
       [](PlanningOps& ops, const Arguments& a) {
         ops.vocab_cross_entropy({}, a["x"], a["weight"], a["targets"], a["sums"], a["dx"],
                                 a["dweight"]);
       },
       {}},
      {"image_patches",
       {{"images", {nullptr, DType::u8, {B, 2 * P, 3 * P, K}}},
        {"factors", floats({K})},
        {"offsets", floats({K})},
        {"y", floats({B * 6, K * P * P})}},
       [](PlanningOps& ops, const Arguments& a) {
         ops.image_patches(P, a["images"], a["factors"], a["offsets"], a["y"]);
       },
       {}},
      {"sequence_forward",
       {{"prefix", floats({1, C})},
        {"x", floats({B, T - 1, C})},
        {"positions", floats({T, C})},
        {"y", floats({B, T, C})}},
       [](PlanningOps& ops, const Arguments& a) {
         ops.sequence_forward(a["prefix"], a["x"], a["positions"], a["y"]);
       },
       {"positions"}},
      {"sequence_backward",
       {{"dy", floats({B, T, C})},
        {"dx", floats({B, T - 1, C})},
        {"dprefix", floats({1, C})},
        {"dpositions", floats({T, C})}},
       [](PlanningOps& ops, const Arguments& a) {
         ops.sequence_backward(a["dy"], a["dx"], a["dprefix"], a["dpositions"]);
       },
       {"dx", "dpositions"}},
      {"pool_forward",
       {{"x", floats({B, T, C})}, {"y", floats({B, C})}},
       [](PlanningOps& ops, const Arguments& a) {
         ops.pool_forward(ImagePool::mean, a["x"], a["y"]);
       },
       {}},
      {"pool_backward",
       {{"dy", floats({B, C})}, {"dx", floats({B, T, C})}},
       [](PlanningOps& ops, const Arguments& a) {
         ops.pool_backward(ImagePool::mean, a["dy"], a["dx"]);
       },
       {}},
      {"classification_loss",
       {{"logits", rows_by_width},
        {"labels", ints({N})},
        {"targets", rows_by_width},
        {"sums", floats({class_sum_slots})},
        {"d_logits", rows_by_width}},
       [](PlanningOps& ops, const Arguments& a) {
         ops.classification_loss(1.0, a["logits"], a["labels"], a["targets"], a["sums"],
                                 a["d_logits"]);
       },
       {"targets", "d_logits"}},
      {"ctc_loss",
       {{"logits", floats({N, V})},
        {"frame_lengths", ints({B})},
        {"targets", ints({B, 3})},
        {"target_lengths", ints({B})},
        {"losses", floats({B})},
        {"sums", floats({ctc_sum_slots})},
        {"d_logits", floats({N, V})}},
       [](PlanningOps& ops, const Arguments& a) {
         ops.ctc_loss({B, T, V, 3, 0, 1.0}, a["logits"], a["frame_lengths"], a["targets"],
                      a["target_lengths"], a["losses"], a["sums"], a["d_logits"]);
       },
       {"d_logits"}},
      {"dropout",
       {{"x", rows_by_width}, {"y", rows_by_width}},
       [](PlanningOps& ops, const Arguments& a) { ops.dropout({}, 0.1, a["x"], a["y"]); },
       {}},
      {"stochastic_depth",
       {{"scale", floats({B})}},
       [](PlanningOps& ops, const Arguments& a) { ops.stochastic_depth({}, 0.1, a["scale"]); },
       {}},
      {"layer_drop",
       {{"scale", floats({B})}},
       [](PlanningOps& ops, const Arguments& a) { ops.layer_drop({}, 0.1, a["scale"]); },
       {}},
      {"add",
       {{"x", rows_by_width}, {"y", rows_by_width}},
       [](PlanningOps& ops, const Arguments& a) { ops.add(a["x"], a["y"]); },
       {}},
      {"root_mean_square",
       {{"x", rows_by_width}, {"result", one}},
       [](PlanningOps& ops, const Arguments& a) { ops.root_mean_square(a["x"], a["result"]); },
       {}},
      {"mean",
       {{"x", rows_by_width}, {"result", one}},
       [](PlanningOps& ops, const Arguments& a) { ops.mean(a["x"], a["result"]); },
       {}},
      {"sum_of_squares",
       {{"x", rows_by_width}, {"result", one}},
       [](PlanningOps& ops, const Arguments& a) { ops.sum_of_squares(a["x"], a["result"]); },
       {}},
      {"sequence_root_mean_square",
       {{"x", rows_by_width}, {"lengths", ints({B})}, {"result", one}},
       [](PlanningOps& ops, const Arguments& a) {
         ops.sequence_root_mean_square(a["x"], a["lengths"], a["result"]);
       },
       {}},
      {"sequence_mean",
       {{"x", per_query}, {"lengths", ints({B})}, {"result", one}},
       [](PlanningOps& ops, const Arguments& a) {
         ops.sequence_mean(a["x"], a["lengths"], a["result"]);
       },
       {}},
      {"clip_factor",
       {{"group_sums", floats({3})}, {"control", control}},
       [](PlanningOps& ops, const Arguments& a) {
         ops.clip_factor(a["group_sums"], 1.0, a["control"]);
       },
       {}},
      {"adamw",
       {{"control", control},
        {"gradients", width},
        {"weights", width},
        {"first_moment", width},
        {"second_moment", width},
        {"compute_weights", width}},
       [](PlanningOps& ops, const Arguments& a) {
         ops.adamw({}, a["control"], a["gradients"], a["weights"], a["first_moment"],
                   a["second_moment"], a["compute_weights"]);
       },
       {"compute_weights"}},
      {"ema_update",
       {{"control", control}, {"weights", width}, {"average", width}},
       [](PlanningOps& ops, const Arguments& a) {
         ops.ema_update(0.9, a["control"], a["weights"], a["average"]);
       },
       {}},
  };
}

// Arguments whose extents are free: any number of values, groups or samples is right.
bool is_free(const std::string& operation, const std::string& argument) {
  const bool is_reduction = operation == "root_mean_square" || operation == "mean" ||
                            operation == "sum_of_squares" || operation.starts_with("sequence_");
  return argument == "group_sums" || argument == "scale" || (argument == "x" && is_reduction);
}

class PlanningOpsTest : public testing::Test {
 protected:
  bool accepts(const Operation& operation, const Arguments& arguments) {
    try {
      PlanningOps ops(backend_);
      operation.call(ops, arguments);
      return true;
    } catch (const Error& error) {
      EXPECT_STRNE(error.what(), "");
      return false;
    }
  }
  CpuOps<float> backend_;
};

TEST_F(PlanningOpsTest, AcceptsWhatIsRight) {
  for (const Operation& operation : operations())
    EXPECT_TRUE(accepts(operation, operation.arguments)) << operation.name;
}

TEST_F(PlanningOpsTest, RefusesAWrongShapeOfEachArgument) {
  for (const Operation& operation : operations()) {
    for (const auto& [name, tensor] : operation.arguments) {
      if (is_free(operation.name, name)) continue;
      SCOPED_TRACE(operation.name + " " + name);
      Arguments wrong = operation.arguments;
      const Shape& shape = tensor.shape;
      if (shape.rank() == 1) wrong.at(name).shape = {shape[0] + 1};
      if (shape.rank() == 2) wrong.at(name).shape = {shape[0], shape[1] - 1};
      if (shape.rank() == 3) wrong.at(name).shape = {shape[0], shape[2], shape[1]};
      if (shape.rank() == 4) wrong.at(name).shape = {shape[0], shape[1], shape[2], shape[3] + 1};
      EXPECT_FALSE(accepts(operation, wrong)) << "last axis";
      if (shape.rank() != 2) continue;
      // Rows of a table of V rows are V by definition.
      const bool is_table = shape[0] == V;
      wrong.at(name).shape = {shape[0] - 1, shape[1]};
      EXPECT_EQ(accepts(operation, wrong), is_table && operation.name.starts_with("embedding"))
          << "first axis";
    }
  }
}

TEST_F(PlanningOpsTest, RefusesAWrongElementTypeOfEachArgument) {
  for (const Operation& operation : operations()) {
    for (const auto& [name, tensor] : operation.arguments) {
      Arguments wrong = operation.arguments;
      wrong.at(name).dtype = tensor.dtype == DType::i32 ? DType::f32 : DType::f64;
      EXPECT_FALSE(accepts(operation, wrong)) << operation.name << " " << name;
    }
  }
}

TEST_F(PlanningOpsTest, RefusesAMissingArgumentUnlessItIsOptional) {
  for (const Operation& operation : operations()) {
    for (const auto& [name, tensor] : operation.arguments) {
      Arguments without = operation.arguments;
      without.at(name) = {};
      const auto& optional = operation.optional;
      const bool may_lack = std::find(optional.begin(), optional.end(), name) != optional.end();
      EXPECT_EQ(accepts(operation, without), may_lack) << operation.name << " " << name;
    }
  }
}

TEST_F(PlanningOpsTest, RefusesHeadsThatDoNotShareEvenly) {
  PlanningOps ops(backend_);
  AttentionDesc desc = attention_desc();
  desc.kv_heads = 3;
  EXPECT_THAT(message_of<Error>([&] { ops.attention_forward(desc, {}, {}, {}, {}); }),
              HasSubstr("4 heads cannot share 3 key/value heads"));
  desc.kv_heads = 0;
  EXPECT_THAT(message_of<Error>([&] { ops.attention_forward(desc, {}, {}, {}, {}); }),
              HasSubstr("cannot share 0"));
}

TEST_F(PlanningOpsTest, RefusesViewsBeyondTheirStorage) {
  const Tensor packed = floats({N, (H + 2 * K) * D});
  const int64_t stride = (H + 2 * K) * D;
  const auto call = [&](int64_t v_offset, int64_t v_stride) {
    PlanningOps ops(backend_);
    AttentionDesc desc = attention_desc();
    desc.kind = AttentionKind::sigmoid;
    AttentionInputs inputs;
    inputs.q = {packed, 0, stride};
    inputs.k = {packed, H * D, stride};
    inputs.v = {packed, v_offset, v_stride};
    ops.attention_forward(desc, inputs, {floats({N, H * D}), 0, H * D}, {}, {});
  };
  call((H + K) * D, stride);
  EXPECT_THAT(message_of<Error>([&] { call((H + K) * D + 1, stride); }),
              HasSubstr("attention v: 10 rows of 2 heads of 2 from 13 with stride 16 do not fit"));
  EXPECT_THAT(message_of<Error>([&] { call((H + K) * D, stride + 1); }), HasSubstr("do not fit"));
  EXPECT_THAT(message_of<Error>([&] { call(-1, stride); }), HasSubstr("do not fit"));
  EXPECT_THAT(message_of<Error>([&] { call(0, 3); }), HasSubstr("do not fit"));
}

TEST_F(PlanningOpsTest, NamesTheArgumentAndBothShapes) {
  PlanningOps ops(backend_);
  EXPECT_EQ(message_of<Error>([&] {
              ops.linear_forward(floats({N, I}), floats({C, I + 1}), {}, Activation::none, {},
                                 floats({N, C}));
            }),
            "linear weight is [8, 6], not [8, 5]");
  EXPECT_EQ(message_of<Error>([&] {
              ops.embedding_forward(floats({N}), floats({V, C}), {}, floats({N, C}));
            }),
            "embedding tokens is of f32, not i32");
  EXPECT_EQ(message_of<Error>([&] {
              ops.swiglu_forward({}, floats({N, F}));
            }),
            "swiglu x is missing");
}

TEST_F(PlanningOpsTest, RefusesRowsThatAreNoWholeNumberOfSequences) {
  PlanningOps ops(backend_);
  EXPECT_THAT(message_of<Error>([&] {
                ops.embedding_forward(ints({N}), floats({V, C}), floats({4, C}), floats({N, C}));
              }),
              HasSubstr("10 rows are no whole number of 4"));
  const Tensor x = floats({N, C});
  EXPECT_THAT(message_of<Error>([&] {
                ops.residual_norm_forward({}, x, {x, {}, floats({4})}, x, floats({C}), {}, x, {},
                                          floats({N}));
              }),
              HasSubstr("10 rows are no whole number of 4 samples"));
}

TEST_F(PlanningOpsTest, CountsMatrixProductsOverVisibleKeys) {
  const auto flops = [&](bool causal, int64_t window, bool backward) {
    PlanningOps ops(backend_);
    AttentionDesc desc = attention_desc();
    desc.causal = causal, desc.window = window;
    const std::vector<Operation> all = operations();
    Arguments a = std::find_if(all.begin(), all.end(), [](const Operation& operation) {
                    return operation.name == "attention_forward";
                  })->arguments;
    a.at("head_bias") = a.at("alibi_slopes") = a.at("key_lengths") = {};
    const HeadsView queries{a["q"], 0, H * D}, keys{a["k"], 0, K * D};
    if (backward) {
      ops.attention_backward(desc, attention_inputs(a), queries, a["log_sum_exp"], queries, queries,
                             keys, keys, {});
    } else {
      ops.attention_forward(desc, attention_inputs(a), queries, a["log_sum_exp"], {});
    }
    return ops.flops();
  };
  // Five tokens: 25 pairs, 15 of them causal; at distances below 2, 13 and 9.
  const double a_pair = 2.0 * 2.0 * B * H * D;
  EXPECT_EQ(flops(false, 0, false), a_pair * 25);
  EXPECT_EQ(flops(true, 0, false), a_pair * 15);
  EXPECT_EQ(flops(false, 2, false), a_pair * 13);
  EXPECT_EQ(flops(true, 2, false), a_pair * 9);
  EXPECT_EQ(flops(true, 99, false), a_pair * 15);
  EXPECT_EQ(flops(true, 0, true), 2.0 * a_pair * 15);
}

TEST_F(PlanningOpsTest, FindsTheLargestWorkspaceAndHasNoValues) {
  PlanningOps ops(backend_);
  EXPECT_EQ(ops.workspace_bytes(), 0u);
  ops.sum_of_squares(floats({1 << 20}), floats({1}));
  const size_t large = ops.workspace_bytes();
  EXPECT_EQ(large, backend_.reduction_workspace(1 << 20));
  EXPECT_GT(large, 0u);
  ops.sum_of_squares(floats({64}), floats({1}));
  EXPECT_EQ(ops.workspace_bytes(), large);
  EXPECT_EQ(ops.allocate(100), nullptr);
  EXPECT_TRUE(ops.is_planning());
  float value;
  EXPECT_THAT(message_of<Error>([&] { ops.download(&value, floats({1})); }),
              HasSubstr("no values to read"));
  EXPECT_THAT(message_of<Error>([&] { ops.copy(floats({3}), floats({4})); }),
              HasSubstr("copy of [3] to [4]"));
}

}  // namespace
}  // namespace sigtrain
