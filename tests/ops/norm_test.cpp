#include "op_testing.h"

namespace sigtrain {
namespace {

struct NormCase {
  NormKind kind;
  int64_t batch, seq_len, width;
  bool with_delta, with_layer_scale, with_sample_scale, with_bias, accumulate;
};

// All tensors of one forward and backward pass, with the same values in float and double.
template <typename Real>
struct NormProblem {
  NormProblem(const NormCase& problem_case, uint64_t seed) : c(problem_case) {
    RandomValues random(seed);
    desc.kind = c.kind;
    desc.eps = 1e-3;
    const int64_t rows = c.batch * c.seq_len;
    residual = random.normal<Real>({rows, c.width}, 1.0, 0.5);
    delta = random.normal_if<Real>(c.with_delta, {rows, c.width});
    layer_scale = random.normal_if<Real>(c.with_layer_scale, {c.width});
    weight = random.normal<Real>({c.width}, 0.5, 1.0);
    bias = random.normal_if<Real>(c.with_bias, {c.width});
    dy = random.normal<Real>({rows, c.width});
    d_from_above = random.normal<Real>({rows, c.width});
    d_residual = c.accumulate ? d_from_above : Buffer<Real>({rows, c.width});
    dweight = dweight_before = random.normal<Real>({c.width});
    dbias = dbias_before = random.normal_if<Real>(c.with_bias, {c.width});
    d_layer_scale = d_layer_scale_before = random.normal_if<Real>(c.with_layer_scale, {c.width});
    if (c.with_sample_scale) {
      sample_scale = Buffer<Real>({c.batch});
      for (int64_t b = 0; b < c.batch; ++b) sample_scale[b] = b % 3 == 1 ? 0.0 : 1.25;
    }
    if (c.with_delta) residual_out = Buffer<Real>({rows, c.width});
    if (c.with_layer_scale || c.with_sample_scale) d_delta = Buffer<Real>({rows, c.width});
    y = Buffer<Real>({rows, c.width});
    rstd = Buffer<Real>({rows});
    if (c.kind == NormKind::layernorm) mean = Buffer<Real>({rows});
  }

  ResidualBranch branch() { return {delta, layer_scale, sample_scale}; }
  Buffer<Real>& normalised() { return c.with_delta ? residual_out : residual; }

  void forward() {
    ops.residual_norm_forward(desc, residual, branch(), residual_out, weight, bias, y, mean, rstd);
  }
  void backward() {
    ExactWorkspace workspace(ops,
                             ops.residual_norm_backward_workspace(c.batch * c.seq_len, c.width));
    ops.residual_norm_backward(desc, normalised(), weight, mean, rstd, dy, c.accumulate, d_residual,
                               dweight, dbias, branch(), d_delta, d_layer_scale);
  }
  std::vector<Buffer<Real>> outputs() const {
    return {residual_out, y, mean, rstd, d_residual, dweight, dbias, d_delta, d_layer_scale};
  }

