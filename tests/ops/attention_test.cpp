// The oracle is the definition of attention written with T x T matrices in double; the backward is
// held to it element by element, and the formulas themselves to central differences.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "ops/cpu/cpu_ops.h"

namespace sigtrain {
namespace {

using Doubles = std::vector<double>;

// Inputs are float numbers, so that float and double kernels compute the same problem.
struct Problem {
  AttentionDesc desc;
  Doubles qkv;        // [rows, (heads + 2 kv_heads) head_dim]: q, k and v side by side
  Doubles d_out;      // [rows, heads head_dim]
  Doubles head_bias;  // [heads] or empty
  Doubles slopes;     // [heads] or empty
  std::vector<int32_t> key_lengths;  // [batch] or empty

  int64_t rows() const { return desc.batch * desc.seq_len; }
  int64_t packed_width() const { return (desc.heads + 2 * desc.kv_heads) * desc.head_dim; }
  int64_t width() const { return desc.heads * desc.head_dim; }
  int64_t k_offset() const { return desc.heads * desc.head_dim; }
  int64_t v_offset() const { return (desc.heads + desc.kv_heads) * desc.head_dim; }
  bool sees(int64_t batch, int64_t i, int64_t j) const {
    return (!desc.causal || j <= i) && (desc.window == 0 || std::abs(i - j) < desc.window) &&
           (key_lengths.empty() || j < key_lengths[batch]);
  }
  std::string describe() const {
    std::string lengths;
    for (int32_t length : key_lengths) lengths += fmt::format(" {}", length);
    return fmt::format("{} batch {} seq_len {} heads {}/{} head_dim {} {} window {}{}{} lengths{}",
                       desc.kind == AttentionKind::sigmoid ? "sigmoid" : "softmax", desc.batch,
                       desc.seq_len, desc.heads, desc.kv_heads, desc.head_dim,
                       desc.causal ? "causal" : "full", desc.window,
                       head_bias.empty() ? "" : " head_bias", slopes.empty() ? "" : " alibi",
                       lengths.empty() ? " none" : lengths);
  }
};

Doubles normals(std::mt19937& generator, int64_t count, double spread = 1.0) {
  std::normal_distribution<float> normal(0.0F, static_cast<float>(spread));
  Doubles values(count);
  for (double& value : values) value = normal(generator);
  return values;
}

struct Sizes {
  int64_t batch, seq_len, heads, kv_heads, head_dim;
};

Problem make_problem(AttentionKind kind, Sizes shape, bool causal, int64_t window, bool head_bias,
                     bool alibi, std::vector<int32_t> key_lengths, uint32_t seed) {
  std::mt19937 generator(seed);
  Problem problem;
  problem.desc = {kind,           shape.batch, shape.seq_len, shape.heads, shape.kv_heads,
                  shape.head_dim, 0.5,         -1.25,         causal,      window};
  problem.qkv = normals(generator, problem.rows() * problem.packed_width());
  problem.d_out = normals(generator, problem.rows() * problem.width());
  if (head_bias) problem.head_bias = normals(generator, shape.heads, 0.5);
  for (int64_t head = 0; alibi && head < shape.heads; ++head)
    problem.slopes.push_back(std::exp2(-1.0 - static_cast<double>(head)));
  problem.key_lengths = std::move(key_lengths);
  return problem;
}

std::vector<Problem> problems(int64_t longest) {
  std::vector<Problem> all;
  uint32_t seed = 1;
  for (AttentionKind kind : {AttentionKind::sigmoid, AttentionKind::softmax}) {
    const auto add = [&](Sizes shape, bool causal, int64_t window, bool bias, bool alibi,
                         std::vector<int32_t> lengths) {
      if (shape.seq_len > longest) return;
      all.push_back(make_problem(kind, shape, causal, window, bias, alibi, lengths, seed++));
    };
    add({1, 1, 1, 1, 1}, true, 0, false, false, {});
    add({3, 1, 2, 1, 4}, false, 0, true, true, {1, 0, 1});
    add({2, 7, 3, 3, 5}, true, 0, true, false, {});
    add({2, 63, 4, 2, 8}, true, 0, true, true, {63, 20});
    add({1, 64, 2, 2, 16}, false, 0, false, true, {});
    add({2, 65, 4, 1, 7}, false, 0, true, false, {0, 65});
    add({2, 65, 1, 1, 33}, true, 1, true, false, {});
    add({1, 100, 6, 2, 3}, true, 9, true, true, {90});
    add({1, 130, 2, 2, 16}, false, 70, true, true, {});
    add({2, 129, 2, 1, 9}, false, 3, false, false, {64, 1});
    add({1, 200, 2, 1, 12}, true, 100, true, true, {150});
    add({1, 257, 2, 2, 64}, true, 0, false, true, {});
    add({1, 300, 2, 2, 6}, false, 0, true, false, {260});
    add({2, 390, 1, 1, 8}, true, 100000, true, true, {390, 129});
  }
  std::mt19937 generator(7);
  const auto draw = [&](int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(generator);
  };
  for (int i = 0; i < 24; ++i) {
    const int64_t kv_heads = draw(1, 2), batch = draw(1, 2), seq_len = draw(1, longest);
    std::vector<int32_t> lengths;
    if (draw(0, 1) == 1)
      for (int64_t b = 0; b < batch; ++b) lengths.push_back(static_cast<int32_t>(draw(0, seq_len)));
    all.push_back(make_problem(draw(0, 1) == 1 ? AttentionKind::sigmoid : AttentionKind::softmax,
                               {batch, seq_len, kv_heads * draw(1, 3), kv_heads, draw(1, 24)},
                               draw(0, 1) == 1, draw(0, 1) == 1 ? draw(1, seq_len) : 0,
                               draw(0, 1) == 1, draw(0, 1) == 1, lengths, 1000 + i));
  }
  return all;
}

// Everything that the two operations write, in double.
struct Results {
  Doubles out, log_sum_exp, row_sum, d_qkv, d_head_bias;
};

struct Oracle {
  Results values;
  // The same sums over absolute values, times what rounding may change of each term in float.
  Results float_bounds;
};

Oracle solve_by_definition(const Problem& problem) {
  const AttentionDesc& desc = problem.desc;
  const int64_t T = desc.seq_len, D = desc.head_dim, packed = problem.packed_width();
  const double eps = std::numeric_limits<float>::epsilon();
  const bool softmax = desc.kind == AttentionKind::softmax;
  const auto statistics = static_cast<size_t>(desc.batch * desc.heads * T);
  Oracle oracle;
  for (Results* results : {&oracle.values, &oracle.float_bounds}) {
    results->out.assign(problem.d_out.size(), 0.0);
    results->row_sum.assign(statistics, 0.0);
    results->log_sum_exp.assign(statistics, 0.0);
    results->d_qkv.assign(problem.qkv.size(), 0.0);
    results->d_head_bias.assign(desc.heads, 0.0);
  }
  Results& r = oracle.values;
  Results& a = oracle.float_bounds;
  for (int64_t b = 0; b < desc.batch; ++b) {
    for (int64_t h = 0; h < desc.heads; ++h) {
      const int64_t kv_head = h / (desc.heads / desc.kv_heads);
      const auto q = [&](int64_t i) { return (b * T + i) * packed + h * D; };
      const auto k = [&](int64_t j) {
        return (b * T + j) * packed + problem.k_offset() + kv_head * D;
      };
      const auto v = [&](int64_t j) {
        return (b * T + j) * packed + problem.v_offset() + kv_head * D;
      };
      for (int64_t i = 0; i < T; ++i) {
        const int64_t out_row = (b * T + i) * problem.width() + h * D;
        const int64_t statistic = (b * desc.heads + h) * T + i;
        Doubles S(T), P(T, 0.0), dP(T, 0.0), dP_size(T, 0.0);
        double largest = -std::numeric_limits<double>::infinity(), logit_size = 0.0;
        for (int64_t j = 0; j < T; ++j) {
          if (!problem.sees(b, i, j)) continue;
          double product = 0.0, size = 0.0;
          for (int64_t d = 0; d < D; ++d) {
            product += problem.qkv[q(i) + d] * problem.qkv[k(j) + d];
            size += std::abs(problem.qkv[q(i) + d] * problem.qkv[k(j) + d]);
            dP[j] += problem.d_out[out_row + d] * problem.qkv[v(j) + d];
            dP_size[j] += std::abs(problem.d_out[out_row + d] * problem.qkv[v(j) + d]);
          }
          const double bias = desc.bias + (problem.head_bias.empty() ? 0 : problem.head_bias[h]);
          const double alibi =
              problem.slopes.empty() ? 0 : problem.slopes[h] * static_cast<double>(std::abs(i - j));
          S[j] = desc.scale * product + bias - alibi;
          largest = std::max(largest, S[j]);
          logit_size = std::max(logit_size,
                                desc.scale * size + std::abs(desc.bias) + std::abs(bias) + alibi);
        }
        double sum_exp = 0.0, sum = 0.0, D_i = 0.0, D_size = 0.0;
        for (int64_t j = 0; j < T; ++j)
          if (problem.sees(b, i, j)) sum_exp += std::exp(S[j] - largest);
        for (int64_t j = 0; j < T; ++j) {
          if (!problem.sees(b, i, j)) continue;
          P[j] = softmax ? std::exp(S[j] - largest) / sum_exp : 1.0 / (1.0 + std::exp(-S[j]));
          sum += P[j];
          if (softmax) {
            D_i += P[j] * dP[j];
            D_size += P[j] * dP_size[j];
          }
        }
        // Rounding of a logit changes P by that part of it (twice in softmax: also the sum); each
        // sum of n terms by n half-ulps at most.
        const double change = 4.0 * static_cast<double>(D + 4) * eps * logit_size +
                              static_cast<double>(2 * D + T + 32) * eps;
        r.row_sum[statistic] = sum;
        a.row_sum[statistic] = sum * change;
        r.log_sum_exp[statistic] = softmax ? largest + std::log(sum_exp) : 0.0;
        a.log_sum_exp[statistic] = change * (1.0 + logit_size);
        for (int64_t j = 0; j < T; ++j) {
          if (!problem.sees(b, i, j)) continue;
          const double dS = softmax ? P[j] * (dP[j] - D_i) : dP[j] * P[j] * (1.0 - P[j]);
          const double dS_size = P[j] * (dP_size[j] + D_size) * change;
          r.d_head_bias[h] += dS;
          a.d_head_bias[h] += dS_size;
          for (int64_t d = 0; d < D; ++d) {
            const double q_d = problem.qkv[q(i) + d], k_d = problem.qkv[k(j) + d],
                         v_d = problem.qkv[v(j) + d], dO = problem.d_out[out_row + d];
            r.out[out_row + d] += P[j] * v_d;
            a.out[out_row + d] += P[j] * std::abs(v_d) * change;
            r.d_qkv[q(i) + d] += desc.scale * dS * k_d;
            a.d_qkv[q(i) + d] += desc.scale * dS_size * std::abs(k_d);
            r.d_qkv[k(j) + d] += desc.scale * dS * q_d;
            a.d_qkv[k(j) + d] += desc.scale * dS_size * std::abs(q_d);
            r.d_qkv[v(j) + d] += P[j] * dO;
            a.d_qkv[v(j) + d] += P[j] * std::abs(dO) * change;
          }
        }
      }
    }
  }
  return oracle;
}

// A vector seen as a tensor; `poisoned` starts as NaN, `padding` of which must still be NaN after.
template <typename Real>
struct Buffer {
  explicit Buffer(const Doubles& source) : values(source.begin(), source.end()) {}
  static Buffer poisoned(int64_t count) {
    return Buffer(Doubles(count, std::numeric_limits<double>::quiet_NaN()));
  }
  Tensor tensor() {
    if (values.empty()) return {};
    return {values.data(), dtype_of<Real>(), {static_cast<int64_t>(values.size())}};
  }
  Doubles doubles() const { return Doubles(values.begin(), values.end()); }
  std::vector<Real> values;
};

// Exactly the bytes that were asked for, between bytes that nobody may change.
class GuardedWorkspace {
 public:
  explicit GuardedWorkspace(size_t bytes)
      : bytes_(bytes), memory_(bytes + 2 * guard, std::byte{0xAB}) {}
  Tensor tensor(DType dtype) {
    const auto elements = static_cast<int64_t>(bytes_ / size_of(dtype));
    return {memory_.data() + guard, dtype, {elements}};
  }
  bool is_intact() const {
    const auto untouched = [](std::byte b) { return b == std::byte{0xAB}; };
    return std::all_of(memory_.begin(), memory_.begin() + guard, untouched) &&
           std::all_of(memory_.end() - guard, memory_.end(), untouched);
  }

