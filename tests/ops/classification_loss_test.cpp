#include <gmock/gmock.h>

#include "op_testing.h"

namespace sigtrain {
namespace {

struct LossCase {
  int64_t rows, classes;
  bool targets;
};

class ClassificationLossTest : public ::testing::TestWithParam<LossCase> {};

template <typename Real>
struct Loss {
  explicit Loss(const LossCase& c) {
    RandomValues random(5);
    logits = random.normal<Real>({c.rows, c.classes}, 2.0);
    labels = random.integers({c.rows}, 0, c.classes);
    if (c.rows > 2) labels[1] = -1;
    if (c.targets) {
      targets = Buffer<Real>(logits.shape);
      for (int64_t n = 0; n < c.rows; ++n) {
        double sum = 0.0;
        for (int64_t j = 0; j < c.classes; ++j)
          sum += targets[n * c.classes + j] = static_cast<Real>(random.integer(1, 100));
        for (int64_t j = 0; j < c.classes; ++j)
          targets[n * c.classes + j] /= static_cast<Real>(sum);
      }
    }
    sums = random.normal<Real>({class_sum_slots});
    before = sums;
    d_logits = Buffer<Real>(logits.shape);
  }
  void run() { ops.classification_loss(scale, logits, labels, targets, sums, d_logits); }
  double sum(int slot) const { return static_cast<double>(sums[slot]) - before[slot]; }

  static constexpr double scale = 0.25;
  CpuOps<Real> ops;
  Buffer<Real> logits, targets, sums, before, d_logits;
  Buffer<int32_t> labels;
};

TEST_P(ClassificationLossTest, IsTheFormula) {
  const LossCase c = GetParam();
  Loss<double> loss(c);
  loss.run();
  double objective = 0.0, nll = 0.0, count = 0.0, correct = 0.0, of_5 = 0.0;
  for (int64_t n = 0; n < c.rows; ++n) {
    if (loss.labels[n] < 0) continue;
    const double* x = &loss.logits.values[static_cast<size_t>(n * c.classes)];
    double z = 0.0;
    for (int64_t j = 0; j < c.classes; ++j) z += std::exp(x[j]);
    std::vector<double> sorted(x, x + c.classes);
    std::sort(sorted.rbegin(), sorted.rend());
    const double own = x[loss.labels[n]];
    nll -= std::log(std::exp(own) / z);
    ++count;
    correct += own == sorted[0];
    of_5 += own >= sorted[static_cast<size_t>(std::min<int64_t>(5, c.classes) - 1)];
    for (int64_t j = 0; j < c.classes; ++j) {
      const double target =
          c.targets ? loss.targets[n * c.classes + j] : (j == loss.labels[n] ? 1.0 : 0.0);
      objective -= target * std::log(std::exp(x[j]) / z);
    }
  }
  EXPECT_NEAR(loss.sum(class_sum_objective), objective, 1e-12 * objective);
  EXPECT_NEAR(loss.sum(class_sum_nll), nll, 1e-12 * nll);
  EXPECT_NEAR(loss.sum(class_sum_count), count, 1e-12);
  EXPECT_NEAR(loss.sum(class_sum_correct), correct, 1e-12);
  EXPECT_NEAR(loss.sum(class_sum_correct_of_5), of_5, 1e-12);

  Loss<float> narrow(c);
  narrow.run();
  EXPECT_NEAR(narrow.sum(class_sum_objective), objective, 4 * float_roundoff * objective + 1e-6);
  EXPECT_LT(largest_difference(narrow.d_logits, loss.d_logits), 16 * float_roundoff);
}

TEST_P(ClassificationLossTest, ItsGradientIsTheSlope) {
  Loss<double> loss(GetParam());
  loss.run();
  const auto objective = [&] {
    loss.sums = loss.before;
    loss.ops.classification_loss(loss.scale, loss.logits, loss.labels, loss.targets, loss.sums, {});
    return loss.scale * loss.sums[class_sum_objective];
  };
  EXPECT_LT(relative_error(loss.d_logits, numerical_gradient(loss.logits, objective)),
            gradient_tolerance);
}

INSTANTIATE_TEST_SUITE_P(Cases, ClassificationLossTest,
                         ::testing::Values(LossCase{1, 2, false}, LossCase{4, 10, true},
                                           LossCase{7, 10, false}, LossCase{5, 3, true},
                                           LossCase{3, 1000, true}));

TEST(ClassificationLoss, TakesTheFirstOfEqualLogitsForTheLargest) {
  CpuOps<double> ops;
  Buffer<double> logits({3, 7}), sums({class_sum_slots});
  std::fill(logits.values.begin(), logits.values.end(), 1.5);
  std::fill(sums.values.begin(), sums.values.end(), 0.0);
  Buffer<int32_t> labels({3});
  labels[0] = 0, labels[1] = 4, labels[2] = 5;
  ops.classification_loss(1.0, logits, labels, {}, sums, {});
  EXPECT_EQ(sums[class_sum_correct], 1.0);
  EXPECT_EQ(sums[class_sum_correct_of_5], 2.0);
}

TEST(ClassificationLoss, FindsNothingCorrectAmongNaNs) {
  CpuOps<float> ops;
  Buffer<float> logits({2, 7}), sums({class_sum_slots});
  std::fill(logits.values.begin(), logits.values.end(), std::numeric_limits<float>::quiet_NaN());
  logits[7 + 3] = 1.0F;
  std::fill(sums.values.begin(), sums.values.end(), 0.0F);
  Buffer<int32_t> labels({2});
  labels[0] = 0, labels[1] = 3;
  ops.classification_loss(1.0, logits, labels, {}, sums, {});
  EXPECT_EQ(sums[class_sum_count], 2.0F);
  EXPECT_EQ(sums[class_sum_correct], 0.0F);
  EXPECT_EQ(sums[class_sum_correct_of_5], 0.0F);
  EXPECT_TRUE(std::isnan(sums[class_sum_nll]));
}

TEST(ClassificationLoss, SurvivesLogitsOfAnySize) {
  CpuOps<float> ops;
  Buffer<float> logits({1, 3}), sums({class_sum_slots}), d_logits({1, 3});
  logits[0] = 1e30F, logits[1] = -1e30F, logits[2] = 0.0F;
  std::fill(sums.values.begin(), sums.values.end(), 0.0F);
  Buffer<int32_t> labels({1});
  labels[0] = 0;
  ops.classification_loss(1.0, logits, labels, {}, sums, d_logits);
  EXPECT_EQ(sums[class_sum_nll], 0.0F);
  for (const float gradient : d_logits.values) EXPECT_EQ(gradient, 0.0F);
}

TEST(ClassificationLoss, RefusesALabelThatIsNoClass) {
  CpuOps<double> ops;
  RandomValues random(6);
  auto logits = random.normal<double>({2, 3}), sums = random.normal<double>({class_sum_slots});
  Buffer<int32_t> labels({2});
  labels[0] = 2, labels[1] = 3;
  try {
    ops.classification_loss(1.0, logits, labels, {}, sums, {});
    FAIL() << "label 3 of 3 went unnoticed";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("label of row 1 is 3, but the model has 3"));
  }
}

}  // namespace
}  // namespace sigtrain
