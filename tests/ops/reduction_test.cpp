#include "op_testing.h"

namespace sigtrain {
namespace {

template <typename Real>
void check_reductions(int64_t n) {
  CpuOps<Real> ops;
  auto x = RandomValues(n).normal<Real>({n}, 1.0, 0.5);
  long double sum = 0, squares = 0;
  for (const Real value : x.values) {
    sum += value;
    squares += static_cast<long double>(value) * value;
  }
  Buffer<Real> rms({1}), mean({1}), sum_of_squares({1});
  ExactWorkspace workspace(ops, ops.reduction_workspace(n));
  ops.root_mean_square(x, rms);
  ops.mean(x, mean);
  ops.sum_of_squares(x, sum_of_squares);
  // Sums are of doubles whatever the tensor holds, so only the result is rounded to Real.
  const double roundoff = std::numeric_limits<Real>::epsilon() + 1e-12;
  EXPECT_NEAR(rms[0], std::sqrt(static_cast<double>(squares / n)), 2 * roundoff);
  EXPECT_NEAR(mean[0], static_cast<double>(sum / n), 2 * roundoff);
  EXPECT_NEAR(sum_of_squares[0] / static_cast<double>(squares), 1.0, roundoff);
}

TEST(Reduction, IsTheFormula) {
  for (const int64_t n : {1, 2, 17, 16383, 16384, 16385, 100003}) {
    check_reductions<float>(n);
    check_reductions<double>(n);
  }
}

TEST(Reduction, DoesNotLoseSmallTermsInFloat) {
  constexpr int64_t n = 1 << 20;
  Buffer<float> x({n}), result({1});
  std::fill(x.values.begin(), x.values.end(), 1e-4F);
  x[0] = 4096.0F;  // in float 4096^2 + 1e-8 is 4096^2
  CpuOps<float> ops;
  ExactWorkspace workspace(ops, ops.reduction_workspace(n));
  ops.mean(x, result);
  EXPECT_NEAR(result[0], (4096.0 + (n - 1) * 1e-4) / n, 1e-9);
}

TEST(Reduction, CarriesNanAndInfinity) {
  CpuOps<float> ops;
  auto x = RandomValues(1).normal<float>({20000});
  Buffer<float> result({1});
  ExactWorkspace workspace(ops, ops.reduction_workspace(20000));
  x[17000] = std::numeric_limits<float>::infinity();
  ops.sum_of_squares(x, result);
  EXPECT_TRUE(std::isinf(result[0]));
  x[3] = std::numeric_limits<float>::quiet_NaN();
  ops.sum_of_squares(x, result);
  EXPECT_TRUE(std::isnan(result[0]));
}

TEST(Reduction, IsTheSameForAnyThreadCount) {
  constexpr int64_t n = 150001;
  auto x = RandomValues(2).normal<float>({n});
  expect_same_bits_for_any_thread_count<float>([&] {
    CpuOps<float> ops;
    ExactWorkspace workspace(ops, ops.reduction_workspace(n));
    Buffer<float> rms({1}), mean({1}), sum_of_squares({1});
    ops.root_mean_square(x, rms);
    ops.mean(x, mean);
    ops.sum_of_squares(x, sum_of_squares);
    return std::vector{rms, mean, sum_of_squares};
  });
}

TEST(Reduction, RefusesAWorkspaceTooSmall) {
  CpuOps<float> ops;
  auto x = RandomValues(3).normal<float>({20000});
  Buffer<float> result({1});
  ExactWorkspace workspace(ops, ops.reduction_workspace(20000) - 4);
  EXPECT_THROW(ops.mean(x, result), Error);
}

}  // namespace
}  // namespace sigtrain
