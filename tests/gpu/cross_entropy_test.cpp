#include "gpu_testing.h"

namespace sigtrain {
namespace {

struct CrossEntropyCase {
  int64_t rows, width, vocab_size, chunk_rows;
  double label_smoothing, z_loss;
  bool gradient;
};

class GpuCrossEntropy : public GpuTest, public ::testing::WithParamInterface<CrossEntropyCase> {};

TEST_P(GpuCrossEntropy, IsTheFormula) {
  const CrossEntropyCase c = GetParam();
  const Operand x = normal("x", {c.rows, c.width});
  const Operand weight =
      normal("weight", {c.vocab_size, c.width}, Role::compute, 1.5 / std::sqrt(double(c.width)));
  // The logits, for targets that are often the largest and to see which rows are close calls.
  double largest_logit = 0.0;
  int64_t close_calls = 0, counted = 0;
  std::vector<int32_t> ids;
  for (int64_t n = 0; n < c.rows; ++n) {
    double first = -1e30, second = -1e30;
    int32_t arg_max = 0;
    for (int64_t j = 0; j < c.vocab_size; ++j) {
      double logit = 0.0;
      for (int64_t k = 0; k < c.width; ++k)
        logit += x.values()[n * c.width + k] * weight.values()[j * c.width + k];
      largest_logit = std::max(largest_logit, std::abs(logit));
      if (logit > first) {
        second = first;
        first = logit;
        arg_max = static_cast<int32_t>(j);
      } else {
        second = std::max(second, logit);
      }
    }
    close_calls += first - second < 3 * bf16_roundoff * std::abs(first);
    const bool ignored = n % 5 == 3;
    counted += !ignored;
    ids.push_back(ignored ? -7 : n % 2 ? arg_max : static_cast<int32_t>(n * 31 % c.vocab_size));
  }
  const Operand targets = integers("targets", ids);
  const Operand sums = given("sums", {loss_sum_slots}, {0.5, 0.25, 3.0, 2.0}, Role::accumulate);
  const Operand dx = output_if(c.gradient, "dx", {c.rows, c.width});
  const Operand dweight =
      normal_if(c.gradient, "dweight", {c.vocab_size, c.width}, Role::accumulate, 0.01);
  CrossEntropyDesc desc;
  desc.ignore_index = -7;
  desc.label_smoothing = c.label_smoothing;
  desc.z_loss = c.z_loss;
  desc.chunk_rows = c.chunk_rows;
  desc.gradient_scale = 1.0 / double(counted);
  run(
      [&](Ops& ops, const Pick& at) {
        ops.vocab_cross_entropy(desc, at(x), at(weight), at(targets), at(sums), at(dx),
                                at(dweight));
      },
      [&](const Ops& ops) {
        return ops.vocab_cross_entropy_workspace(desc, c.rows, c.width, c.vocab_size);
      });

  // A logit is off by a rounding of itself: so is nll, twice (its own logit, and the average of the
  // others), and the objective by as much and by z_loss' derivative 2 z log Z.
  const double moved = 2.0 * largest_logit *
                       (1.0 + 2.0 * c.z_loss * (largest_logit + std::log(double(c.vocab_size))));
  const Tolerance per_row = summed_roundings(double(c.rows), moved) + Tolerance{1e-6, 0.0};
  const std::vector<double> got = sums.gpu_values(), expected = sums.values();
  for (const int slot : {int{loss_sum_objective}, int{loss_sum_nll}}) {
    EXPECT_NEAR(got[slot], expected[slot],
                per_row.absolute + per_row.relative * std::abs(expected[slot]))
        << "slot " << slot;
  }
  EXPECT_EQ(got[loss_sum_count], expected[loss_sum_count]);
  EXPECT_NEAR(got[loss_sum_correct], expected[loss_sum_correct], double(close_calls));
  if (!c.gradient) return;
  // The gradient of a logit is a probability, off by exp of its logit's rounding (times its own
  // size), and rounded; the sum of a row's sizes is at most 2 + the z-loss.
  const double scale = desc.gradient_scale * (2.0 + 2.0 * c.z_loss * (largest_logit + 12.0));
  const double relative = bf16_roundoff * (1.0 + 2.0 * largest_logit);
  expect_near(dx, {bf16_roundoff, scale * weight.largest() * relative});
  expect_near(dweight,
              summed_roundings(double(c.rows), scale * x.largest() * (1.0 + 2.0 * largest_logit)) +
                  Tolerance{4 * float_roundoff, 0.0});
}

INSTANTIATE_TEST_SUITE_P(Cases, GpuCrossEntropy,
                         ::testing::Values(CrossEntropyCase{96, 64, 512, 0, 0.0, 0.0, true},
                                           CrossEntropyCase{96, 64, 512, 40, 0.1, 1e-3, true},
                                           CrossEntropyCase{50, 33, 257, 7, 0.1, 0.0, true},
                                           CrossEntropyCase{20, 16, 3, 0, 0.0, 0.0, true},
                                           CrossEntropyCase{33, 32, 32768, 16, 0.0, 1e-4, true},
                                           CrossEntropyCase{12, 16, 70001, 5, 0.0, 0.0, true},
                                           CrossEntropyCase{96, 64, 512, 40, 0.1, 1e-3, false},
                                           CrossEntropyCase{9, 8, 13, 2, 0.0, 0.0, false}));

// Among equal logits the first counts as the prediction.
TEST_F(GpuTest, TiesGoToTheFirstLogit) {
  const Operand x = normal("x", {4, 16}), row = normal("row", {16});
  std::vector<double> values;
  for (int j = 0; j < 21; ++j)
    values.insert(values.end(), row.values().begin(), row.values().end());
  const Operand weight = given("weight", {21, 16}, values);
  const Operand targets = integers("targets", {0, 2, 20, 0});
  const Operand sums = given("sums", {loss_sum_slots}, {0, 0, 0, 0}, Role::accumulate);
  run(
      [&](Ops& ops, const Pick& at) {
        ops.vocab_cross_entropy({}, at(x), at(weight), at(targets), at(sums), {}, {});
      },
      [](const Ops& ops) { return ops.vocab_cross_entropy_workspace({}, 4, 16, 21); });
  EXPECT_EQ(sums.gpu_values()[loss_sum_correct], 2.0);
}

TEST_F(GpuTest, TargetsOutsideTheVocabularyAreReported) {
  const Operand x = normal("x", {3, 16}), weight = normal("weight", {24, 16});
  const Operand targets = integers("targets", {1, -1, 24});
  const Operand sums = given("sums", {loss_sum_slots}, {0, 0, 0, 0}, Role::accumulate);
  CrossEntropyDesc desc;
  desc.chunk_rows = 2;
  const size_t bytes = gpu().vocab_cross_entropy_workspace(desc, 3, 16, 24);
  const DeviceMemory memory = gpu().allocate(bytes);
  const Tensor workspace{memory.get(), DType::f32, {static_cast<int64_t>(bytes / 4)}};
  gpu().fill(workspace, 0.0);  // compute-sanitizer does not see what cuBLASLt writes into it
  gpu().set_workspace(workspace);
  gpu().vocab_cross_entropy(desc, x.on_gpu(), weight.on_gpu(), targets.on_gpu(), sums.on_gpu(), {},
                            {});
  gpu().set_workspace({});
  try {
    gpu().synchronize();
    FAIL() << "target 24 of 24 went unnoticed";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("target of row 2 is 24"), std::string::npos)
        << error.what();
  }
}

}  // namespace
}  // namespace sigtrain
