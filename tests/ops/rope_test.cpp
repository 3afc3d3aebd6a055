#include "op_testing.h"

namespace sigtrain {
namespace {

struct RopeCase {
  int64_t batch, seq_len, heads, kv_heads, head_dim;
  bool with_norm, with_rope;
};

template <typename Real>
struct RopeProblem {
  RopeProblem(const RopeCase& problem_case, uint64_t seed) : c(problem_case) {
    RandomValues random(seed);
    desc = {c.batch, c.seq_len, c.heads, c.kv_heads, c.head_dim, 1e-3};
    const int64_t rows = c.batch * c.seq_len;
    qkv = random.normal<Real>({rows, qkv_width()});
    q_weight = random.normal_if<Real>(c.with_norm, {c.head_dim}, 0.5, 1.0);
    k_weight = random.normal_if<Real>(c.with_norm, {c.head_dim}, 0.5, 1.0);
    d_qk = random.normal<Real>({rows, (c.heads + c.kv_heads) * c.head_dim});
    d_qkv = random.normal<Real>({rows, qkv_width()});
    for (int64_t n = 0; n < rows; ++n)
      std::copy_n(&d_qk[n * qk_width()], qk_width(), &d_qkv[n * qkv_width()]);
    dq_weight = dq_weight_before = random.normal_if<Real>(c.with_norm, {c.head_dim});
    dk_weight = dk_weight_before = random.normal_if<Real>(c.with_norm, {c.head_dim});
    if (c.with_rope) {
      rope = Buffer<Real>({c.seq_len, c.head_dim});
      for (int64_t t = 0; t < c.seq_len; ++t) {
        for (int64_t d = 0; d < c.head_dim / 2; ++d) {
          const double angle = t * std::pow(100.0, -2.0 * d / c.head_dim);
          rope[t * c.head_dim + d] = static_cast<float>(std::cos(angle));
          rope[t * c.head_dim + c.head_dim / 2 + d] = static_cast<float>(std::sin(angle));
        }
      }
    }
    qk_out = Buffer<Real>({rows, qk_width()});
    if (c.with_norm) rstd = Buffer<Real>({rows, c.heads + c.kv_heads});
  }

  int64_t qk_width() const { return (c.heads + c.kv_heads) * c.head_dim; }
  int64_t qkv_width() const { return (c.heads + 2 * c.kv_heads) * c.head_dim; }
  void forward() { ops.qk_norm_rope_forward(desc, qkv, q_weight, k_weight, rope, qk_out, rstd); }
  void backward() {
    ExactWorkspace workspace(ops, ops.qk_norm_rope_backward_workspace(desc));
    ops.qk_norm_rope_backward(desc, qkv, q_weight, k_weight, rope, rstd, d_qkv, dq_weight,
                              dk_weight);
  }
  std::vector<Buffer<Real>> outputs() const { return {qk_out, rstd, d_qkv, dq_weight, dk_weight}; }

