// Attention on the GPU against CpuOps<double>: every option at every head dimension, by norm
// (AttentionOnGpu), and some of them among guarded tensors with a workspace of exactly the size
// asked for, element by element (GuardedAttention): by every kernel, as compute-sanitizer sees
// these alone.
#include "gpu_testing.h"
#include "kernels/attention_checks.h"
#include "kernels/launch.h"
#include "tools/bench/attention_cases.h"

namespace sigtrain {
namespace {

/// Which kernels run, and whether dQ's shares are added in a fixed order.
struct Way {
  const char* name;
  kernels::AttentionImpl impl;
  bool deterministic;
};

/// What is chosen of itself, and all that this GPU could be asked for.
std::vector<Way> ways(int64_t head_dim) {
  using kernels::AttentionImpl;
  std::vector<Way> all = {{"chosen, deterministic", AttentionImpl::automatic, true},
                          {"chosen, in any order", AttentionImpl::automatic, false},
                          {"sm80", AttentionImpl::sm80, true}};
  kernels::AttentionShape shape{};
  shape.head_dim = static_cast<int>(head_dim);
  if (kernels::attention_can_use_sm90(shape)) {
    all.push_back({"sm90, deterministic", AttentionImpl::sm90, true});
    all.push_back({"sm90, in any order", AttentionImpl::sm90, false});
  }
  return all;
}

void choose(CudaOps& ops, const Way& way) {
  ops.set_attention_impl(way.impl);
  ops.set_deterministic(way.deterministic);
}

class AttentionOnGpu : public NeedsGpu,
                       public testing::WithParamInterface<std::tuple<AttentionKind, int64_t>> {};

TEST_P(AttentionOnGpu, AgreesWithTheCpuInDoubleAndWithItself) {
  CudaOps ops;
  const auto [kind, head_dim] = GetParam();
  for (const AttentionCase& attention_case : attention_cases(kind, head_dim)) {
    AttentionProblem problem(attention_case, 1);
    const AttentionResults exact = problem.on_cpu();
    for (const Way& way : ways(head_dim)) {
      SCOPED_TRACE(fmt::format("{}, {}", attention_case.name, way.name));
      choose(ops, way);
      const AttentionCheck check = check_attention(ops, problem, exact);
      for (size_t i = 0; i < check.errors.size(); ++i)
        EXPECT_LE(check.errors[i], AttentionCheck::tolerances[i]) << AttentionCheck::names[i];
      EXPECT_TRUE(check.same_out_without_sums);
      if (way.deterministic) {
        EXPECT_TRUE(check.same_bits_twice);
      }
    }
  }
}

// What lies behind a sequence's keys reaches nobody, NaN neither. A query that is NaN there spoils
// its own output alone (and all gradients, which sum over queries).
TEST_P(AttentionOnGpu, PaddingReachesNobody) {
  CudaOps ops;
  const auto [kind, head_dim] = GetParam();
  for (const AttentionCase& attention_case : attention_cases(kind, head_dim)) {
    if (attention_case.key_lengths.empty()) continue;
    AttentionProblem problem(attention_case, 1);
    const AttentionResults exact = problem.on_cpu();
    problem.poison_padding();
    AttentionProblem with_queries = problem;
    with_queries.poison_padded_queries();
    for (const Way& way : ways(head_dim)) {
      SCOPED_TRACE(fmt::format("{}, {}", attention_case.name, way.name));
      choose(ops, way);
      const AttentionCheck check = check_attention(ops, problem, exact);
      for (size_t i = 0; i < check.errors.size(); ++i)
        EXPECT_LE(check.errors[i], AttentionCheck::tolerances[i]) << AttentionCheck::names[i];
      EXPECT_LE(relative_error_by_norm(problem.without_padding(with_queries.on_gpu(ops).out),
                                       problem.without_padding(exact.out)),
                AttentionCheck::tolerances[0]);
    }
  }
}

const auto kind_and_head_dim = [](const auto& info) {
  return fmt::format("{}{}",
                     std::get<0>(info.param) == AttentionKind::sigmoid ? "sigmoid" : "softmax",
                     std::get<1>(info.param));
};

INSTANTIATE_TEST_SUITE_P(KindsAndHeadDims, AttentionOnGpu,
                         testing::Combine(testing::Values(AttentionKind::sigmoid,
                                                          AttentionKind::softmax),
                                          testing::Values(32, 64, 96, 128, 192)),
                         kind_and_head_dim);

TEST_F(GpuTest, AttentionWeightsAreAccurateFromMinus20To20) {
  // Queries that see one key each, and as the scale is 0 the logits are the bias: the sum of the
  // weights is sigmoid(bias), in fp32. Sequences are short, or of the length that Hopper's kernels
  // have chunks of 32 keys for.
  // fp32 holds bias * log2(e) to 2^-24 of 28.9, which is what the result is off by, and the special
  // functions add 2^-22 each. Hopper's kernels replace 1 / (1 + e) by a straight line or a parabola
  // where e <= 1/4, which are off by 4.6e-4 at most. The output is that weight times a value: the
  // weight is rounded to bf16 (by Hopper's kernels there twice), and so is the output.
  using kernels::AttentionImpl;
  struct Kernels {
    int64_t head_dim, seq_len;
    AttentionImpl impl;
    double tolerance;
    int roundings;
  };
  std::vector<Kernels> all = {{32, 1, AttentionImpl::sm80, 0x1p-18, 2}};
  if (kernels::device_limits().compute_capability == 90) {
    for (const int64_t head_dim : {64, 128, 192})
      all.push_back({head_dim, 1, AttentionImpl::sm90, 0x1p-11, 3});
    all.push_back({64, 193, AttentionImpl::sm90, 0x1p-11, 3});
  }
  for (const Kernels& kernels : all) {
    gpu().set_attention_impl(kernels.impl);
    for (double bias = -20.0; bias <= 20.0; bias += 0.25) {
      SCOPED_TRACE(
          fmt::format("head_dim {}, seq_len {}, bias {}", kernels.head_dim, kernels.seq_len, bias));
      AttentionCase one{
          "one key",
          {AttentionKind::sigmoid, 1, kernels.seq_len, 1, 1, kernels.head_dim, 0.0, bias, true, 1}};
      AttentionProblem problem(one, 1);
      const AttentionResults got = problem.on_gpu(gpu()), exact = problem.on_cpu();
      for (size_t i = 0; i < exact.row_sum.size(); ++i)
        EXPECT_NEAR(got.row_sum[i] / exact.row_sum[i], 1.0, kernels.tolerance);
      for (size_t i = 0; i < exact.out.size(); ++i)
        EXPECT_NEAR(got.out[i], exact.out[i],
                    std::abs(exact.out[i]) * (kernels.tolerance + kernels.roundings * 0x1p-8));
    }
  }
  gpu().set_attention_impl(AttentionImpl::automatic);
}

struct GuardedCase {
  AttentionKind kind;
  int64_t batch, seq_len, heads, kv_heads, head_dim;
  bool causal;
  int64_t window;
  bool head_bias, alibi, lengths;
};

class GuardedAttention : public GpuTest, public ::testing::WithParamInterface<GuardedCase> {
 protected:
  void check(const GuardedCase& c, bool same_bits);
};

TEST_P(GuardedAttention, ForwardAndBackward) {
  for (const Way& way : ways(GetParam().head_dim)) {
    SCOPED_TRACE(way.name);
    choose(gpu(), way);
    check(GetParam(), way.deterministic);
  }
}

// q, k and v are parts of one packed matrix, as the layers pass them.
void GuardedAttention::check(const GuardedCase& c, bool same_bits) {
  const int64_t rows = c.batch * c.seq_len, q_columns = c.heads * c.head_dim;
  const int64_t kv_columns = c.kv_heads * c.head_dim, packed = q_columns + 2 * kv_columns;
  AttentionDesc desc{c.kind,
                     c.batch,
                     c.seq_len,
                     c.heads,
                     c.kv_heads,
                     c.head_dim,
                     1.0 / std::sqrt(double(c.head_dim)),
                     c.kind == AttentionKind::sigmoid ? -std::log(double(c.seq_len)) : 0.25,
                     c.causal,
                     c.window};
  const Operand qkv = normal("qkv", {rows, packed});
  const Operand head_bias = normal_if(c.head_bias, "head_bias", {c.heads});
  Operand slopes, lengths;
  if (c.alibi) {
    std::vector<double> values;
    for (int64_t h = 0; h < c.heads; ++h) values.push_back(std::exp2(-2.0 - double(h)));
    slopes = given("slopes", {c.heads}, values, Role::accumulate);
  }
  if (c.lengths) {
    std::vector<int32_t> values;
    for (int64_t b = 0; b < c.batch; ++b)
      values.push_back(static_cast<int32_t>(b == 1 ? 0 : c.seq_len - 3 * b));
    lengths = integers("lengths", values);
  }
  const bool softmax = c.kind == AttentionKind::softmax;
  const Shape per_query{c.batch, c.heads, c.seq_len};
  const Operand out = output("out", {rows, q_columns});
  const Operand log_sum_exp = output_if(softmax, "log_sum_exp", per_query, Role::accumulate);
  const Operand row_sum = output("row_sum", per_query, Role::accumulate);
  const auto inputs = [&](const Pick& at) {
    AttentionInputs in;
    in.q = {at(qkv), 0, packed};
    in.k = {at(qkv), q_columns, packed};
    in.v = {at(qkv), q_columns + kv_columns, packed};
    in.head_bias = at(head_bias);
    in.alibi_slopes = at(slopes);
    in.key_lengths = at(lengths);
    return in;
  };
  run(
      [&](Ops& ops, const Pick& at) {
        ops.attention_forward(desc, inputs(at), {at(out), 0, q_columns}, at(log_sum_exp),
                              at(row_sum));
      },
      [&](const Ops& ops) { return ops.attention_forward_workspace(desc); });
  // The weights are rounded to bfloat16 in front of their product with v, and their sum is at most
  // the largest row sum.
  expect_near(out, rounded(qkv.largest()) +
                       Tolerance{0.0, bf16_roundoff * qkv.largest() * row_sum.largest()});
  expect_near(row_sum, {0x1p-11, 0x1p-12});
  if (softmax) {
    // Rows that see no key have no meaningful value.
    std::vector<double> expected = log_sum_exp.values();
    const std::vector<double> actual = log_sum_exp.gpu_values();
    for (size_t i = 0; i < expected.size(); ++i)
      if (std::isfinite(expected[i])) {
        EXPECT_NEAR(actual[i], expected[i], 0x1p-10);
      }
  }

  const Operand d_out = normal("d_out", {rows, q_columns});
  const Operand d_qkv = output("d_qkv", {rows, packed});
  const Operand d_head_bias = normal_if(c.head_bias, "d_head_bias", {c.heads}, Role::accumulate);
  const std::vector<double> d_head_bias_before =
      c.head_bias ? d_head_bias.values() : std::vector<double>();
  run(
      [&](Ops& ops, const Pick& at) {
        ops.attention_backward(desc, inputs(at), {at(out), 0, q_columns}, at(log_sum_exp),
                               {at(d_out), 0, q_columns}, {at(d_qkv), 0, packed},
                               {at(d_qkv), q_columns, packed},
                               {at(d_qkv), q_columns + kv_columns, packed}, at(d_head_bias));
      },
      [&](const Ops& ops) { return ops.attention_backward_workspace(desc); }, same_bits);
  // Sums over keys or queries of products with weights, their gradients and, for softmax, the
  // output, that each were rounded once: about as many roundoffs of the largest gradient as there
  // are rounded factors.
  expect_near(d_qkv, {bf16_roundoff, 4 * bf16_roundoff * d_qkv.largest()});
  if (c.head_bias) {
    // It sums the logits' gradients before they are rounded, but the weights in them are. For
    // softmax these sum to nothing, and what is left is noise. A row's slopes, whose squares sum to
    // at most 1 (softmax) or the mean of e^2s over seq_len (sigmoid, with s normal), are off by a
    // roundoff at most, by 1 / sqrt(3) of it in the mean of squares, times what is of variance 2
    // head_dim; and so is a row of out, times d_out. Four times the deviation of the sum over all
    // rows.
    double largest = 0.0;
    for (size_t h = 0; h < d_head_bias_before.size(); ++h)
      largest = std::max(largest, std::abs(d_head_bias.values()[h] - d_head_bias_before[h]));
    const double squares = softmax ? 1.0 : std::exp(2.0) / static_cast<double>(c.seq_len);
    const double deviation = std::sqrt(static_cast<double>(rows * c.head_dim) * squares);
    expect_near(d_head_bias, {0.0, 4 * bf16_roundoff * (largest + deviation)});
  }
}

std::vector<GuardedCase> guarded_cases() {
  std::vector<GuardedCase> cases;
  for (const AttentionKind kind : {AttentionKind::sigmoid, AttentionKind::softmax}) {
    for (const int64_t head_dim : {32, 64, 96, 128, 192})
      cases.push_back({kind, 2, 257, 2, 1, head_dim, true, 0, true, true, false});
    for (const int64_t head_dim : {64, 128, 192}) {
      cases.push_back({kind, 3, 200, 2, 2, head_dim, false, 50, false, false, true});
      cases.push_back({kind, 2, 1, 1, 1, head_dim, true, 0, false, false, false});
      cases.push_back({kind, 1, 1024, 1, 1, head_dim, true, 0, false, true, false});
    }
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Cases, GuardedAttention, ::testing::ValuesIn(guarded_cases()));

TEST(AttentionCounts, MoreThanALaunchCountsIsRefused) {
  kernels::AttentionShape shape{};
  shape.batch = shape.heads = 65535;
  shape.seq_len = 16;
  EXPECT_THROW(kernels::check_counts(shape), Error);  // 65535^2 tiles
  shape.heads = 12;
  EXPECT_NO_THROW(kernels::check_counts(shape));
  shape.batch = 65536;
  EXPECT_THROW(kernels::check_counts(shape), Error);
  std::swap(shape.batch, shape.heads);
  EXPECT_THROW(kernels::check_counts(shape), Error);
}

// Numbers of sequences and of heads that need all 16 bits that Hopper's kernels have for them.
TEST_F(GpuTest, AttentionOfManySequencesAndOfManyHeads) {
  constexpr int64_t many = 40000, head_dim = 64;
  for (const auto& [batch, heads] : {std::pair{many, int64_t{1}}, std::pair{int64_t{1}, many}}) {
    const AttentionDesc desc{
        AttentionKind::sigmoid, batch, 1, heads, heads, head_dim, 0.125, 0.0, false, 0};
    const int64_t width = heads * head_dim;
    const Operand qkv = normal("qkv", {batch, 3 * width}), out = output("out", {batch, width});
    for (const Way& way : ways(head_dim)) {
      SCOPED_TRACE(fmt::format("{} sequences, {} heads, {}", batch, heads, way.name));
      choose(gpu(), way);
      run(
          [&](Ops& ops, const Pick& at) {
            AttentionInputs in;
            in.q = {at(qkv), 0, 3 * width};
            in.k = {at(qkv), width, 3 * width};
            in.v = {at(qkv), 2 * width, 3 * width};
            ops.attention_forward(desc, in, {at(out), 0, width}, {}, {});
          },
          [&](const Ops& ops) { return ops.attention_forward_workspace(desc); });
      expect_near(out, rounded(qkv.largest()) + Tolerance{0.0, bf16_roundoff * qkv.largest()});
    }
  }
}

TEST_F(GpuTest, AttentionRejectsOtherHeadDimensions) {
  const Operand qkv = normal("qkv", {4, 120}), out = output("out", {4, 40});
  AttentionDesc desc;
  desc.batch = 1, desc.seq_len = 4, desc.heads = 1, desc.kv_heads = 1, desc.head_dim = 40;
  AttentionInputs in;
  in.q = {qkv.on_gpu(), 0, 120};
  in.k = {qkv.on_gpu(), 40, 120};
  in.v = {qkv.on_gpu(), 80, 120};
  EXPECT_THROW(gpu().attention_forward(desc, in, {out.on_gpu(), 0, 40}, {}, {}), Error);
}

}  // namespace
}  // namespace sigtrain
