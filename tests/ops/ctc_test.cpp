#include <cmath>
#include <limits>
#include <numeric>

#include "core/safetensors.h"
#include "models/golden.h"
#include "ops/op_testing.h"

namespace sigtrain {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

struct Problem {
  CtcDesc desc;
  Buffer<double> logits;  // float numbers
  Buffer<int32_t> frame_lengths, targets, target_lengths;
};

template <typename Real>
struct Results {
  Buffer<Real> losses, sums, d_logits;
};

template <typename Real>
Results<Real> compute(Problem& problem, bool gradient = true) {
  CpuOps<Real> ops;
  const CtcDesc& desc = problem.desc;
  const ExactWorkspace workspace(ops, ops.ctc_loss_workspace(desc));
  Buffer<Real> logits(problem.logits.shape);
  logits.values.assign(problem.logits.values.begin(), problem.logits.values.end());
  Results<Real> results{Buffer<Real>({desc.batch}), Buffer<Real>({ctc_sum_slots}), {}};
  std::fill(results.sums.values.begin(), results.sums.values.end(), Real(0.5));
  if (gradient) results.d_logits = Buffer<Real>(logits.shape);
  ops.ctc_loss(desc, logits, problem.frame_lengths, problem.targets, problem.target_lengths,
               results.losses, results.sums, results.d_logits);
  return results;
}

int64_t frames_needed(const int32_t* targets, int64_t count) {
  int64_t needed = count;
  for (int64_t i = 1; i < count; ++i) needed += targets[i] == targets[i - 1];
  return needed;
}

/// Feasible sequences of all lengths, with repeats; the last has no frame to spare.
Problem random_problem(int64_t batch, int64_t seq_len, int64_t vocab_size, int64_t max_targets,
                       uint64_t seed) {
  RandomValues random(seed);
  Problem p;
  p.desc = {batch, seq_len, vocab_size, max_targets, static_cast<int32_t>(vocab_size / 2), 0.25};
  p.logits = random.normal<double>({batch * seq_len, vocab_size}, 2.0);
  p.frame_lengths = Buffer<int32_t>({batch});
  p.target_lengths = Buffer<int32_t>({batch});
  p.targets = Buffer<int32_t>({batch, max_targets});  // -2^31 behind the end
  for (int64_t b = 0; b < batch; ++b) {
    const int64_t count = b == 0 ? 0 : random.integer(1, max_targets + 1);
    int32_t* target = p.targets.values.data() + b * max_targets;
    for (int64_t i = 0; i < count; ++i) {
      target[i] = static_cast<int32_t>(random.integer(0, vocab_size - 1));
      if (target[i] >= p.desc.blank) ++target[i];
      if (i > 0 && random.integer(0, 3) == 0) target[i] = target[i - 1];
    }
    const int64_t needed = std::max<int64_t>(1, frames_needed(target, count));
    p.target_lengths[b] = static_cast<int32_t>(count);
    p.frame_lengths[b] =
        static_cast<int32_t>(b == batch - 1 ? needed : random.integer(needed, seq_len + 1));
  }
  return p;
}

/// -log of the sum over every sequence of labels that collapses to the targets.
double loss_by_enumeration(const Problem& p, int64_t b) {
  const int64_t V = p.desc.vocab_size, T = p.frame_lengths[b], L = p.target_lengths[b];
  const double* logits = p.logits.values.data() + b * p.desc.seq_len * V;
  const int32_t* targets = p.targets.values.data() + b * p.desc.max_targets;
  double total = 0.0;
  std::vector<int64_t> path(static_cast<size_t>(T), 0);
  for (bool more = true; more;) {
    std::vector<int32_t> collapsed;
    int64_t before = -1;
    double p_path = 1.0;
    for (int64_t t = 0; t < T; ++t) {
      const int64_t label = path[static_cast<size_t>(t)];
      if (label != before && label != p.desc.blank)
        collapsed.push_back(static_cast<int32_t>(label));
      before = label;
      double sum = 0.0;
      for (int64_t v = 0; v < V; ++v) sum += std::exp(logits[t * V + v]);
      p_path *= std::exp(logits[t * V + label]) / sum;
    }
    if (collapsed == std::vector<int32_t>(targets, targets + L)) total += p_path;
    more = false;
    for (int64_t& label : path) {
      if (++label < V) {
        more = true;
        break;
      }
      label = 0;
    }
  }
  return -std::log(total);
}

TEST(CtcLoss, IsTheSumOverAllPaths) {
  for (uint64_t seed = 1; seed <= 12; ++seed) {
    Problem p = random_problem(4, 6, 2 + static_cast<int64_t>(seed % 3), 3, seed);
    const Results<double> results = compute<double>(p);
    double total = 0.0;
    for (int64_t b = 0; b < p.desc.batch; ++b) {
      const double expected = loss_by_enumeration(p, b);
      EXPECT_NEAR(results.losses[b], expected, 1e-12 * std::max(1.0, expected)) << b;
      total += expected;
    }
    EXPECT_NEAR(results.sums[ctc_sum_nll], 0.5 + total, 1e-11);
    EXPECT_EQ(results.sums[ctc_sum_sequences], 4.5);
    EXPECT_EQ(results.sums[ctc_sum_infeasible], 0.5);
    EXPECT_EQ(
        results.sums[ctc_sum_targets],
        0.5 + std::accumulate(p.target_lengths.values.begin(), p.target_lengths.values.end(), 0));
  }
}

TEST(CtcLoss, GradientIsThatOfTheSum) {
  for (uint64_t seed = 1; seed <= 6; ++seed) {
    Problem p = random_problem(4, 9, 5, 4, 100 + seed);
    const Buffer<double> actual = compute<double>(p).d_logits;
    const Buffer<double> expected = numerical_gradient(p.logits, [&] {
      const Results<double> results = compute<double>(p, false);
      return p.desc.gradient_scale * (results.sums[ctc_sum_nll] - 0.5);
    });
    EXPECT_LE(largest_difference(actual, expected), gradient_tolerance);
  }
}

// PyTorch's sequences, eight to a batch.
template <typename Real>
void check_golden(double roundings) {
  const GoldenFile golden("ctc.safetensors");
  const Buffer<int32_t> sizes = golden.integers("sizes"), labels = golden.integers("targets");
  const Buffer<double> logits = golden.read<double>("logits"),
                       losses = golden.read<double>("losses"),
                       gradients = golden.read<double>("gradients");
  const int64_t cases = sizes.shape[0], batch = 8;
  ASSERT_EQ(cases, 200);
  int64_t at = 0, label_at = 0;
  for (int64_t first = 0; first < cases; first += batch) {
    Problem p;
    const int64_t V = sizes[first * 3 + 1];
    p.desc = {batch, 0, V, 0, 0, 1.0};
    for (int64_t b = 0; b < batch; ++b) {
      p.desc.seq_len = std::max<int64_t>(p.desc.seq_len, sizes[(first + b) * 3]);
      p.desc.max_targets = std::max<int64_t>(p.desc.max_targets, sizes[(first + b) * 3 + 2]);
    }
    p.logits = Buffer<double>({batch * p.desc.seq_len, V});
    p.targets = Buffer<int32_t>({batch, p.desc.max_targets});
    p.frame_lengths = Buffer<int32_t>({batch});
    p.target_lengths = Buffer<int32_t>({batch});
    Buffer<double> expected(p.logits.shape), expected_losses({batch});
    std::fill(expected.values.begin(), expected.values.end(), 0.0);
    for (int64_t b = 0; b < batch; ++b) {
      const int64_t T = sizes[(first + b) * 3], L = sizes[(first + b) * 3 + 2];
      const int64_t to = b * p.desc.seq_len * V;
      std::copy_n(logits.values.begin() + at, T * V, p.logits.values.begin() + to);
      std::copy_n(gradients.values.begin() + at, T * V, expected.values.begin() + to);
      std::copy_n(labels.values.begin() + label_at, L,
                  p.targets.values.begin() + b * p.desc.max_targets);
      p.frame_lengths[b] = static_cast<int32_t>(T);
      p.target_lengths[b] = static_cast<int32_t>(L);
      expected_losses[b] = losses[first + b];
      at += T * V, label_at += L;
    }
    const Results<Real> results = compute<Real>(p);
    for (int64_t b = 0; b < batch; ++b) {
      EXPECT_NEAR(results.losses[b], expected_losses[b],
                  tolerance<Real>(roundings) * std::max(1.0, expected_losses[b]))
          << "case " << first + b;
    }
    EXPECT_LE(largest_difference(results.d_logits, expected), tolerance<Real>(roundings))
        << "cases from " << first;
  }
  EXPECT_EQ(at, logits.size());
  EXPECT_EQ(label_at, labels.size());
}

// Up to 17 frames, each a handful of roundings of numbers of up to 30; probabilities move by as
// much as the logarithms do.
TEST(CtcLoss, IsPyTorchsInDouble) { check_golden<double>(2000); }
TEST(CtcLoss, IsPyTorchsInFloat) { check_golden<float>(2000); }

// Utterances of tens of seconds: what float loses over so many frames.
TEST(CtcLoss, FloatIsDoubleOverManyFrames) {
  for (uint64_t seed : {1, 2, 3}) {
    Problem p = random_problem(3, 900, 29, 250, seed);
    const Results<double> expected = compute<double>(p);
    const Results<float> actual = compute<float>(p);
    // A state's logarithm is a sum of up to 900 additions to numbers of up to about 2,000, errors
    // of either sign: 30 roundings of that size as a rule, and its share of the paths moves by as
    // much.
    constexpr double share = 30 * 2000 * float_roundoff;
    for (int64_t b = 0; b < 3; ++b) EXPECT_NEAR(actual.losses[b], expected.losses[b], share) << b;
    EXPECT_LE(largest_difference(actual.d_logits, expected.d_logits),
              share * p.desc.gradient_scale);
  }
}

TEST(CtcLoss, InfeasibleTargetsAreCountedAndLeftOut) {
  Problem p = random_problem(4, 8, 4, 4, 5);
  p.desc.blank = 0;
  p.targets.values = {1, 1, 2, 3, 1, 1, 2, 3, 1, 1, 1, 1, 2, 3, 3, 3};
  p.target_lengths.values = {4, 4, 1, 0};
  p.frame_lengths.values = {5, 4, 0,
                            0};  // five are needed, one is too few, none for one; none for none
  const Results<double> results = compute<double>(p);
  EXPECT_TRUE(std::isfinite(results.losses[0]));
  EXPECT_EQ(results.losses[1], infinity);
  EXPECT_EQ(results.losses[2], infinity);
  EXPECT_EQ(results.losses[3], 0.0);
  EXPECT_EQ(results.sums[ctc_sum_infeasible], 2.5);
  EXPECT_EQ(results.sums[ctc_sum_sequences], 2.5);
  EXPECT_EQ(results.sums[ctc_sum_targets], 4.5);
  EXPECT_DOUBLE_EQ(results.sums[ctc_sum_nll], 0.5 + results.losses[0]);
  for (int64_t i = 0; i < results.d_logits.size(); ++i) {
    const bool counted = i < 5 * 4;
    EXPECT_EQ(results.d_logits[i] != 0.0, counted) << i;
  }
}

// One that is possible with the frames it has, though not with its logits, is no infeasible one.
TEST(CtcLoss, TargetsWithoutProbabilityAreCountedWithAnInfiniteLoss) {
  Problem p = random_problem(3, 8, 4, 2, 5);
  p.desc.blank = 0;
  p.targets.values = {1, 2, 1, 2, 1, 1};
  p.target_lengths.values = {2, 2, 2};
  p.frame_lengths.values = {6, 6, 2};  // the last has too few
  const Results<double> before = compute<double>(p);
  for (int64_t t = 0; t < 8; ++t) p.logits[(1 * 8 + t) * 4 + 2] = -infinity;
  const Results<double> results = compute<double>(p);
  EXPECT_EQ(results.losses[0], before.losses[0]);
  EXPECT_EQ(results.losses[1], infinity);
  EXPECT_EQ(results.losses[2], infinity);
  EXPECT_EQ(results.sums[ctc_sum_infeasible], 1.5);
  EXPECT_EQ(results.sums[ctc_sum_sequences], 2.5);
  EXPECT_EQ(results.sums[ctc_sum_targets], 4.5);
  EXPECT_EQ(results.sums[ctc_sum_nll], infinity);
  for (int64_t i = 0; i < results.d_logits.size(); ++i) {
    const int64_t b = i / 32, t = i / 4 % 8, v = i % 4;
    if (b == 1 && t < 6) {
      // The labels of its states; what no path takes is pushed down as ever.
      EXPECT_EQ(std::isnan(results.d_logits[i]), v <= 2) << i;
    } else {
      EXPECT_EQ(results.d_logits[i], before.d_logits[i]) << i;
    }
  }
}

// Nothing behind a sequence's frames or targets is read.
TEST(CtcLoss, PaddingIsNotRead) {
  Problem p = random_problem(3, 10, 5, 4, 9);
  const Results<float> before = compute<float>(p);
  for (int64_t b = 0; b < 3; ++b) {
    for (int64_t i = p.frame_lengths[b] * 5; i < 10 * 5; ++i)
      p.logits[b * 50 + i] = std::numeric_limits<double>::quiet_NaN();
  }
  const Results<float> after = compute<float>(p);
  EXPECT_TRUE(same_bits(before.losses, after.losses));
  EXPECT_TRUE(same_bits(before.d_logits, after.d_logits));
}

TEST(CtcLoss, LargeLogitsStayFinite) {
  Problem p = random_problem(3, 12, 5, 4, 11);
  for (double& logit : p.logits.values) logit *= 1e4;
  const Results<float> results = compute<float>(p);
  for (int64_t b = 0; b < 3; ++b) EXPECT_TRUE(std::isfinite(results.losses[b]));
  for (const float d : results.d_logits.values) EXPECT_LE(std::abs(d), 0.2501F);
}

TEST(CtcLoss, TargetsOutsideTheVocabularyAreErrors) {
  for (const int32_t wrong : {-1, 2, 5}) {
    Problem p = random_problem(3, 10, 5, 4, 9);
    p.targets[1 * 4] = wrong;
    EXPECT_THROW(compute<float>(p), Error) << wrong;
  }
  Problem p = random_problem(3, 10, 5, 4, 9);
  p.frame_lengths[2] = 11;
  EXPECT_THROW(compute<float>(p), Error);
}

TEST(CtcLoss, IsTheSameForAnyThreadCount) {
  Problem p = random_problem(7, 40, 9, 12, 3);
  expect_same_bits_for_any_thread_count<float>([&] {
    Results<float> results = compute<float>(p);
    return std::vector<Buffer<float>>{results.losses, results.sums, results.d_logits};
  });
}

}  // namespace
}  // namespace sigtrain
