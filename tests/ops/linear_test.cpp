#include "op_testing.h"

namespace sigtrain {
namespace {

double activate(Activation activation, double z) {
  switch (activation) {
    case Activation::none:
      return z;
    case Activation::gelu:
      return z * 0.5 * std::erfc(-z / std::sqrt(2.0));
    case Activation::relu2:
      return z > 0 ? z * z : 0.0;
  }
  return 0.0;
}

struct LinearCase {
  int64_t rows, in, out;
  bool with_bias;
  Activation activation;
};

class LinearTest : public ::testing::TestWithParam<LinearCase> {};

// y against the formula in double. Each pre-activation errs by at most in + 2 rounding errors of
// the sum of the magnitudes of its terms; the derivative of an activation is at most `steepest`
// there, and it adds a few roundings of its own.
template <typename Real>
void check_forward(const LinearCase& c) {
  CpuOps<Real> ops;
  RandomValues random(1);
  auto x = random.normal<Real>({c.rows, c.in});
  auto weight = random.normal<Real>({c.out, c.in});
  auto bias = random.normal_if<Real>(c.with_bias, {c.out});
  Buffer<Real> y({c.rows, c.out}), z;
  if (c.activation != Activation::none) z = Buffer<Real>({c.rows, c.out});
  ops.linear_forward(x, weight, bias, c.activation, z, y);

  const double roundoff = std::numeric_limits<Real>::epsilon() / 2;
  for (int64_t n = 0; n < c.rows; ++n) {
    for (int64_t o = 0; o < c.out; ++o) {
      double exact = c.with_bias ? bias[o] : Real(0), magnitude = std::abs(exact);
      for (int64_t i = 0; i < c.in; ++i) {
        const double term = static_cast<double>(x[n * c.in + i]) * weight[o * c.in + i];
        exact += term;
        magnitude += std::abs(term);
      }
      const double tolerance = (c.in + 2) * roundoff * magnitude;
      const int64_t at = n * c.out + o;
      if (z.present) {
        ASSERT_NEAR(z[at], exact, tolerance);
      }
      const double steepest = c.activation == Activation::relu2 ? 2 * magnitude + 1 : 1.2;
      ASSERT_NEAR(y[at], activate(c.activation, exact), steepest * tolerance + 8 * roundoff);
    }
  }
}

TEST_P(LinearTest, ForwardIsTheFormula) {
  check_forward<double>(GetParam());
  check_forward<float>(GetParam());
}

TEST_P(LinearTest, BackwardIsTheGradient) {
  const LinearCase c = GetParam();
  CpuOps<double> ops;
  RandomValues random(2);
  // The layer's input is the activation of what comes before: x = activation(z), y = x W^T + b.
  auto z = random.normal<double>({c.rows, c.in});
  auto weight = random.normal<double>({c.out, c.in});
  auto bias = random.normal_if<double>(c.with_bias, {c.out});
  auto dy = random.normal<double>({c.rows, c.out});
  const bool activated = c.activation != Activation::none;
  Buffer<double> x({c.rows, c.in}), y({c.rows, c.out}), bias_before({c.in});
  std::fill(bias_before.values.begin(), bias_before.values.end(), 0.0);
  const auto loss = [&] {
    for (int64_t i = 0; i < x.size(); ++i)
      x[i] = activate(c.activation, z[i] + bias_before[i % c.in]);
    ops.linear_forward(x, weight, bias, Activation::none, {}, y);
    return dot(y, dy);
  };
  loss();
  Buffer<double> dx(x.shape);
  auto dweight = random.normal<double>(weight.shape);
  auto dbias = random.normal_if<double>(c.with_bias, {c.out});
  auto d_bias_before = random.normal_if<double>(activated, {c.in});
  const auto dweight_at_first = dweight, dbias_at_first = dbias,
             d_bias_before_at_first = d_bias_before;
  ExactWorkspace workspace(ops, ops.linear_backward_workspace(c.rows, c.in, c.out));
  ops.linear_backward(x, weight, dy, c.activation, activated ? Tensor(z) : Tensor{}, dx, dweight,
                      dbias, d_bias_before);
  EXPECT_LT(relative_error(dx, numerical_gradient(z, loss)), gradient_tolerance);
  EXPECT_LT(relative_error(added(dweight, dweight_at_first), numerical_gradient(weight, loss)),
            gradient_tolerance);
  if (c.with_bias) {
    EXPECT_LT(relative_error(added(dbias, dbias_at_first), numerical_gradient(bias, loss)),
              gradient_tolerance);
  }
  if (activated) {
    EXPECT_LT(relative_error(added(d_bias_before, d_bias_before_at_first),
                             numerical_gradient(bias_before, loss)),
              gradient_tolerance);
  }
  loss();  // x as it was
  // Without dx the parameters' gradients are the same.
  auto dweight_alone = dweight_at_first, dbias_alone = dbias_at_first;
  ops.linear_backward(x, weight, dy, c.activation, activated ? Tensor(z) : Tensor{}, {},
                      dweight_alone, dbias_alone, {});
  EXPECT_TRUE(same_bits(dweight_alone, dweight));
  EXPECT_TRUE(same_bits(dbias_alone, dbias));
}

INSTANTIATE_TEST_SUITE_P(Cases, LinearTest,
                         ::testing::Values(LinearCase{1, 1, 1, false, Activation::none},
                                           LinearCase{1, 7, 1, true, Activation::none},
                                           LinearCase{19, 1, 3, true, Activation::gelu},
                                           LinearCase{5, 11, 7, false, Activation::none},
                                           LinearCase{5, 11, 7, false, Activation::gelu},
                                           LinearCase{37, 5, 9, true, Activation::relu2},
                                           LinearCase{3, 13, 17, false, Activation::relu2},
                                           LinearCase{18, 17, 21, true, Activation::gelu}));

TEST(Linear, BackwardInFloatAgreesWithDouble) {
  constexpr int64_t rows = 150, in = 33, out = 45;
  for (const Activation activation : {Activation::gelu, Activation::relu2}) {
    const auto run = [&](auto zero) {
      using Real = decltype(zero);
      CpuOps<Real> ops;
      RandomValues random(3);
      auto z = random.normal<Real>({rows, in}), x = random.normal<Real>({rows, in});
      auto weight = random.normal<Real>({out, in}), dy = random.normal<Real>({rows, out});
      Buffer<Real> dx(x.shape), dweight(weight.shape), dbias({out}), dbias_before({in});
      for (auto* sums : {&dweight, &dbias, &dbias_before})
        std::fill(sums->values.begin(), sums->values.end(), zero);
      ExactWorkspace workspace(ops, ops.linear_backward_workspace(rows, in, out));
      ops.linear_backward(x, weight, dy, activation, z, dx, dweight, dbias, dbias_before);
      return std::vector{dx, dweight, dbias, dbias_before};
    };
    const auto exact = run(0.0);
    const auto rounded = run(0.0F);
    // n + 3 rounding errors of a sum of n terms below 20 (for relu2: times a derivative below 10).
    EXPECT_LT(largest_difference(rounded[0], exact[0]), (out + 3) * out * 20 * 10 * float_roundoff);
    EXPECT_LT(largest_difference(rounded[1], exact[1]), (rows + 3) * rows * 20 * float_roundoff);
    EXPECT_LT(largest_difference(rounded[2], exact[2]), (rows + 3) * rows * 5 * float_roundoff);
    // What is typical is far below the bound of what is possible.
    for (int i = 0; i < 4; ++i) EXPECT_LT(relative_error(rounded[i], exact[i]), 2e-6);
  }
}

TEST(Linear, IsTheSameForAnyThreadCount) {
  constexpr int64_t rows = 1035, in = 67, out = 530;
  RandomValues random(4);
  auto x = random.normal<float>({rows, in}), weight = random.normal<float>({out, in});
  auto bias = random.normal<float>({out}), dy = random.normal<float>({rows, out});
  auto z_in = random.normal<float>({rows, in});
  const auto dweight_at_first = random.normal<float>({out, in});
  const auto dbias_at_first = random.normal<float>({out});
  const auto before_at_first = random.normal<float>({in});
  for (const Activation activation : {Activation::gelu, Activation::relu2}) {
    expect_same_bits_for_any_thread_count<float>([&] {
      CpuOps<float> ops;
      Buffer<float> y({rows, out}), z({rows, out}), dx({rows, in});
      auto dweight = dweight_at_first, dbias = dbias_at_first, d_bias_before = before_at_first;
      ExactWorkspace workspace(ops, ops.linear_backward_workspace(rows, in, out));
      ops.linear_forward(x, weight, bias, activation, z, y);
      ops.linear_backward(x, weight, dy, activation, z_in, dx, dweight, dbias, d_bias_before);
      return std::vector{y, z, dx, dweight, dbias, d_bias_before};
    });
  }
}

TEST(Linear, RefusesAWorkspaceTooSmall) {
  CpuOps<float> ops;
  RandomValues random(5);
  auto x = random.normal<float>({40, 3}), weight = random.normal<float>({5, 3});
  auto dy = random.normal<float>({40, 5}), dweight = weight, dbias = random.normal<float>({5});
  const auto run = [&] {
    ops.linear_backward(x, weight, dy, Activation::none, {}, {}, dweight, dbias, {});
  };
  EXPECT_THROW(run(), Error);
  ExactWorkspace workspace(ops, ops.linear_backward_workspace(40, 3, 5) - 4);
  EXPECT_THROW(run(), Error);
}

}  // namespace
}  // namespace sigtrain
