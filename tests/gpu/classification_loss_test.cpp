#include "gpu_testing.h"

namespace sigtrain {
namespace {

struct LossCase {
  int64_t rows, classes;
  bool targets, gradient;
};

class GpuClassificationLoss : public GpuTest, public ::testing::WithParamInterface<LossCase> {};

TEST_P(GpuClassificationLoss, IsTheFormula) {
  const LossCase c = GetParam();
  const Operand logits = normal("logits", {c.rows, c.classes}, Role::compute, 3.0);
  std::vector<int32_t> ids;
  for (int64_t n = 0; n < c.rows; ++n) {
    const double* x = logits.values().data() + n * c.classes;
    const auto largest = static_cast<int32_t>(std::max_element(x, x + c.classes) - x);
    ids.push_back(n % 5 == 4 ? -1 : n % 2 ? largest : static_cast<int32_t>(n * 31 % c.classes));
  }
  const Operand labels = integers("labels", ids);
  std::vector<double> distribution(static_cast<size_t>(c.rows * c.classes));
  std::mt19937 engine(4);
  for (int64_t n = 0; n < c.rows; ++n) {
    double sum = 0.0;
    double* row = distribution.data() + n * c.classes;
    for (int64_t j = 0; j < c.classes; ++j) sum += row[j] = 1.0 + engine() % 100;
    for (int64_t j = 0; j < c.classes; ++j) row[j] = static_cast<float>(row[j] / sum);
  }
  const Operand targets =
      c.targets ? given("targets", {c.rows, c.classes}, distribution, Role::accumulate) : Operand();
  const Operand sums =
      given("sums", {class_sum_slots}, {0.5, 0.25, 3.0, 2.0, 1.0}, Role::accumulate);
  const Operand d_logits = output_if(c.gradient, "d_logits", {c.rows, c.classes});
  const double scale = 0.125;
  run(
      [&](Ops& ops, const Pick& at) {
        ops.classification_loss(scale, at(logits), at(labels), at(targets), at(sums), at(d_logits));
      },
      [&](const Ops& ops) { return ops.classification_loss_workspace(c.rows); });
  // Logits are given, so that only sums of exponentials are rounded: of `classes` terms in a row,
  // and of `rows` rows.
  const double largest = 2.0 * logits.largest() + std::log(double(c.classes));
  expect_near(sums, summed(double(c.rows + c.classes) + 16.0, largest * double(c.rows)) +
                        Tolerance{16 * fast_function, 0.0});
  if (c.gradient) expect_near(d_logits, rounded(scale) + summed(double(c.classes), scale));
}

INSTANTIATE_TEST_SUITE_P(Cases, GpuClassificationLoss,
                         ::testing::Values(LossCase{1, 2, false, true}, LossCase{7, 10, true, true},
                                           LossCase{256, 1000, true, true},
                                           LossCase{33, 1000, false, false},
                                           LossCase{300, 10, false, true},
                                           LossCase{5, 513, true, false}));

TEST_F(GpuTest, NothingIsCorrectAmongNaNs) {
  const Operand logits =
      given("logits", {2, 7}, std::vector<double>(14, std::numeric_limits<double>::quiet_NaN()));
  const Operand labels = integers("labels", {0, 3});
  const Operand sums = given("sums", {class_sum_slots}, {0, 0, 0, 0, 0}, Role::accumulate);
  const size_t bytes = gpu().classification_loss_workspace(2);
  const DeviceMemory memory = gpu().allocate(bytes);
  gpu().set_workspace({memory.get(), DType::f32, {static_cast<int64_t>(bytes / 4)}});
  gpu().classification_loss(1.0, logits.on_gpu(), labels.on_gpu(), {}, sums.on_gpu(), {});
  gpu().set_workspace({});
  const std::vector<double> values = sums.gpu_values();
  EXPECT_EQ(values[class_sum_count], 2.0);
  EXPECT_EQ(values[class_sum_correct], 0.0);
  EXPECT_EQ(values[class_sum_correct_of_5], 0.0);
}

TEST_F(GpuTest, ALabelThatIsNoClassIsReportedAtTheNextWait) {
  const Operand logits = normal("logits", {3, 4}), labels = integers("labels", {3, 4, -1});
  const Operand sums = given("sums", {class_sum_slots}, {0, 0, 0, 0, 0}, Role::accumulate);
  const size_t bytes = gpu().classification_loss_workspace(3);
  const DeviceMemory memory = gpu().allocate(bytes);
  gpu().set_workspace({memory.get(), DType::f32, {static_cast<int64_t>(bytes / 4)}});
  gpu().classification_loss(1.0, logits.on_gpu(), labels.on_gpu(), {}, sums.on_gpu(), {});
  gpu().set_workspace({});
  try {
    gpu().synchronize();
    FAIL() << "label 4 of 4 went unnoticed";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("label of row 1 is 4, but the model has 4 classes"),
              std::string::npos)
        << error.what();
  }
}

}  // namespace
}  // namespace sigtrain
