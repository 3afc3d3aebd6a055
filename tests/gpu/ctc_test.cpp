#include <span>

#include "gpu_testing.h"
#include "ops/planning_ops.h"
#include "tools/bench/relative_error.h"

namespace sigtrain {
namespace {

constexpr double peak = 2.0;

struct CtcCase {
  int64_t batch, seq_len, vocab_size, max_targets;
  bool peaked, gradient;
};

/// A frame's label in an alignment of the targets, drawn at random; as many as `frames`, or as the
/// targets need.
std::vector<int32_t> random_alignment(std::mt19937_64& engine, std::span<const int32_t> targets,
                                      int64_t frames) {
  // Every target, a blank between equal ones, and any other states: in order these are a path.
  std::vector<size_t> states;
  for (size_t i = 0; i < targets.size(); ++i) {
    if (i > 0 && targets[i] == targets[i - 1]) states.push_back(2 * i);
    states.push_back(2 * i + 1);
  }
  std::uniform_int_distribution<size_t> any(0, 2 * targets.size());
  while (static_cast<int64_t>(states.size()) < frames) states.push_back(any(engine));
  std::sort(states.begin(), states.end());
  std::vector<int32_t> labels;
  for (const size_t state : states) labels.push_back(state % 2 == 0 ? 0 : targets[state / 2]);
  return labels;
}

/// Logarithms of states, counted from each frame's largest logit, are those of a few paths beside
/// the alignment, which itself takes nothing but largest logits: at most log p of all paths, and
/// below 0 by the 10 or so of a frame of noise. Shares below e^-32, of three such frames, do not
/// matter.
double largest_peaked_logarithm(const Operand& logits, const std::vector<int32_t>& frame_lengths,
                                const Operand& losses) {
  const int64_t vocab_size = logits.on_cpu().columns();
  const int64_t seq_len = logits.on_cpu().rows() / int64_t(frame_lengths.size());
  double result = 0.0;
  for (size_t b = 0; b < frame_lengths.size(); ++b) {
    double log_z = 0.0;
    for (int64_t t = 0; t < frame_lengths[b]; ++t) {
      const double* row = &logits.values()[size_t((int64_t(b) * seq_len + t) * vocab_size)];
      double sum = 0.0;
      for (int64_t v = 0; v < vocab_size; ++v) sum += std::exp(row[v] - peak);
      log_z += std::log(sum);
    }
    if (std::isfinite(losses.values()[b])) result = std::max(result, log_z - losses.values()[b]);
  }
  return result + 32.0;
}

class GpuCtc : public GpuTest, public ::testing::WithParamInterface<CtcCase> {};

TEST_P(GpuCtc, IsTheFormula) {
  const CtcCase c = GetParam();
  std::mt19937_64 engine(static_cast<uint64_t>(c.seq_len));
  const auto draw = [&](int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(engine);
  };
  // Of all lengths, with repeats; the second has no frame to spare, the third one too few, the
  // last is the longest.
  std::vector<int32_t> targets, target_lengths, frame_lengths;
  for (int64_t b = 0; b < c.batch; ++b) {
    const int64_t count = b == 0                      ? 0
                          : b > 2 && b == c.batch - 1 ? c.max_targets
                                                      : draw(1, c.max_targets);
    int64_t needed = count;
    for (int64_t i = 0; i < c.max_targets; ++i) {
      const bool repeats = i > 0 && draw(0, 3) == 0;
      targets.push_back(repeats ? targets.back() : static_cast<int32_t>(draw(1, c.vocab_size - 1)));
      needed += i > 0 && i < count && targets.back() == targets[targets.size() - 2];
    }
    needed = std::min(needed, c.seq_len);
    target_lengths.push_back(static_cast<int32_t>(count));
    frame_lengths.push_back(static_cast<int32_t>(b == 1   ? needed
                                                 : b == 2 ? needed - 1
                                                          : draw(needed, c.seq_len)));
  }
  std::vector<double> values =
      normal("values", {c.batch * c.seq_len, c.vocab_size}, Role::compute, 2.0).values();
  // Peaked: an alignment's labels have the largest logit, which half of the time another label
  // shares, often the next frame's. So a path's logarithm, counted from the largest logits, stays
  // small, as in training, and the gradients are large.
  for (int64_t b = 0; c.peaked && b < c.batch; ++b) {
    const size_t first = size_t(b * c.max_targets), count = size_t(target_lengths[size_t(b)]);
    const int64_t length = frame_lengths[size_t(b)];
    const std::vector<int32_t> path =
        random_alignment(engine, std::span(targets).subspan(first, count), length);
    for (int64_t t = 0; t < length; ++t) {
      double* row = &values[size_t((b * c.seq_len + t) * c.vocab_size)];
      for (int64_t v = 0; v < c.vocab_size; ++v) row[v] = round_to_bf16(row[v] / 2.0 - 8.0);
      row[path[size_t(t)]] = peak;
      if (draw(0, 7) == 0) row[path[size_t(std::min(t + 1, length - 1))]] = peak;
      if (draw(0, 1) == 0) row[draw(0, c.vocab_size - 1)] = peak;
    }
  }
  const Operand logits = given("logits", {c.batch * c.seq_len, c.vocab_size}, values);
  const Operand frames = integers("frame_lengths", frame_lengths);
  Operand labels = integers("targets", targets),
          counts = integers("target_lengths", target_lengths);
  const Operand losses = output("losses", {c.batch}, Role::accumulate);
  const Operand sums = given("sums", {ctc_sum_slots}, {0.5, 1.0, 2.0, 3.0}, Role::accumulate);
  const Operand d_logits = output_if(c.gradient, "d_logits", {c.batch * c.seq_len, c.vocab_size});
  const CtcDesc desc{c.batch, c.seq_len, c.vocab_size, c.max_targets, 0, 0.125};
  const auto matrix = [&](Tensor x) { return x.reshape({c.batch, c.max_targets}); };
  run(
      [&](Ops& ops, const Pick& at) {
        ops.ctc_loss(desc, at(logits), at(frames), matrix(at(labels)), at(counts), at(losses),
                     at(sums), at(d_logits));
      },
      [&](const Ops& ops) { return ops.ctc_loss_workspace(desc); });

  // A frame adds three roundings to a state's logarithm, of numbers that grow to `largest`; these
  // are independent, as in summed_roundings.
  const double largest = c.peaked ? largest_peaked_logarithm(logits, frame_lengths, losses)
                                  : 8.0 * static_cast<double>(c.seq_len) + 1.0;
  const double logarithm = 6.0 / std::sqrt(3.0) * std::sqrt(3.0 * static_cast<double>(c.seq_len)) *
                           float_roundoff * largest;
  const std::vector<double> got = losses.gpu_values(), expected = losses.values();
  int64_t infeasible = 0;
  for (size_t b = 0; b < got.size(); ++b) {
    if (std::isinf(expected[b])) {
      EXPECT_EQ(got[b], expected[b]) << b;
      ++infeasible;
    } else {
      EXPECT_NEAR(got[b], expected[b], logarithm + 4 * float_roundoff * expected[b]) << b;
    }
  }
  EXPECT_EQ(infeasible > 0, c.batch > 2 && target_lengths[2] > 0);
  const std::vector<double> got_sums = sums.gpu_values(), expected_sums = sums.values();
  EXPECT_NEAR(
      got_sums[ctc_sum_nll], expected_sums[ctc_sum_nll],
      static_cast<double>(c.batch) * logarithm + 8 * float_roundoff * expected_sums[ctc_sum_nll]);
  for (const int slot : {int{ctc_sum_sequences}, int{ctc_sum_targets}, int{ctc_sum_infeasible}})
    EXPECT_EQ(got_sums[slot], expected_sums[slot]) << slot;
  if (!c.gradient) return;
  // A share is e to the sum of two such logarithms, that together have gone through all frames,
  // less a third, which has too. On the whole gradient, whose entries are about 1/2 or small, that
  // and the rounding stay below 1%.
  expect_near(d_logits, {bf16_roundoff, desc.gradient_scale * (std::sqrt(2.0) * logarithm + 1e-6)});
  EXPECT_LE(relative_error_by_norm(d_logits.gpu_values(), d_logits.values()), 0.01);
}

INSTANTIATE_TEST_SUITE_P(
    Cases, GpuCtc,
    ::testing::Values(CtcCase{4, 12, 5, 4, false, true}, CtcCase{1, 1, 2, 1, false, true},
                      CtcCase{7, 60, 29, 25, true, true}, CtcCase{4, 300, 29, 140, true, true},
                      CtcCase{3, 40, 1000, 16, false, true}, CtcCase{4, 1500, 29, 700, true, true},
                      CtcCase{5, 33, 29, 12, false, false}));

TEST_F(GpuTest, CtcTargetsThatDoNotFitAreRefusedInPlanning) {
  const auto plan = [&](int64_t max_targets) {
    PlanningOps planning(gpu());
    const CtcDesc desc{1, max_targets, 29, max_targets, 0, 1.0};
    const auto planned = [](DType dtype, Shape shape) { return Tensor{nullptr, dtype, shape}; };
    planning.ctc_loss(desc, planned(DType::bf16, {max_targets, 29}), planned(DType::i32, {1}),
                      planned(DType::i32, {1, max_targets}), planned(DType::i32, {1}),
                      planned(DType::f32, {1}), planned(DType::f32, {ctc_sum_slots}),
                      planned(DType::bf16, {max_targets, 29}));
    return planning.workspace_bytes();
  };
  EXPECT_GT(plan(4000), size_t{2} * 4000 * 8001 * sizeof(float));
  try {
    plan(100000);
    FAIL() << "100000 targets were planned for";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("100000 letters an utterance are more than the"),
              std::string::npos)
        << error.what();
  }
}

// Counted with an infinite loss, as on the CPU: the third alone is infeasible.
TEST_F(GpuTest, CtcTargetsWithoutProbabilityAreNotInfeasible) {
  const int64_t frames = 6, vocab_size = 4;
  std::vector<double> values(static_cast<size_t>(3 * frames * vocab_size));
  for (size_t i = 0; i < values.size(); ++i) {
    const bool impossible = i / static_cast<size_t>(frames * vocab_size) == 1 &&
                            i % static_cast<size_t>(vocab_size) == 2;
    values[i] = impossible ? -HUGE_VAL : 0.25 * static_cast<double>(i % 5);
  }
  const Operand logits = given("logits", {3 * frames, vocab_size}, values);
  const Operand lengths = integers("frame_lengths", {6, 6, 2}),
                targets = integers("targets", {1, 2, 1, 2, 1, 1}),
                counts = integers("target_lengths", {2, 2, 2});
  const Operand losses = output("losses", {3}, Role::accumulate);
  const Operand sums = given("sums", {ctc_sum_slots}, {0, 0, 0, 0}, Role::accumulate);
  const Operand d_logits = output("d_logits", {3 * frames, vocab_size});
  const CtcDesc desc{3, frames, vocab_size, 2, 0, 1.0};
  run(
      [&](Ops& ops, const Pick& at) {
        ops.ctc_loss(desc, at(logits), at(lengths), at(targets).reshape({3, 2}), at(counts),
                     at(losses), at(sums), at(d_logits));
      },
      [&](const Ops& ops) { return ops.ctc_loss_workspace(desc); });
  const std::vector<double> got = losses.gpu_values(), expected = losses.values();
  EXPECT_NEAR(got[0], expected[0], 100 * float_roundoff);  // some tens of roundings of numbers < 10
  EXPECT_TRUE(std::isinf(got[1]) && std::isinf(got[2]));
  for (const std::vector<double>& of : {sums.gpu_values(), sums.values()}) {
    EXPECT_TRUE(std::isinf(of[ctc_sum_nll]));
    EXPECT_EQ(of[ctc_sum_sequences], 2.0);
    EXPECT_EQ(of[ctc_sum_targets], 4.0);
    EXPECT_EQ(of[ctc_sum_infeasible], 1.0);
  }
  const std::vector<double> gradient = d_logits.gpu_values();
  for (size_t i = 0; i < gradient.size(); ++i)
    EXPECT_EQ(std::isnan(gradient[i]), std::isnan(d_logits.values()[i])) << i;
}

TEST_F(GpuTest, CtcTargetsOutsideTheVocabularyAreReported) {
  for (const int32_t wrong : {0, -1, 7}) {
    const Operand logits = normal("logits", {2 * 6, 7});
    const Operand frames = integers("frame_lengths", {6, 6}), counts = integers("counts", {2, 2});
    const Operand targets = integers("targets", {1, 2, 3, wrong});
    const Operand losses = output("losses", {2}, Role::accumulate);
    const Operand sums = given("sums", {ctc_sum_slots}, {0, 0, 0, 0}, Role::accumulate);
    const CtcDesc desc{2, 6, 7, 2, 0, 1.0};
    const size_t bytes = gpu().ctc_loss_workspace(desc);
    const DeviceMemory memory = gpu().allocate(bytes);
    gpu().set_workspace({memory.get(), DType::f32, {static_cast<int64_t>(bytes / 4)}});
    gpu().ctc_loss(desc, logits.on_gpu(), frames.on_gpu(), targets.on_gpu().reshape({2, 2}),
                   counts.on_gpu(), losses.on_gpu(), sums.on_gpu(), {});
    gpu().set_workspace({});
    try {
      gpu().synchronize();
      FAIL() << "target " << wrong << " went unnoticed";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("a target of sequence 1 is"), std::string::npos)
          << error.what();
    }
  }
}

}  // namespace
}  // namespace sigtrain
