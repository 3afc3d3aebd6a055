#include "op_testing.h"

namespace sigtrain {
namespace {

constexpr RandomStream stream{7, 3};

template <typename Real>
Buffer<Real> ones(int64_t n) {
  Buffer<Real> x({n});
  std::fill(x.values.begin(), x.values.end(), Real(1));
  return x;
}

template <typename Real>
Buffer<Real> dropped(Buffer<Real> x, double p, uint64_t step, RandomStream from = stream) {
  CpuOps<Real> ops;
  ops.set_random_step(step);
  Buffer<Real> y(x.shape);
  ops.dropout(from, p, x, y);
  return y;
}

template <typename Real>
void check_dropout_formula() {
  constexpr double p = 0.3;
  // Sizes around a Philox block, a batch of them and a piece of work.
  for (const int64_t n : {1, 3, 4, 5, 255, 256, 257, 16384, 16387, 40001}) {
    auto x = RandomValues(n).normal<Real>({n});
    const auto y = dropped(x, p, 11);
    for (int64_t i = 0; i < n; ++i) {
      const float uniform = uniform_from_bits(stream.block(i / 4, 11).words[i % 4]);
      const Real exact = uniform >= 0.3F ? x[i] * static_cast<Real>(1 / (1 - p)) : Real(0);
      ASSERT_EQ(y[i], exact) << i << " of " << n;
    }
  }
}

TEST(Dropout, IsTheFormula) {
  check_dropout_formula<float>();
  check_dropout_formula<double>();
}

TEST(Dropout, KeepsTheShareAskedForAndTheMean) {
  constexpr int64_t n = 200000;
  for (const double p : {0.1, 0.5, 0.9}) {
    const auto y = dropped(ones<float>(n), p, 1);
    const auto kept =
        std::count_if(y.values.begin(), y.values.end(), [](float v) { return v != 0; });
    // Five standard deviations of a binomial share.
    EXPECT_NEAR(static_cast<double>(kept) / n, 1 - p, 5 * std::sqrt(p * (1 - p) / n));
  }
}

TEST(Dropout, ReplaysItsMaskAndDrawsAnotherAtEachStepAndStream) {
  const auto x = ones<float>(1000);
  const auto first = dropped(x, 0.5, 1);
  EXPECT_TRUE(same_bits(dropped(x, 0.5, 1), first));
  EXPECT_FALSE(same_bits(dropped(x, 0.5, 2), first));
  EXPECT_FALSE(same_bits(dropped(x, 0.5, 1, {7, 4}), first));
  EXPECT_FALSE(same_bits(dropped(x, 0.5, 1, {8, 3}), first));
}

TEST(Dropout, InPlaceGivesTheSame) {
  auto x = RandomValues(1).normal<float>({777});
  const auto y = dropped(x, 0.25, 5);
  CpuOps<float> ops;
  ops.set_random_step(5);
  ops.dropout(stream, 0.25, x, x);
  EXPECT_TRUE(same_bits(x, y));
}

TEST(Dropout, OfNothingAndOfEverything) {
  auto x = RandomValues(1).normal<float>({100});
  EXPECT_TRUE(same_bits(dropped(x, 0.0, 1), x));
  EXPECT_EQ(largest_magnitude(dropped(x, 1.0, 1)), 0.0);
}

TEST(Dropout, KeepsAnElementWhoseNumberIsExactlyTheProbability) {
  const double p = uniform_from_bits(stream.block(0, 1).words[2]);
  EXPECT_NE(dropped(ones<float>(4), p, 1)[2], 0.0F);
  EXPECT_EQ(dropped(ones<float>(4), p + 0x1p-24, 1)[2], 0.0F);
}

TEST(Dropout, ZerosWhatItDropsEvenIfNotFinite) {
  Buffer<float> x({100});  // of NaN
  const auto y = dropped(x, 0.5, 1);
  EXPECT_GT(std::count(y.values.begin(), y.values.end(), 0.0F), 20);
}

TEST(Dropout, IsTheSameForAnyThreadCount) {
  const auto x = RandomValues(2).normal<float>({100003});
  expect_same_bits_for_any_thread_count<float>([&] { return std::vector{dropped(x, 0.4, 9)}; });
}

TEST(Dropout, NextStepIsTheOneBehind) {
  const auto x = RandomValues(2).normal<float>({1000});
  const auto from = [&](uint64_t step, int further) {
    CpuOps<float> ops;
    ops.set_random_step(step);
    for (int i = 0; i < further; ++i) ops.next_random_step();
    Buffer<float> in = x, y({1000});
    ops.dropout(stream, 0.5, in, y);
    return y.values;
  };
  EXPECT_EQ(from(7, 2), from(9, 0));
  EXPECT_NE(from(7, 0), from(9, 0));
}

template <typename Real>
void check_stochastic_depth() {
  constexpr double p = 0.2;
  constexpr int64_t batch = 10000;
  CpuOps<Real> ops;
  ops.set_random_step(6);
  Buffer<Real> scale({batch});
  ops.stochastic_depth(stream, p, scale);
  int64_t dropped_samples = 0;
  for (int64_t b = 0; b < batch; ++b) {
    const bool keep = uniform_from_bits(stream.block(b, 6).words[0]) >= 0.2F;
    ASSERT_EQ(scale[b], keep ? static_cast<Real>(1 / (1 - p)) : Real(0));
    dropped_samples += !keep;
  }
  EXPECT_NEAR(static_cast<double>(dropped_samples) / batch, p, 5 * std::sqrt(p * (1 - p) / batch));
}

TEST(StochasticDepth, IsTheFormula) {
  check_stochastic_depth<float>();
  check_stochastic_depth<double>();
}

}  // namespace
}  // namespace sigtrain
