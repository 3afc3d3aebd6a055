#include <gtest/gtest.h>

#include "tools/bench/attention_cases.h"

namespace sigtrain {
namespace {

class AttentionOnGpu : public testing::TestWithParam<std::tuple<AttentionKind, int64_t>> {};

TEST_P(AttentionOnGpu, AgreesWithTheCpuInDoubleAndWithItself) {
  if (const std::string reason = CudaOps::unavailable_reason(); !reason.empty())
    GTEST_SKIP() << "NOT TESTED: " << reason;
  CudaOps ops;
  const auto [kind, head_dim] = GetParam();
  for (const AttentionCase& attention_case : attention_cases(kind, head_dim)) {
    const AttentionCheck check = check_attention(ops, attention_case);
    for (size_t i = 0; i < check.errors.size(); ++i)
      EXPECT_LE(check.errors[i], AttentionCheck::tolerances[i])
          << attention_case.name << ": " << AttentionCheck::names[i];
    EXPECT_TRUE(check.same_bits_twice) << attention_case.name;
  }
}

INSTANTIATE_TEST_SUITE_P(
    KindsAndHeadDims, AttentionOnGpu,
    testing::Combine(testing::Values(AttentionKind::sigmoid, AttentionKind::softmax),
                     testing::Values(32, 64, 96, 128, 192)),
    [](const auto& info) {
      return fmt::format("{}{}",
                         std::get<0>(info.param) == AttentionKind::sigmoid ? "sigmoid" : "softmax",
                         std::get<1>(info.param));
    });

TEST(AttentionOnGpu, WeightsAreAccurateFromMinus20To20) {
  if (const std::string reason = CudaOps::unavailable_reason(); !reason.empty())
    GTEST_SKIP() << "NOT TESTED: " << reason;
  CudaOps ops;
  // A query of zeros that sees one key: the sum of its weights is sigmoid(bias), in fp32.
  for (double bias = -20.0; bias <= 20.0; bias += 0.25) {
    AttentionCase one{"one key", {AttentionKind::sigmoid, 1, 1, 1, 1, 32, 0.0, bias, false, 0}};
    AttentionProblem problem(one, 1);
    const double got = problem.on_gpu(ops).row_sum[0];
    const double exact = 1.0 / (1.0 + std::exp(-bias));
    // fp32 holds bias * log2(e) to 2^-24 of 28.9, which is what the result is off by, and the
    // special functions add 2^-22 each.
    EXPECT_NEAR(got / exact, 1.0, 0x1p-18) << bias;
  }
}

TEST(AttentionOnGpu, RefusesWhatItHasNoKernelFor) {
  if (const std::string reason = CudaOps::unavailable_reason(); !reason.empty())
    GTEST_SKIP() << "NOT TESTED: " << reason;
  CudaOps ops;
  AttentionProblem problem({"head_dim 40", {AttentionKind::sigmoid, 1, 8, 1, 1, 40}}, 1);
  EXPECT_THROW(problem.on_gpu(ops), Error);
}

}  // namespace
}  // namespace sigtrain
