#include "gpu_testing.h"
#include "tools/bench/relative_error.h"

namespace sigtrain {
namespace {

struct CrossEntropyCase {
  int64_t rows, width, vocab_size, chunk_rows;
  double label_smoothing, z_loss;
  bool gradient;
};

class GpuCrossEntropy : public GpuTest, public ::testing::WithParamInterface<CrossEntropyCase> {
 protected:
  /// Whole multiples of `unit`, about standard normal times `scale`.
  Operand multiples(const std::string& name, Shape shape, double unit, double scale) {
    std::vector<double> values = normal("values", shape, Role::accumulate, scale).values();
    for (double& value : values) value = unit * std::round(value / unit);
    return given(name, shape, values);
  }
};

// The logits are multiples of 1/32 below 8: bfloat16 holds them and float adds them up without
// rounding, so that the GPU's are the CPU's and all that is left are the roundings of the
// gradients.
TEST_P(GpuCrossEntropy, IsTheFormula) {
  const CrossEntropyCase c = GetParam();
  const Operand x = multiples("x", {c.rows, c.width}, 1.0, 1.0);
  const Operand weight =
      multiples("weight", {c.vocab_size, c.width}, 1.0 / 32.0, 1.0 / std::sqrt(double(c.width)));
  // Targets are the largest logit, the least, or any.
  std::vector<double> logits(size_t(c.rows * c.vocab_size)), log_z;
  double largest_logit = 0.0;
  std::vector<int32_t> ids;
  for (int64_t n = 0; n < c.rows; ++n) {
    double* row = &logits[size_t(n * c.vocab_size)];
    for (int64_t j = 0; j < c.vocab_size; ++j) {
      for (int64_t k = 0; k < c.width; ++k)
        row[j] += x.values()[n * c.width + k] * weight.values()[j * c.width + k];
      largest_logit = std::max(largest_logit, std::abs(row[j]));
    }
    double sum = 0.0;
    for (int64_t j = 0; j < c.vocab_size; ++j) sum += std::exp(row[j]);
    log_z.push_back(std::log(sum));
    const auto [least, largest] = std::minmax_element(row, row + c.vocab_size);
    const int64_t any = n * 31 % c.vocab_size;
    ids.push_back(static_cast<int32_t>(n % 4 == 0   ? least - row
                                       : n % 4 == 2 ? largest - row
                                                    : any));
    if (n % 5 == 3) ids.back() = -7;
  }
  ASSERT_LE(largest_logit, 8.0);
  const Operand targets = integers("targets", ids);
  const Operand sums = given("sums", {loss_sum_slots}, {0.5, 0.25, 3.0, 2.0}, Role::accumulate);
  const Operand dx = output_if(c.gradient, "dx", {c.rows, c.width});
  const Operand dweight =
      normal_if(c.gradient, "dweight", {c.vocab_size, c.width}, Role::accumulate, 0.01);
  const std::vector<double> dweight_before = c.gradient ? dweight.values() : std::vector<double>();
  CrossEntropyDesc desc;
  desc.ignore_index = -7;
  desc.label_smoothing = c.label_smoothing;
  desc.z_loss = c.z_loss;
  desc.chunk_rows = c.chunk_rows;
  desc.gradient_scale = 1.0 / double(c.rows);
  run(
      [&](Ops& ops, const Pick& at) {
        ops.vocab_cross_entropy(desc, at(x), at(weight), at(targets), at(sums), at(dx),
                                at(dweight));
      },
      [&](const Ops& ops) {
        return ops.vocab_cross_entropy_workspace(desc, c.rows, c.width, c.vocab_size);
      });

  // A row's log Z and what is computed from it are good to a few roundings of float; z_loss
  // multiplies log Z's by its derivative.
  const double largest_log_z = *std::max_element(log_z.begin(), log_z.end());
  const double per_row =
      16 * fast_function * (largest_logit + largest_log_z) * (1.0 + 2.0 * c.z_loss * largest_log_z);
  const std::vector<double> got = sums.gpu_values(), expected = sums.values();
  for (const int slot : {int{loss_sum_objective}, int{loss_sum_nll}}) {
    EXPECT_NEAR(got[slot], expected[slot],
                double(c.rows) * per_row + 2 * float_roundoff * std::abs(expected[slot]))
        << "slot " << slot;
  }
  EXPECT_EQ(got[loss_sum_count], expected[loss_sum_count]);
  EXPECT_EQ(got[loss_sum_correct], expected[loss_sum_correct]);
  if (!c.gradient) return;

  // Each logit's gradient is rounded once, independently of the others. Its size, at most:
  const auto size = [&](int64_t n, int64_t j) {
    const int32_t target = ids[size_t(n)];
    if (target == desc.ignore_index) return 0.0;
    const double of_exp = 1.0 + 2.0 * c.z_loss * log_z[size_t(n)];
    const double p = std::exp(logits[size_t(n * c.vocab_size + j)] - log_z[size_t(n)]);
    return desc.gradient_scale *
           (of_exp * p + (j == target ? 1.0 : 0.0) + c.label_smoothing / double(c.vocab_size));
  };
  std::vector<double> row_squares(size_t(c.rows)), row_sums(size_t(c.rows));
  std::vector<double> column_squares(size_t(c.vocab_size)), column_sums(size_t(c.vocab_size));
  for (int64_t n = 0; n < c.rows; ++n) {
    for (int64_t j = 0; j < c.vocab_size; ++j) {
      const double g = size(n, j);
      row_squares[size_t(n)] += g * g, row_sums[size_t(n)] += g;
      column_squares[size_t(j)] += g * g, column_sums[size_t(j)] += g;
    }
  }
  // A product's row: the roundings, the row's common errors of float, and those of the sum.
  const auto allowed = [&](const std::vector<double>& squares, const std::vector<double>& totals,
                           double terms, double largest_factor) {
    std::vector<double> result;
    for (size_t row = 0; row < squares.size(); ++row) {
      const double error = summed_roundings(1.0, std::sqrt(squares[row])).absolute +
                           (16 * fast_function + terms * float_roundoff) * totals[row];
      result.insert(result.end(), size_t(c.width), error * largest_factor);
    }
    return result;
  };
  expect_near(dx, dx.values(), {bf16_roundoff, 0.0},
              allowed(row_squares, row_sums, double(c.vocab_size), weight.largest()));
  expect_near(dweight, dweight.values(), {4 * float_roundoff, 0.0},
              allowed(column_squares, column_sums, double(c.rows), x.largest()));
  // On the whole: a rounding of every logit's gradient, one of dx, and little else.
  EXPECT_LE(relative_error_by_norm(dx.gpu_values(), dx.values()), 0.01);
  const auto added = [&](std::vector<double> values) {
    for (size_t i = 0; i < values.size(); ++i) values[i] -= dweight_before[i];
    return values;
  };
  EXPECT_LE(relative_error_by_norm(added(dweight.gpu_values()), added(dweight.values())), 0.01);
}

INSTANTIATE_TEST_SUITE_P(Cases, GpuCrossEntropy,
                         ::testing::Values(CrossEntropyCase{96, 64, 512, 0, 0.0, 0.0, true},
                                           CrossEntropyCase{96, 64, 512, 40, 0.1, 0.01, true},
                                           CrossEntropyCase{50, 33, 257, 7, 0.1, 0.0, true},
                                           CrossEntropyCase{20, 16, 3, 0, 0.0, 0.0, true},
                                           CrossEntropyCase{33, 32, 32768, 16, 0.0, 0.01, true},
                                           CrossEntropyCase{12, 16, 70001, 5, 0.1, 0.0, true},
                                           CrossEntropyCase{96, 64, 512, 40, 0.1, 0.01, false},
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