 private:
  static constexpr size_t guard = 4096;
  size_t bytes_;
  std::vector<std::byte> memory_;
};

constexpr double initial_d_head_bias = 1.0;  // it is added to

template <typename Real>
Results compute(const Problem& problem) {
  const AttentionDesc& desc = problem.desc;
  const bool softmax = desc.kind == AttentionKind::softmax;
  // Outputs in wider rows, begun off the row's start: their surroundings are not ours to write.
  constexpr int64_t padding = 5, offset = 2;
  const int64_t out_stride = problem.width() + padding;
  const int64_t grad_stride = problem.packed_width() + padding;
  Buffer<Real> qkv(problem.qkv), d_out(problem.d_out), head_bias(problem.head_bias),
      slopes(problem.slopes);
  auto out = Buffer<Real>::poisoned(problem.rows() * out_stride);
  auto d_qkv = Buffer<Real>::poisoned(problem.rows() * grad_stride);
  auto log_sum_exp = Buffer<Real>::poisoned(softmax ? problem.rows() * desc.heads : 0);
  auto row_sum = Buffer<Real>::poisoned(problem.rows() * desc.heads);
  Buffer<Real> d_head_bias(Doubles(problem.head_bias.size(), initial_d_head_bias));
  std::vector<int32_t> key_lengths = problem.key_lengths;

  const int64_t packed = problem.packed_width();
  const AttentionInputs inputs{
      {qkv.tensor(), 0, packed},
      {qkv.tensor(), problem.k_offset(), packed},
      {qkv.tensor(), problem.v_offset(), packed},
      head_bias.tensor(),
      slopes.tensor(),
      key_lengths.empty() ? Tensor{} : Tensor{key_lengths.data(), DType::i32, {desc.batch}}};
  const HeadsView out_view{out.tensor(), offset, out_stride};

  CpuOps<Real> ops;
  GuardedWorkspace forward(ops.attention_forward_workspace(desc));
  ops.set_workspace(forward.tensor(dtype_of<Real>()));
  ops.attention_forward(desc, inputs, out_view, log_sum_exp.tensor(), row_sum.tensor());
  EXPECT_TRUE(forward.is_intact());

  GuardedWorkspace backward(ops.attention_backward_workspace(desc));
  ops.set_workspace(backward.tensor(dtype_of<Real>()));
  ops.attention_backward(
      desc, inputs, out_view, log_sum_exp.tensor(), {d_out.tensor(), 0, problem.width()},
      {d_qkv.tensor(), offset, grad_stride},
      {d_qkv.tensor(), offset + problem.k_offset(), grad_stride},
      {d_qkv.tensor(), offset + problem.v_offset(), grad_stride}, d_head_bias.tensor());
  EXPECT_TRUE(backward.is_intact());

  const auto unpadded = [&](const Buffer<Real>& buffer, int64_t width) {
    Doubles values;
    for (int64_t row = 0; row < problem.rows(); ++row) {
      for (int64_t c = 0; c < width + padding; ++c) {
        const Real value = buffer.values[row * (width + padding) + c];
        if (c >= offset && c < offset + width) {
          values.push_back(value);
        } else if (!std::isnan(value)) {
          ADD_FAILURE() << "padding of row " << row << " was written";
        }
      }
    }
    return values;
  };
  return {unpadded(out, problem.width()), log_sum_exp.doubles(), row_sum.doubles(),
          unpadded(d_qkv, packed), d_head_bias.doubles()};
}

void expect_near(const Doubles& actual, const Doubles& expected, const Doubles& tolerance,
                 double shift, const char* what) {
  for (size_t i = 0; i < actual.size(); ++i) {
    if (actual[i] == expected[i] + shift) continue;  // also infinities
    ASSERT_LE(std::abs(actual[i] - expected[i] - shift), tolerance[i]) << what << " " << i;
  }
}

void expect_near(const Results& actual, const Results& expected, const Results& tolerance) {
  ASSERT_EQ(actual.d_qkv.size(), expected.d_qkv.size());
  ASSERT_EQ(actual.out.size(), expected.out.size());
  expect_near(actual.out, expected.out, tolerance.out, 0, "out");
  expect_near(actual.log_sum_exp, expected.log_sum_exp, tolerance.log_sum_exp, 0, "log_sum_exp");
  expect_near(actual.row_sum, expected.row_sum, tolerance.row_sum, 0, "row_sum");
  expect_near(actual.d_qkv, expected.d_qkv, tolerance.d_qkv, 0, "d_qkv");
  expect_near(actual.d_head_bias, expected.d_head_bias, tolerance.d_head_bias, initial_d_head_bias,
              "d_head_bias");
}

Results scaled(Results results, double factor) {
  for (Doubles* values :
       {&results.out, &results.log_sum_exp, &results.row_sum, &results.d_qkv, &results.d_head_bias})
    for (double& value : *values) value = value * factor + 1e-15;
  return results;
}

TEST(Attention, DoubleIsTheDefinition) {
  // The same rounding analysis, for double.
  const double factor =
      std::numeric_limits<double>::epsilon() / std::numeric_limits<float>::epsilon();
  for (const Problem& problem : problems(390)) {
    SCOPED_TRACE(problem.describe());
    const Oracle oracle = solve_by_definition(problem);
    expect_near(compute<double>(problem), oracle.values, scaled(oracle.float_bounds, 4 * factor));
    if (HasFatalFailure()) return;
  }
}

TEST(Attention, FloatIsTheDefinitionWithinRounding) {
  for (const Problem& problem : problems(390)) {
    SCOPED_TRACE(problem.describe());
    const Oracle oracle = solve_by_definition(problem);
    Results tolerance = scaled(oracle.float_bounds, 1.0);
    for (double& bound : tolerance.d_head_bias) bound += 1e-7;  // of the number it is added to
    expect_near(compute<float>(problem), oracle.values, tolerance);
    if (HasFatalFailure()) return;
  }
}

// The sum of out * d_out, whose gradient the backward computes, and of its absolute terms.
struct Objective {
  double sum = 0.0, size = 0.0;
};

Objective objective(const Problem& problem) {
  const Results results = compute<double>(problem);
  Objective objective;
  for (size_t i = 0; i < results.out.size(); ++i) {
    objective.sum += results.out[i] * problem.d_out[i];
    objective.size += std::abs(results.out[i] * problem.d_out[i]);
  }
  return objective;
}

// Along random directions: against a direction of independent normal numbers, the derivative has
// the standard deviation |gradient|, which the error is compared to.
TEST(Attention, GradientsMatchCentralDifferences) {
  constexpr double h = 1e-5;
  for (const Problem& problem : problems(70)) {
    SCOPED_TRACE(problem.describe());
    std::mt19937 generator(3);
    const Results gradients = compute<double>(problem);
    const double rounding =
        8 * std::numeric_limits<double>::epsilon() * objective(problem).size / h;
    const auto check = [&](Doubles Problem::*input, int64_t begin, int64_t end, int64_t period,
                           const Doubles& gradient, double shift, const char* what) {
      Doubles direction = normals(generator, (problem.*input).size());
      double expected = 0.0, square = 0.0;
      for (size_t i = 0; i < direction.size(); ++i) {
        const int64_t column = static_cast<int64_t>(i) % period;
        if (column < begin || column >= end) direction[i] = 0.0;
        expected += direction[i] * (gradient[i] - shift);
        if (direction[i] != 0.0) square += (gradient[i] - shift) * (gradient[i] - shift);
      }
      Problem above = problem, below = problem;
      for (size_t i = 0; i < direction.size(); ++i) {
        (above.*input)[i] += h * direction[i];
        (below.*input)[i] -= h * direction[i];
      }
      const double actual = (objective(above).sum - objective(below).sum) / (2 * h);
      EXPECT_LE(std::abs(actual - expected), 1e-6 * std::sqrt(square) + rounding) << what;
    };
    const int64_t packed = problem.packed_width();
    check(&Problem::qkv, 0, problem.k_offset(), packed, gradients.d_qkv, 0, "dq");
    check(&Problem::qkv, problem.k_offset(), problem.v_offset(), packed, gradients.d_qkv, 0, "dk");
    check(&Problem::qkv, problem.v_offset(), packed, packed, gradients.d_qkv, 0, "dv");
    if (!problem.head_bias.empty())
      check(&Problem::head_bias, 0, 1, 1, gradients.d_head_bias, initial_d_head_bias, "d_bias");
  }
}

bool same_bits(const Doubles& a, const Doubles& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(double)) == 0;
}

TEST(Attention, IsTheSameBitsForAnyNumberOfThreads) {
  const int threads_before = omp_get_max_threads();
  for (const Problem& problem : problems(300)) {
    SCOPED_TRACE(problem.describe());
    omp_set_num_threads(1);
    const Results one = compute<float>(problem);
    for (int threads : {2, 3}) {
      omp_set_num_threads(threads);
      const Results more = compute<float>(problem);
      EXPECT_TRUE(same_bits(one.out, more.out) && same_bits(one.log_sum_exp, more.log_sum_exp) &&
                  same_bits(one.row_sum, more.row_sum) && same_bits(one.d_qkv, more.d_qkv) &&
                  same_bits(one.d_head_bias, more.d_head_bias))
          << threads << " threads";
    }
  }
  omp_set_num_threads(threads_before);
}

TEST(Attention, WorkspaceDoesNotGrowWithSeqLen) {
  AttentionDesc desc{AttentionKind::softmax, 2, 128, 4, 2, 64};
  CpuOps<float> ops;
  const size_t forward = ops.attention_forward_workspace(desc);
  const size_t backward = ops.attention_backward_workspace(desc);
  desc.seq_len = 1 << 20;
  EXPECT_EQ(ops.attention_forward_workspace(desc), forward);
  EXPECT_EQ(ops.attention_backward_workspace(desc), backward);
}

// Logits of hundreds, of both signs: no overflow, and sigmoid saturates to 0 and 1.
TEST(Attention, ExtremeLogitsStayFinite) {
  for (AttentionKind kind : {AttentionKind::sigmoid, AttentionKind::softmax}) {
    Problem problem = make_problem(kind, {1, 150, 2, 2, 8}, true, 0, true, true, {}, 5);
    for (double& x : problem.qkv) x *= 100.0;
    const Results results = compute<float>(problem);
    for (const Doubles* values : {&results.out, &results.d_qkv, &results.d_head_bias})
      for (double value : *values) ASSERT_TRUE(std::isfinite(value)) << problem.describe();
  }
}

// A padded key that holds NaN is not looked at: neither outputs nor gradients of others change.
TEST(Attention, PaddedKeysAreNotRead) {
  for (AttentionKind kind : {AttentionKind::sigmoid, AttentionKind::softmax}) {
    Problem problem = make_problem(kind, {1, 100, 1, 1, 8}, false, 0, false, false, {40}, 6);
    const Results clean = compute<float>(problem);
    for (int64_t j = 40; j < 100; ++j)
      std::fill_n(problem.qkv.begin() + j * problem.packed_width() + problem.k_offset(), 16,
                  std::numeric_limits<double>::quiet_NaN());
    const Results poisoned = compute<float>(problem);
    EXPECT_TRUE(same_bits(clean.out, poisoned.out));
    EXPECT_TRUE(same_bits(clean.d_qkv, poisoned.d_qkv));
  }
}

TEST(Attention, TooSmallAWorkspaceIsAnError) {
  Problem problem =
      make_problem(AttentionKind::sigmoid, {1, 4, 1, 1, 4}, true, 0, false, false, {}, 1);
  Buffer<float> qkv(problem.qkv), out(problem.d_out);
  CpuOps<float> ops;
  AttentionInputs inputs;
  inputs.q = {qkv.tensor(), 0, 12};
  inputs.k = {qkv.tensor(), 4, 12};
  inputs.v = {qkv.tensor(), 8, 12};
  EXPECT_THROW(ops.attention_forward(problem.desc, inputs, {out.tensor(), 0, 4}, {}, {}), Error);
}

}  // namespace
}  // namespace sigtrain
