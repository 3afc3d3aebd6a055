#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "ops/cpu/cpu_ops.h"

namespace sigtrain {
namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();

struct Problem {
  CrossEntropyDesc desc;
  int64_t rows, width, vocab_size;
  std::vector<double> x, weight;  // float numbers
  std::vector<int32_t> targets;
};

struct Results {
  std::vector<double> sums, dx, dweight;
};

Problem make_problem(int64_t rows, int64_t width, int64_t vocab_size, uint32_t seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  Problem problem{{}, rows, width, vocab_size, {}, {}, {}};
  for (int64_t i = 0; i < rows * width; ++i) problem.x.push_back(normal(generator));
  for (int64_t i = 0; i < vocab_size * width; ++i) problem.weight.push_back(normal(generator));
  std::uniform_int_distribution<int32_t> target(0, static_cast<int32_t>(vocab_size) - 1);
  for (int64_t i = 0; i < rows; ++i)
    problem.targets.push_back(i % 5 == 3 ? problem.desc.ignore_index : target(generator));
  problem.desc.gradient_scale = 0.125;
  return problem;
}

template <typename Real>
Tensor tensor(std::vector<Real>& values, int64_t rows) {
  return {values.data(), dtype_of<Real>(), {rows, static_cast<int64_t>(values.size()) / rows}};
}

constexpr double initial = 0.5;  // of what is added to

template <typename Real>
Results compute(const Problem& problem, bool gradients = true) {
  std::vector<Real> x(problem.x.begin(), problem.x.end());
  std::vector<Real> weight(problem.weight.begin(), problem.weight.end());
  std::vector<int32_t> targets = problem.targets;
  std::vector<Real> sums(loss_sum_slots, Real{initial}), dx(x.size(), Real{nan}),
      dweight(weight.size(), Real{initial});
  CpuOps<Real> ops;
  const size_t bytes = ops.vocab_cross_entropy_workspace(problem.desc, problem.rows, problem.width,
                                                         problem.vocab_size);
  constexpr size_t guard = 4096;
  std::vector<std::byte> memory(bytes + 2 * guard, std::byte{0xAB});
  ops.set_workspace(
      {memory.data() + guard, dtype_of<Real>(), {static_cast<int64_t>(bytes / sizeof(Real))}});
  ops.vocab_cross_entropy(problem.desc, tensor(x, problem.rows), tensor(weight, problem.vocab_size),
                          {targets.data(), DType::i32, {problem.rows}}, tensor(sums, 1),
                          gradients ? tensor(dx, problem.rows) : Tensor{},
                          gradients ? tensor(dweight, problem.vocab_size) : Tensor{});
  const auto untouched = [](std::byte b) { return b == std::byte{0xAB}; };
  EXPECT_TRUE(std::all_of(memory.begin(), memory.begin() + guard, untouched) &&
              std::all_of(memory.end() - guard, memory.end(), untouched));
  return {{sums.begin(), sums.end()}, {dx.begin(), dx.end()}, {dweight.begin(), dweight.end()}};
}

// The formulas of ops.h, with all the logits and all the probabilities.
Results solve_by_definition(const Problem& problem) {
  Results r{std::vector<double>(loss_sum_slots, initial), std::vector<double>(problem.x.size(), 0),
            std::vector<double>(problem.weight.size(), initial)};
  const int64_t V = problem.vocab_size, C = problem.width;
  const double smoothing = problem.desc.label_smoothing, z = problem.desc.z_loss;
  for (int64_t i = 0; i < problem.rows; ++i) {
    const int32_t target = problem.targets[i];
    if (target == problem.desc.ignore_index) continue;
    std::vector<double> logits(V, 0.0);
    for (int64_t j = 0; j < V; ++j)
      for (int64_t c = 0; c < C; ++c) logits[j] += problem.x[i * C + c] * problem.weight[j * C + c];
    const auto largest = std::max_element(logits.begin(), logits.end());
    double sum = 0.0;
    for (double logit : logits) sum += std::exp(logit - *largest);
    const double log_z = *largest + std::log(sum);
    r.sums[loss_sum_nll] += log_z - logits[target];
    r.sums[loss_sum_count] += 1;
    r.sums[loss_sum_correct] += largest - logits.begin() == target ? 1 : 0;
    r.sums[loss_sum_objective] += z * log_z * log_z;
    for (int64_t j = 0; j < V; ++j) {
      const double wanted = (j == target ? 1 - smoothing : 0) + smoothing / static_cast<double>(V);
      const double p = std::exp(logits[j] - log_z);
      r.sums[loss_sum_objective] += wanted * (log_z - logits[j]);
      const double d_logit = problem.desc.gradient_scale * (p - wanted + 2 * z * log_z * p);
      for (int64_t c = 0; c < C; ++c) {
        r.dx[i * C + c] += d_logit * problem.weight[j * C + c];
        r.dweight[j * C + c] += d_logit * problem.x[i * C + c];
      }
    }
  }
  return r;
}

void expect_near(const std::vector<double>& actual, const std::vector<double>& expected,
                 double tolerance, const char* what) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i)
    ASSERT_NEAR(actual[i], expected[i], tolerance * std::max(1.0, std::abs(expected[i])))
        << what << " " << i;
}

