#include "gpu_testing.h"

namespace sigtrain {
namespace {

class GpuReduction : public GpuTest, public ::testing::WithParamInterface<int64_t> {};

TEST_P(GpuReduction, IsTheFormula) {
  const int64_t count = GetParam();
  const auto workspace = [&](const Ops& ops) { return ops.reduction_workspace(count); };
  const Operand wide = normal("wide", {count}, Role::accumulate, 1.0, 0.5);
  const Operand narrow = normal("narrow", {count});
  const Operand squares = output("squares", {1}, Role::accumulate);
  const Operand mean = output("mean", {1}, Role::accumulate);
  const Operand rms = output("rms", {1}, Role::accumulate);
  run([&](Ops& ops, const Pick& at) { ops.sum_of_squares(at(wide), at(squares)); }, workspace);
  run([&](Ops& ops, const Pick& at) { ops.mean(at(wide), at(mean)); }, workspace);
  run([&](Ops& ops, const Pick& at) { ops.root_mean_square(at(narrow), at(rms)); }, workspace);
  // A thread adds a few hundred elements in float before it goes on in double.
  expect_near(squares, {512 * float_roundoff, 0.0});
  expect_near(mean, {0.0, 512 * float_roundoff * wide.largest()});
  expect_near(rms, {512 * float_roundoff, 0.0});
}

INSTANTIATE_TEST_SUITE_P(Counts, GpuReduction,
                         ::testing::Values(1, 7, 8, 255, 2049, 100003, 3000001));

TEST_F(GpuTest, ReductionFromAnUnalignedAddress) {
  const Operand x = normal("x", {1000}, Role::accumulate);
  const Operand result = output("result", {1}, Role::accumulate);
  run([&](Ops& ops, const Pick& at) { ops.sum_of_squares(at(x).slice(1, 1000), at(result)); },
      [](const Ops& ops) { return ops.reduction_workspace(999); });
  expect_near(result, {64 * float_roundoff, 0.0});
}

TEST_F(GpuTest, SumOfSquaresKeepsWhatIsNotFinite) {
  for (const double bad : {std::nan(""), double(INFINITY)}) {
    std::vector<double> values(10000, 0.5);
    values[7777] = bad;
    const Operand x = given("x", {10000}, values, Role::accumulate);
    const Operand result = output("result", {1}, Role::accumulate);
    run([&](Ops& ops, const Pick& at) { ops.sum_of_squares(at(x), at(result)); },
        [](const Ops& ops) { return ops.reduction_workspace(10000); });
    EXPECT_FALSE(std::isfinite(result.gpu_values()[0]));
  }
}

TEST_F(GpuTest, ClipFactor) {
  const double nan = std::nan("");
  const std::vector<std::vector<double>> group_sums = {
      {4.0, 5.0, 16.0}, {0.01, 0.02, 0.0}, {1.0, nan, 2.0}, {1.0, INFINITY, 2.0}};
  for (const double max_norm : {0.0, 1.0}) {
    for (const auto& sums : group_sums) {
      const Operand groups = given("groups", {3}, sums, Role::accumulate);
      const Operand control =
          given("control", {control_slots}, {9, 9, 9, 5, 2, 1, 0.01, 0.5}, Role::accumulate);
      run([&](Ops& ops, const Pick& at) { ops.clip_factor(at(groups), max_norm, at(control)); });
      std::vector<double> expected = control.values(), got = control.gpu_values();
      if (!std::isfinite(expected[control_grad_norm])) {
        EXPECT_FALSE(std::isfinite(got[control_grad_norm]));
        got[control_grad_norm] = expected[control_grad_norm] = 0.0;
      }
      for (int slot = 0; slot < control_slots; ++slot)
        EXPECT_NEAR(got[slot], expected[slot], 1e-6 * std::abs(expected[slot])) << "slot " << slot;
    }
  }
}

class GpuAdamW : public GpuTest, public ::testing::WithParamInterface<std::pair<int64_t, bool>> {};

TEST_P(GpuAdamW, IsTheFormula) {
  const auto [count, with_copy] = GetParam();
  for (const DecayMode mode : {DecayMode::coupled, DecayMode::decoupled}) {
    const Operand control =
        given("control", {control_slots}, {3, 0.25, 1, 4, 0, 0, static_cast<float>(0.01), 0.5},
              Role::accumulate);
    const Operand gradients = normal("gradients", {count}, Role::accumulate);
    const Operand weights = normal("weights", {count}, Role::accumulate);
    const Operand m = normal("m", {count}, Role::accumulate, 0.1);
    std::vector<double> squares = normal("", {count}, Role::accumulate, 0.1).values();
    for (double& value : squares) value = static_cast<float>(value * value);
    const Operand v = given("v", {count}, squares, Role::accumulate);
    const Operand copy = output_if(with_copy, "copy", {count});
    AdamWDesc desc;
    desc.rate_scale = 0.375;
    desc.weight_decay = 0.1;
    desc.decay_mode = mode;
    run([&](Ops& ops, const Pick& at) {
      ops.adamw(desc, at(control), at(gradients), at(weights), at(m), at(v), at(copy));
    });
    expect_near(m, {8 * float_roundoff, 8 * float_roundoff * m.largest()});
    expect_near(v, {8 * float_roundoff, 0.0});
    // The update is at most a few learning rates.
    expect_near(weights, {4 * float_roundoff, 64 * float_roundoff * weights.largest()});
    if (with_copy) {
      std::vector<double> expected = weights.gpu_values();
      for (double& value : expected) value = round_to_bf16(value);
      expect_near(copy, expected, exact);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Counts, GpuAdamW,
                         ::testing::Values(std::pair(1, true), std::pair(8, true),
                                           std::pair(1000, false), std::pair(4099, true),
                                           std::pair(3000000, true)));

TEST_F(GpuTest, StepsThatAreNotFiniteChangeNothing) {
  const Operand control =
      given("control", {control_slots}, {0, 1, 0, 4, 1, 1, 0.01, 0.5}, Role::accumulate);
  const Operand gradients =
      given("gradients", {16}, std::vector<double>(16, std::nan("")), Role::accumulate);
  const Operand weights = normal("weights", {16}, Role::accumulate);
  const Operand m = normal("m", {16}, Role::accumulate), v = normal("v", {16}, Role::accumulate);
  const Operand copy = normal("copy", {16}), average = normal("average", {16}, Role::accumulate);
  const std::vector<Operand> kept = {weights, m, v, copy, average};
  std::vector<std::vector<unsigned char>> before;
  for (const Operand& operand : kept) before.push_back(operand.gpu_bytes());
  gpu().adamw({}, control.on_gpu(), gradients.on_gpu(), weights.on_gpu(), m.on_gpu(), v.on_gpu(),
              copy.on_gpu());
  gpu().ema_update(0.9, control.on_gpu(), gradients.on_gpu(), average.on_gpu());
  for (size_t i = 0; i < kept.size(); ++i) EXPECT_TRUE(kept[i].gpu_bytes() == before[i]);
}

TEST_F(GpuTest, MovingAverage) {
  for (const int64_t count : {1, 16, 1003}) {
    const Operand control =
        given("control", {control_slots}, {0, 1, 1, 4, 1, 1, 0.01, 0.5}, Role::accumulate);
    const Operand weights = normal("weights", {count}, Role::accumulate);
    const Operand average = normal("average", {count}, Role::accumulate);
    run([&](Ops& ops, const Pick& at) {
      ops.ema_update(0.99, at(control), at(weights), at(average));
    });
    expect_near(average, {4 * float_roundoff, 4 * float_roundoff * weights.largest()});
  }
}

}  // namespace
}  // namespace sigtrain
