#include "gpu_testing.h"

namespace sigtrain {
namespace {

struct CtcCase {
  int64_t batch, seq_len, vocab_size, max_targets;
  bool gradient;
};

class GpuCtc : public GpuTest, public ::testing::WithParamInterface<CtcCase> {};

TEST_P(GpuCtc, IsTheFormula) {
  const CtcCase c = GetParam();
  std::mt19937_64 engine(static_cast<uint64_t>(c.seq_len));
  const auto draw = [&](int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(engine);
  };
  // Of all lengths, with repeats; the second has no frame to spare, the third one too few.
  std::vector<int32_t> targets, target_lengths, frame_lengths;
  for (int64_t b = 0; b < c.batch; ++b) {
    const int64_t count = b == 0 ? 0 : draw(1, c.max_targets);
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
  const Operand logits = normal("logits", {c.batch * c.seq_len, c.vocab_size}, Role::compute, 2.0);
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

  // A frame adds three roundings to a state's logarithm, of numbers that grow to the frames' sum of
  // distances to the largest logit (on average 4 standard deviations of 2); errors of either sign.
  const double largest = 8.0 * static_cast<double>(c.seq_len) + 1.0;
  const double logarithm =
      6.0 * std::sqrt(3.0 * static_cast<double>(c.seq_len)) * float_roundoff * largest;
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
  // A share is e to the sum of two such logarithms, less a third.
  if (c.gradient)
    expect_near(d_logits, {bf16_roundoff, desc.gradient_scale * (3.0 * logarithm + 1e-6)});
}

INSTANTIATE_TEST_SUITE_P(Cases, GpuCtc,
                         ::testing::Values(CtcCase{4, 12, 5, 4, true}, CtcCase{1, 1, 2, 1, true},
                                           CtcCase{7, 60, 29, 25, true},
                                           CtcCase{3, 300, 29, 140, true},
                                           CtcCase{3, 40, 1000, 16, true},
                                           CtcCase{2, 1500, 29, 700, true},
                                           CtcCase{5, 33, 29, 12, false}));

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
