#include "ops/cpu/activation.h"

#include "op_testing.h"

namespace sigtrain {
namespace {

template <typename Function>
void check_derivative_and_float() {
  for (double x = -12.0; x < 12.0; x += 0.0437) {
    const double step = 1e-5;
    const double numerical = (Function::value(x + step) - Function::value(x - step)) / (2 * step);
    EXPECT_NEAR(Function::derivative(x), numerical, 1e-9 * (1 + std::abs(x))) << x;
    const auto rounded = static_cast<float>(x);
    const double exact = Function::value(static_cast<double>(rounded));
    // Phi near 0 is half of 1 + erf, so its error is one of 1; x multiplies it.
    EXPECT_NEAR(Function::value(rounded), exact,
                6 * float_roundoff * (std::abs(exact) + std::abs(x)))
        << x;
    EXPECT_NEAR(Function::derivative(rounded), Function::derivative(static_cast<double>(rounded)),
                10 * float_roundoff * (1 + std::abs(x)))
        << x;
  }
  EXPECT_TRUE(std::isnan(Function::value(std::nanf(""))));
  EXPECT_TRUE(std::isnan(Function::derivative(std::nanf(""))));
}

TEST(Activation, GeluAndItsDerivative) { check_derivative_and_float<Gelu>(); }
TEST(Activation, Relu2AndItsDerivative) { check_derivative_and_float<Relu2>(); }

template <typename Real>
void check_activation(Activation activation) {
  CpuOps<Real> ops;
  RandomValues random(1);
  constexpr int64_t rows = 5, in = 7, out = 37;
  auto x = random.normal<Real>({rows, in}), weight = random.normal<Real>({out, in});
  Buffer<Real> pre_activation({rows, out}), expected({rows, out}), y({rows, out});
  ops.linear_forward(x, weight, {}, activation, pre_activation, expected);
  ops.activation_forward(activation, pre_activation, y);
  EXPECT_EQ(y.values, expected.values);
}

TEST(Activation, AloneHasTheBitsOfTheLinearLayers) {
  for (const Activation activation : {Activation::gelu, Activation::relu2}) {
    check_activation<float>(activation);
    check_activation<double>(activation);
  }
  CpuOps<float> ops;
  Buffer<float> x({1, 1}), y({1, 1});
  EXPECT_THROW(ops.activation_forward(Activation::none, x, y), Error);
}

struct SwigluShape {
  int64_t rows, hidden;
};

class SwigluTest : public ::testing::TestWithParam<SwigluShape> {};

template <typename Real>
void check_forward(const SwigluShape& s) {
  CpuOps<Real> ops;
  RandomValues random(1);
  auto x = random.normal<Real>({s.rows, 2 * s.hidden}, 5.0);
  Buffer<Real> y({s.rows, s.hidden});
  ops.swiglu_forward(x, y);
  for (int64_t n = 0; n < s.rows; ++n) {
    for (int64_t f = 0; f < s.hidden; ++f) {
      const double gate = x[n * 2 * s.hidden + f], up = x[n * 2 * s.hidden + s.hidden + f];
      const double exact = gate / (1 + std::exp(-gate)) * up;
      ASSERT_NEAR(y[n * s.hidden + f], exact,
                  8 * std::numeric_limits<Real>::epsilon() * std::abs(exact));
    }
  }
}

TEST_P(SwigluTest, ForwardIsTheFormula) {
  check_forward<double>(GetParam());
  check_forward<float>(GetParam());
}

TEST_P(SwigluTest, BackwardIsTheGradient) {
  const auto [rows, hidden] = GetParam();
  CpuOps<double> ops;
  RandomValues random(2);
  auto x = random.normal<double>({rows, 2 * hidden}, 2.0);
  auto dy = random.normal<double>({rows, hidden});
  Buffer<double> y(dy.shape), dx(x.shape);
  ops.swiglu_backward(x, dy, dx);
  const auto loss = [&] {
    ops.swiglu_forward(x, y);
    return dot(y, dy);
  };
  EXPECT_LT(relative_error(dx, numerical_gradient(x, loss)), gradient_tolerance);

  CpuOps<float> float_ops;
  RandomValues same_random(2);
  auto x_float = same_random.normal<float>(x.shape, 2.0);
  auto dy_float = same_random.normal<float>(dy.shape);
  Buffer<float> dx_float(x.shape);
  float_ops.swiglu_backward(x_float, dy_float, dx_float);
  EXPECT_LT(relative_error(dx_float, dx), 20 * float_roundoff);
}

INSTANTIATE_TEST_SUITE_P(Shapes, SwigluTest,
                         ::testing::Values(SwigluShape{1, 1}, SwigluShape{1, 37}, SwigluShape{9, 1},
                                           SwigluShape{7, 19}));

TEST(Swiglu, IsTheSameForAnyThreadCount) {
  constexpr int64_t rows = 507, hidden = 83;
  RandomValues random(3);
  auto x = random.normal<float>({rows, 2 * hidden}), dy = random.normal<float>({rows, hidden});
  expect_same_bits_for_any_thread_count<float>([&] {
    CpuOps<float> ops;
    Buffer<float> y(dy.shape), dx(x.shape);
    ops.swiglu_forward(x, y);
    ops.swiglu_backward(x, dy, dx);
    return std::vector{y, dx};
  });
}

}  // namespace
}  // namespace sigtrain