void expect_near(const Results& actual, const Results& expected, double tolerance) {
  expect_near(actual.sums, expected.sums, tolerance, "sums");
  expect_near(actual.dx, expected.dx, tolerance, "dx");
  expect_near(actual.dweight, expected.dweight, tolerance, "dweight");
}

bool same_bits(const Results& a, const Results& b) {
  const auto same = [](const std::vector<double>& u, const std::vector<double>& v) {
    return u.size() == v.size() && std::memcmp(u.data(), v.data(), u.size() * sizeof(double)) == 0;
  };
  return same(a.sums, b.sums) && same(a.dx, b.dx) && same(a.dweight, b.dweight);
}

std::vector<Problem> problems() {
  std::vector<Problem> all;
  uint32_t seed = 1;
  for (auto [rows, width, vocab_size] :
       {std::array<int64_t, 3>{1, 1, 1}, {1, 3, 2}, {7, 5, 13}, {33, 16, 100}, {70, 9, 531}}) {
    for (auto [smoothing, z_loss] : {std::array{0.0, 0.0}, {0.1, 0.0}, {0.0, 0.01}, {0.2, 0.003}}) {
      all.push_back(make_problem(rows, width, vocab_size, seed++));
      all.back().desc.label_smoothing = smoothing;
      all.back().desc.z_loss = z_loss;
    }
  }
  return all;
}

TEST(VocabCrossEntropy, DoubleIsTheDefinition) {
  for (const Problem& problem : problems())
    expect_near(compute<double>(problem), solve_by_definition(problem), 1e-12);
}

// Sums over up to 70 rows and 531 words of terms near 1, gradients of terms below 1/8: a few
// hundred roundings of 6e-8 at most.
TEST(VocabCrossEntropy, FloatIsTheDefinitionWithinRounding) {
  for (const Problem& problem : problems())
    expect_near(compute<float>(problem), solve_by_definition(problem), 2e-5);
}

TEST(VocabCrossEntropy, GradientsMatchCentralDifferences) {
  constexpr double h = 1e-6;
  std::mt19937 generator(5);
  for (const Problem& problem : problems()) {
    const Results gradients = compute<double>(problem);
    for (auto [input, gradient, shift] :
         {std::tuple{&Problem::x, &gradients.dx, 0.0},
          std::tuple{&Problem::weight, &gradients.dweight, initial}}) {
      Problem above = problem, below = problem;
      double expected = 0.0, square = 0.0;
      for (size_t i = 0; i < gradient->size(); ++i) {
        const double direction = std::normal_distribution<double>()(generator);
        (above.*input)[i] += h * direction;
        (below.*input)[i] -= h * direction;
        expected += direction * ((*gradient)[i] - shift);
        square += std::pow((*gradient)[i] - shift, 2);
      }
      const double difference = compute<double>(above, false).sums[loss_sum_objective] -
                                compute<double>(below, false).sums[loss_sum_objective];
      const double actual = problem.desc.gradient_scale * difference / (2 * h);
      const double rounding = 2e-16 * gradients.sums[loss_sum_objective] / h;
      EXPECT_LE(std::abs(actual - expected), 1e-6 * std::sqrt(square) + rounding);
    }
  }
}

TEST(VocabCrossEntropy, DoesNotDependOnTheChunks) {
  Problem problem = make_problem(70, 9, 531, 11);
  const Results whole = compute<double>(problem);
  for (int64_t chunk : {1, 3, 69, 70, 1000}) {
    problem.desc.chunk_rows = chunk;
    expect_near(compute<double>(problem), whole, 1e-13);
  }
}

