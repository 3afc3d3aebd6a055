// Diagnostics of a step are those of all its micro-batches.
#include "nn/diagnostics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "ops/cpu/cpu_ops.h"

namespace sigtrain {
namespace {

using testing::DoubleEq;
using testing::ElementsAre;

class DiagnosticsTest : public testing::Test {
 protected:
  DiagnosticsTest() { ops_.set_workspace({workspace_.data(), DType::f32, {4}}); }

  static constexpr int64_t kLayers = 2;

  /// Every layer's RMS of `values` [2, 1] and mean of [1, 1, 2], times layer + 1.
  void take(const std::vector<double>& values) {
    for (int64_t layer = 0; layer < kLayers; ++layer) {
      std::vector<double> x = values;
      for (double& value : x) value *= static_cast<double>(layer + 1);
      diagnostics_.take_root_mean_square(ops_, Diagnostic::attention_out_rms, layer,
                                         {x.data(), DType::f64, {2, 1}}, {});
      diagnostics_.take_mean(ops_, Diagnostic::attention_row_sum, layer,
                             {x.data(), DType::f64, {1, 1, 2}}, {});
    }
  }
  std::vector<double> read(Diagnostic diagnostic) {
    return diagnostics_.read(ops_, alone_)[static_cast<size_t>(diagnostic)];
  }

  std::vector<float> workspace_ = std::vector<float>(4);
  CpuOps<double> ops_;
  SingleProcess alone_;
  Diagnostics diagnostics_{ops_, kLayers, 2};
};

TEST_F(DiagnosticsTest, AreOfTheRowsOfAllMicroBatches) {
  for (const int64_t micro_batch : {0, 1}) {
    diagnostics_.begin_micro_batch(micro_batch);
    take(micro_batch == 0 ? std::vector<double>{1.0, 7.0} : std::vector<double>{-5.0, 5.0});
  }
  // (1 + 49 + 25 + 25) / 4 = 25, (1 + 7) / 4 = 2.
  EXPECT_THAT(read(Diagnostic::attention_out_rms), ElementsAre(DoubleEq(5.0), DoubleEq(10.0)));
  EXPECT_THAT(read(Diagnostic::attention_row_sum), ElementsAre(DoubleEq(2.0), DoubleEq(4.0)));
}

TEST_F(DiagnosticsTest, CountMicroBatchesByTheirWeights) {
  diagnostics_.begin_micro_batch(0);
  diagnostics_.weigh(30.0);
  take({1.0, 1.0});
  diagnostics_.begin_micro_batch(1);
  diagnostics_.weigh(10.0);
  take({3.0, 3.0});
  // (3 * 1 + 1 * 9) / 4 = 3, (3 * 1 + 1 * 3) / 4 = 1.5.
  EXPECT_THAT(read(Diagnostic::attention_out_rms),
              ElementsAre(DoubleEq(std::sqrt(3.0)), DoubleEq(2.0 * std::sqrt(3.0))));
  EXPECT_THAT(read(Diagnostic::attention_row_sum), ElementsAre(DoubleEq(1.5), DoubleEq(3.0)));
  // A batch without rows, which writes zeros, counts nothing; nor do two.
  diagnostics_.weigh(0.0);
  EXPECT_THAT(read(Diagnostic::attention_row_sum), ElementsAre(DoubleEq(1.0), DoubleEq(2.0)));
  diagnostics_.begin_micro_batch(0);
  diagnostics_.weigh(0.0);
  take({0.0, 0.0});
  EXPECT_THAT(read(Diagnostic::attention_row_sum), ElementsAre(0.0, 0.0));
}

}  // namespace
}  // namespace sigtrain