  RopeCase c;
  QkNormRopeDesc desc;
  CpuOps<Real> ops;
  Buffer<Real> qkv, q_weight, k_weight, rope, d_qk;
  Buffer<Real> qk_out, rstd, d_qkv, dq_weight, dk_weight, dq_weight_before, dk_weight_before;
};

class RopeTest : public ::testing::TestWithParam<RopeCase> {};

template <typename Real>
void check_forward(const RopeCase& c) {
  RopeProblem<Real> p(c, 1);
  p.forward();
  const int64_t heads = c.heads + c.kv_heads, half = c.head_dim / 2;
  const double tolerance = (c.head_dim + 10) * std::numeric_limits<Real>::epsilon() * 5;
  for (int64_t n = 0; n < c.batch * c.seq_len; ++n) {
    for (int64_t h = 0; h < heads; ++h) {
      const Real* x = &p.qkv[n * p.qkv_width() + h * c.head_dim];
      std::vector<double> z(x, x + c.head_dim);
      if (c.with_norm) {
        double squares = 0.0;
        for (const double value : z) squares += value * value;
        const double rstd = 1 / std::sqrt(squares / c.head_dim + p.desc.eps);
        ASSERT_NEAR(p.rstd[n * heads + h], rstd, tolerance * rstd);
        for (int64_t d = 0; d < c.head_dim; ++d)
          z[d] *= rstd * (h < c.heads ? p.q_weight[d] : p.k_weight[d]);
      }
      for (int64_t d = 0; d < c.head_dim; ++d) {
        double exact = z[d];
        if (c.with_rope) {
          const double cosine = p.rope[n % c.seq_len * c.head_dim + d % half];
          const double sine = p.rope[n % c.seq_len * c.head_dim + half + d % half];
          exact =
              d < half ? z[d] * cosine - z[d + half] * sine : z[d] * cosine + z[d - half] * sine;
        }
        ASSERT_NEAR(p.qk_out[(n * heads + h) * c.head_dim + d], exact, tolerance);
      }
    }
  }
}

TEST_P(RopeTest, ForwardIsTheFormula) {
  check_forward<double>(GetParam());
  check_forward<float>(GetParam());
}

TEST_P(RopeTest, BackwardIsTheGradient) {
  const RopeCase c = GetParam();
  RopeProblem<double> p(c, 2);
  const auto loss = [&] {
    p.forward();
    return dot(p.qk_out, p.d_qk);
  };
  loss();
  const auto d_qkv_before = p.d_qkv;
  p.backward();
  auto numerical = numerical_gradient(p.qkv, loss);
  // The v columns are not this operation's.
  for (int64_t n = 0; n < c.batch * c.seq_len; ++n) {
    for (int64_t i = p.qk_width(); i < p.qkv_width(); ++i) {
      const int64_t at = n * p.qkv_width() + i;
      EXPECT_EQ(numerical[at], 0.0);
      numerical[at] = d_qkv_before[at];
      EXPECT_EQ(p.d_qkv[at], d_qkv_before[at]);
    }
  }
  EXPECT_LT(relative_error(p.d_qkv, numerical), gradient_tolerance);
  if (c.with_norm) {
    EXPECT_LT(relative_error(added(p.dq_weight, p.dq_weight_before),
                             numerical_gradient(p.q_weight, loss)),
              gradient_tolerance);
    EXPECT_LT(relative_error(added(p.dk_weight, p.dk_weight_before),
                             numerical_gradient(p.k_weight, loss)),
              gradient_tolerance);
  }
}

TEST_P(RopeTest, FloatAgreesWithDouble) {
  RopeProblem<double> exact(GetParam(), 3);
  RopeProblem<float> rounded(GetParam(), 3);
  exact.forward(), rounded.forward();
  exact.backward(), rounded.backward();
  const auto exact_outputs = exact.outputs();
  const auto rounded_outputs = rounded.outputs();
  for (size_t i = 0; i < exact_outputs.size(); ++i) {
    EXPECT_LT(largest_difference(rounded_outputs[i], exact_outputs[i]) /
                  std::max(1.0, largest_magnitude(exact_outputs[i])),
              30 * float_roundoff)
        << "output " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Cases, RopeTest,
    ::testing::Values(RopeCase{1, 1, 1, 1, 2, true, true}, RopeCase{1, 1, 1, 1, 2, false, true},
                      RopeCase{2, 5, 3, 1, 6, true, true}, RopeCase{1, 7, 2, 2, 10, false, true},
                      RopeCase{3, 3, 4, 2, 5, true, false}, RopeCase{2, 3, 2, 1, 3, false, false},
                      RopeCase{2, 11, 3, 3, 22, true, true}));

TEST(Rope, IsTheSameForAnyThreadCount) {
  expect_same_bits_for_any_thread_count<float>([&] {
    RopeProblem<float> p({3, 157, 5, 1, 34, true, true}, 4);
    p.forward();
    p.backward();
    return p.outputs();
  });
}

}  // namespace
}  // namespace sigtrain
