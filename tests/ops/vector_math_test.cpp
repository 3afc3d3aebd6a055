#include "ops/cpu/vector_math.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <limits>

namespace sigtrain {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float nan = std::numeric_limits<float>::quiet_NaN();

// Largest relative error against `exact` over a grid that is no multiple of a power of two.
template <typename Function, typename Exact>
double largest_error(Function function, Exact exact, double low, double high) {
  constexpr int points = 400003;
  double largest = 0.0;
  for (int i = 0; i <= points; ++i) {
    const auto x = static_cast<float>(low + (high - low) * i / points);
    const double expected = exact(static_cast<double>(x));
    const double error = std::abs(function(x) - expected);
    if (error > 0.0) largest = std::max(largest, error / std::abs(expected));
  }
  return largest;
}

double exact_sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

// 2 ulp are at most 2 * 2^-23 = 2.4e-7 of the value.
TEST(VectorMath, ExpIsWithinTwoUlpWhereItIsNormal) {
  const auto exact = [](double x) { return std::exp(x); };
  EXPECT_LT(largest_error(fast_exp<float>, exact, -87.33, 88.37), 2.4e-7);
  EXPECT_LT(largest_error(fast_exp<float>, exact, -1.0, 1.0), 2.4e-7);
  EXPECT_EQ(fast_exp(0.0F), 1.0F);
}

TEST(VectorMath, ExpOutsideTheNormalNumbers) {
  for (float x : {-87.4F, -100.0F, -1e30F, -infinity}) EXPECT_EQ(fast_exp(x), 0.0F) << x;
  for (float x : {88.4F, 88.8F, 1e30F, infinity}) EXPECT_EQ(fast_exp(x), infinity) << x;
  EXPECT_TRUE(std::isnan(fast_exp(nan)));
  EXPECT_TRUE(std::isnan(fast_exp(-nan)));
  EXPECT_TRUE(std::isnan(fast_exp(std::bit_cast<float>(0xFFFFFFFFU))));
}

TEST(VectorMath, SigmoidIsAccurateFarFromZero) {
  EXPECT_LT(largest_error(sigmoid<float>, exact_sigmoid, -80.0, 80.0), 3e-7);
  EXPECT_LT(largest_error(sigmoid<float>, exact_sigmoid, -20.0, 20.0), 3e-7);
  for (float x : {-100.0F, -1e30F, -infinity}) EXPECT_EQ(sigmoid(x), 0.0F) << x;
  for (float x : {100.0F, 1e30F, infinity}) EXPECT_EQ(sigmoid(x), 1.0F) << x;
  EXPECT_EQ(sigmoid(0.0F), 0.5F);
  EXPECT_TRUE(std::isnan(sigmoid(nan)));
  EXPECT_TRUE(std::isnan(sigmoid(std::bit_cast<float>(0xFFFFFFFFU))));
}

TEST(VectorMath, DerivativeOfSigmoidIsAccurateWhereSigmoidRoundsToOne) {
  const auto value = [](float x) { return sigmoid_and_derivative(x).value; };
  const auto derivative = [](float x) { return sigmoid_and_derivative(x).derivative; };
  const auto exact = [](double x) { return exact_sigmoid(x) * exact_sigmoid(-x); };
  EXPECT_LT(largest_error(value, exact_sigmoid, -80.0, 80.0), 4e-7);
  EXPECT_LT(largest_error(derivative, exact, -80.0, 80.0), 6e-7);
  EXPECT_EQ(derivative(infinity), 0.0F);
  EXPECT_EQ(derivative(-infinity), 0.0F);
}

TEST(VectorMath, ErfIsAccurateAlsoNearZero) {
  const auto exact = [](double x) { return std::erf(x); };
  EXPECT_LT(largest_error(fast_erf<float>, exact, -6.0, 6.0), 3e-7);
  EXPECT_LT(largest_error(fast_erf<float>, exact, -1e-3, 1e-3), 3e-7);
  EXPECT_LT(largest_error(fast_erf<float>, exact, 0.99, 1.01), 3e-7);
  EXPECT_EQ(fast_erf(infinity), 1.0F);
  EXPECT_EQ(fast_erf(-infinity), -1.0F);
  EXPECT_TRUE(std::isnan(fast_erf(nan)));
}

TEST(VectorMath, VectorLoopsGiveTheSameBitsAsSingleCalls) {
  std::array<float, 1003> x{}, vectorised{};
  for (size_t i = 0; i < x.size(); ++i) x[i] = -100.0F + 0.2F * static_cast<float>(i);
#pragma omp simd
  for (size_t i = 0; i < x.size(); ++i)
    vectorised[i] = fast_exp(x[i]) + sigmoid(x[i]) + fast_erf(x[i]);
  for (size_t i = 0; i < x.size(); ++i) {
    volatile float single = x[i];
    const float value = single;
    EXPECT_EQ(vectorised[i], fast_exp(value) + sigmoid(value) + fast_erf(value)) << x[i];
  }
}

TEST(VectorMath, DoubleIsTheStandardLibrarys) {
  EXPECT_EQ(fast_exp(-100.0), std::exp(-100.0));
  EXPECT_EQ(fast_erf(0.3), std::erf(0.3));
  EXPECT_DOUBLE_EQ(sigmoid(-700.0), std::exp(-700.0));
}

}  // namespace
}  // namespace sigtrain