TEST(VocabCrossEntropy, WorkspaceHoldsOneChunk) {
  CpuOps<float> ops;
  CrossEntropyDesc desc;
  desc.chunk_rows = 8;
  EXPECT_LT(ops.vocab_cross_entropy_workspace(desc, 100000, 64, 1000), 8u * 1000 * 4 + 1024);
  desc.chunk_rows = 0;
  EXPECT_EQ(ops.vocab_cross_entropy_workspace(desc, 1 << 20, 64, 32768),
            ops.vocab_cross_entropy_workspace(desc, 1 << 21, 64, 32768));
}

TEST(VocabCrossEntropy, IsTheSameBitsForAnyNumberOfThreads) {
  const int threads_before = omp_get_max_threads();
  const Problem problem = make_problem(300, 40, 1031, 12);
  omp_set_num_threads(1);
  const Results one = compute<float>(problem);
  for (int threads : {2, 3}) {
    omp_set_num_threads(threads);
    EXPECT_TRUE(same_bits(one, compute<float>(problem))) << threads << " threads";
  }
  omp_set_num_threads(threads_before);
}

TEST(VocabCrossEntropy, EvaluationGivesTheSameSums) {
  const Problem problem = make_problem(33, 16, 100, 13);
  EXPECT_EQ(compute<float>(problem, false).sums, compute<float>(problem).sums);
}

// Logits 1, 2, 3 and target 2: log(e^-2 + e^-1 + 1); smoothing 0.1 as PyTorch's label_smoothing.
TEST(VocabCrossEntropy, KnownValues) {
  Problem problem{{}, 1, 1, 3, {1}, {1, 2, 3}, {2}};
  EXPECT_NEAR(compute<double>(problem).sums[loss_sum_nll], initial + 0.40760596444438, 1e-13);
  EXPECT_EQ(compute<double>(problem).sums[loss_sum_correct], initial + 1);
  problem.desc.label_smoothing = 0.1;
  EXPECT_NEAR(compute<double>(problem).sums[loss_sum_objective], initial + 0.50760596444438, 1e-13);
  EXPECT_NEAR(compute<double>(problem).sums[loss_sum_nll], initial + 0.40760596444438, 1e-13);
  problem.desc.label_smoothing = 0.0;
  problem.desc.z_loss = 0.5;
  EXPECT_NEAR(compute<double>(problem).sums[loss_sum_objective],
              initial + 0.40760596444438 + 0.5 * std::pow(3.40760596444438, 2), 1e-12);
}

TEST(VocabCrossEntropy, TiesGoToTheLowestIndex) {
  Problem problem{{}, 3, 1, 4, {1, 1, 1}, {-1, 2, 2, 0}, {1, 2, 3}};
  EXPECT_EQ(compute<float>(problem).sums[loss_sum_correct], initial + 1);
}

TEST(VocabCrossEntropy, ExtremeLogitsStayFinite) {
  Problem problem{{}, 2, 1, 3, {1e4, -1e4}, {1, -1, 0.5}, {1, 1}};
  problem.desc.z_loss = 1e-4;
  problem.desc.label_smoothing = 0.1;
  const Results results = compute<float>(problem);
  // Row 0 misses its target by 2e4, row 1 hits it.
  EXPECT_NEAR(results.sums[loss_sum_nll], initial + 2e4, 1e-2);
  EXPECT_EQ(results.sums[loss_sum_correct], initial + 1);
  expect_near(results.dx, solve_by_definition(problem).dx, 1e-6, "dx");
  for (const auto* values : {&results.sums, &results.dx, &results.dweight})
    for (double value : *values) EXPECT_TRUE(std::isfinite(value));
}

TEST(VocabCrossEntropy, IgnoredRowsCountForNothing) {
  Problem problem = make_problem(6, 4, 10, 14);
  problem.desc.ignore_index = -100;
  problem.targets.assign(6, -100);
  const Results results = compute<float>(problem);
  EXPECT_EQ(results.sums, std::vector<double>(loss_sum_slots, initial));
  EXPECT_EQ(results.dx, std::vector<double>(24, 0.0));
  EXPECT_EQ(results.dweight, std::vector<double>(40, initial));
}

TEST(VocabCrossEntropy, TargetOutsideTheVocabularyIsAnError) {
  for (int32_t target : {-2, 10, 2147483647}) {
    Problem problem = make_problem(6, 4, 10, 15);
    problem.targets[4] = target;
    try {
      compute<float>(problem);
      ADD_FAILURE() << "target " << target << " was taken";
    } catch (const Error& error) {
      const std::string text = error.what();
      EXPECT_NE(text.find("row 4 is " + std::to_string(target)), std::string::npos) << text;
    }
  }
}

}  // namespace
}  // namespace sigtrain