  NormCase c;
  NormDesc desc;
  CpuOps<Real> ops;
  Buffer<Real> residual, delta, layer_scale, sample_scale, weight, bias, dy, d_from_above;
  Buffer<Real> residual_out, y, mean, rstd, d_residual, d_delta;
  Buffer<Real> dweight, dbias, d_layer_scale, dweight_before, dbias_before, d_layer_scale_before;
};

class NormTest : public ::testing::TestWithParam<NormCase> {};

template <typename Real>
void check_forward(const NormCase& c) {
  NormProblem<Real> p(c, 1);
  p.forward();
  // A sum of `width` terms, its root and four more operations.
  const double tolerance = (c.width + 10) * std::numeric_limits<Real>::epsilon();
  for (int64_t n = 0; n < c.batch * c.seq_len; ++n) {
    std::vector<double> x(c.width);
    double mean = 0.0, variance = 0.0;
    for (int64_t k = 0; k < c.width; ++k) {
      const int64_t at = n * c.width + k;
      x[k] = p.residual[at];
      if (c.with_delta) {
        x[k] += (c.with_layer_scale ? p.layer_scale[k] : 1.0) *
                (c.with_sample_scale ? p.sample_scale[n / c.seq_len] : 1.0) * p.delta[at];
        ASSERT_NEAR(p.residual_out[at], x[k], tolerance * 10);
      }
      mean += x[k] / c.width;
    }
    if (c.kind == NormKind::rmsnorm) mean = 0.0;
    for (const double value : x) variance += (value - mean) * (value - mean) / c.width;
    const double rstd = 1 / std::sqrt(variance + p.desc.eps);
    ASSERT_NEAR(p.rstd[n], rstd, tolerance * rstd * rstd);
    if (c.kind == NormKind::layernorm) {
      ASSERT_NEAR(p.mean[n], mean, tolerance * 5);
    }
    for (int64_t k = 0; k < c.width; ++k) {
      const double exact = (x[k] - mean) * rstd * p.weight[k] + (c.with_bias ? p.bias[k] : 0.0);
      ASSERT_NEAR(p.y[n * c.width + k], exact, tolerance * (1 + rstd) * 10);
    }
  }
}

TEST_P(NormTest, ForwardIsTheFormula) {
  check_forward<double>(GetParam());
  check_forward<float>(GetParam());
}

TEST_P(NormTest, BackwardIsTheGradient) {
  const NormCase c = GetParam();
  NormProblem<double> p(c, 2);
  // What follows uses y and, where a gradient comes from above, residual_out.
  const auto loss = [&] {
    p.forward();
    return dot(p.y, p.dy) + (c.accumulate ? dot(p.normalised(), p.d_from_above) : 0.0);
  };
  loss();
  p.backward();
  EXPECT_LT(relative_error(p.d_residual, numerical_gradient(p.residual, loss)), gradient_tolerance);
  EXPECT_LT(relative_error(added(p.dweight, p.dweight_before), numerical_gradient(p.weight, loss)),
            gradient_tolerance);
  if (c.with_bias) {
    EXPECT_LT(relative_error(added(p.dbias, p.dbias_before), numerical_gradient(p.bias, loss)),
              gradient_tolerance);
  }
  if (p.d_delta.present) {
    EXPECT_LT(relative_error(p.d_delta, numerical_gradient(p.delta, loss)), gradient_tolerance);
  }
  if (c.with_layer_scale) {
    EXPECT_LT(relative_error(added(p.d_layer_scale, p.d_layer_scale_before),
                             numerical_gradient(p.layer_scale, loss)),
              gradient_tolerance);
  }
}

TEST_P(NormTest, FloatAgreesWithDouble) {
  NormProblem<double> exact(GetParam(), 3);
  NormProblem<float> rounded(GetParam(), 3);
  exact.forward(), rounded.forward();
  // Where a row is nearly constant rstd is large, and so is what it does to the rounding of x.
  const double rstd = largest_magnitude(exact.rstd);
  exact.backward(), rounded.backward();
  const auto exact_outputs = exact.outputs();
  const auto rounded_outputs = rounded.outputs();
  for (size_t i = 0; i < exact_outputs.size(); ++i) {
    EXPECT_LT(largest_difference(rounded_outputs[i], exact_outputs[i]) /
                  std::max(1.0, largest_magnitude(exact_outputs[i])),
              50 * std::max(1.0, rstd) * float_roundoff)
        << "output " << i;
  }
}

constexpr NormKind rms = NormKind::rmsnorm, layer = NormKind::layernorm;
INSTANTIATE_TEST_SUITE_P(
    Cases, NormTest,
    ::testing::Values(NormCase{rms, 1, 1, 1, false, false, false, false, false},
                      NormCase{rms, 1, 1, 17, false, false, false, false, true},
                      NormCase{rms, 3, 7, 5, true, false, false, false, true},
                      NormCase{rms, 4, 1, 33, true, true, false, true, false},
                      NormCase{rms, 5, 4, 19, true, true, true, false, true},
                      NormCase{rms, 5, 9, 3, true, false, true, true, true},
                      NormCase{layer, 1, 1, 7, false, false, false, true, false},
                      NormCase{layer, 2, 11, 2, true, false, false, false, true},
                      NormCase{layer, 3, 5, 37, true, true, true, true, true},
                      NormCase{layer, 4, 6, 9, true, false, true, true, false},
                      NormCase{layer, 1, 23, 21, false, false, false, false, true}));

TEST(Norm, ResidualOutMayBeTheResidual) {
  for (const bool with_scales : {false, true}) {
    const NormCase c{layer, 5, 7, 19, true, with_scales, with_scales, true, false};
    NormProblem<float> apart(c, 4), in_place(c, 4);
    apart.forward();
    in_place.ops.residual_norm_forward(in_place.desc, in_place.residual, in_place.branch(),
                                       in_place.residual, in_place.weight, in_place.bias,
                                       in_place.y, in_place.mean, in_place.rstd);
    EXPECT_TRUE(same_bits(apart.residual_out, in_place.residual));
    EXPECT_TRUE(same_bits(apart.y, in_place.y));
  }
}

TEST(Norm, IsTheSameForAnyThreadCount) {
  for (const NormKind kind : {rms, layer}) {
    expect_same_bits_for_any_thread_count<float>([&] {
      NormProblem<float> p({kind, 3, 223, 131, true, true, true, true, true}, 5);
      p.forward();
      p.backward();
      return p.outputs();
    });
  }
}

}  // namespace
}  // namespace sigtrain
