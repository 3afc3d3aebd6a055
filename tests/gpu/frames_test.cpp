#include "gpu_testing.h"

namespace sigtrain {
namespace {

class GpuGlu : public GpuTest, public ::testing::WithParamInterface<std::pair<int, int>> {};

// value sigmoid(gate); the derivative of sigmoid is at most 1/4.
TEST_P(GpuGlu, Forward) {
  const auto [rows, hidden] = GetParam();
  const Operand x = normal("x", {rows, 2 * hidden}, Role::compute, 3.0);
  const Operand y = output("y", {rows, hidden});
  run([&](Ops& ops, const Pick& at) { ops.glu_forward(at(x), at(y)); });
  expect_near(y, {bf16_roundoff + 4 * fast_function, 0x1p-40});
}

TEST_P(GpuGlu, Backward) {
  const auto [rows, hidden] = GetParam();
  const Operand x = normal("x", {rows, 2 * hidden}, Role::compute, 3.0);
  const Operand dy = normal("dy", {rows, hidden});
  const Operand dx = output("dx", {rows, 2 * hidden});
  run([&](Ops& ops, const Pick& at) { ops.glu_backward(at(x), at(dy), at(dx)); });
  expect_near(dx, rounded(dy.largest() * std::max(1.0, x.largest())));
}

INSTANTIATE_TEST_SUITE_P(Shapes, GpuGlu,
                         ::testing::Values(std::pair(64, 768), std::pair(7, 24), std::pair(5, 13),
                                           std::pair(1, 1), std::pair(3, 1001)));

TEST_F(GpuTest, UnfoldHoldsEveryWindow) {
  for (const UnfoldDesc& desc :
       {UnfoldDesc{3, 50, 17, 80, 7, 3, 3}, UnfoldDesc{3, 20, 20, 1, 3, 1, 1},
        UnfoldDesc{3, 20, 4, 33, 2, 5, 0}, UnfoldDesc{3, 200, 67, 13, 40, 3, 3}}) {
    for (const std::vector<int32_t>& lengths :
         {std::vector<int32_t>{20, 8, 0}, std::vector<int32_t>{1, 19, 20}}) {
      const Operand x = normal("x", {desc.batch, desc.in_len, desc.channels}, Role::accumulate);
      const Operand length = integers("lengths", lengths);
      const Operand y = output("y", {desc.batch * desc.out_len, desc.kernel * desc.channels});
      // The CPU takes what the loader makes: float, on every backend.
      std::vector<float> narrow(x.values().begin(), x.values().end());
      const Tensor on_cpu{narrow.data(), DType::f32, x.on_gpu().shape};
      run([&](Ops& ops, const Pick& at) {
        const bool is_cpu = at(x).dtype == DType::f64;
        ops.unfold(desc, is_cpu ? on_cpu : at(x), at(length), at(y));
      });
      expect_near(y, {bf16_roundoff, 0.0});
    }
  }
}

TEST_F(GpuTest, AddSinusoids) {
  for (const int64_t width : {768, 10, 2}) {
    constexpr int64_t rows = 150;
    std::vector<double> at_rows;
    for (int64_t n = 0; n < rows; ++n) at_rows.push_back(static_cast<float>(13.7 * n - 500.25));
    const Operand positions = given("positions", {rows}, at_rows, Role::accumulate);
    const Operand x = normal("x", {rows, width});
    std::vector<float> narrow(at_rows.begin(), at_rows.end());
    const Tensor on_cpu{narrow.data(), DType::f32, {rows}};
    run([&](Ops& ops, const Pick& at) {
      const bool is_cpu = at(positions).dtype == DType::f64;
      ops.add_sinusoids(is_cpu ? on_cpu : at(positions), at(x));
    });
    // An angle of up to 1550 is off by three roundings of itself.
    expect_near(x, Tolerance{bf16_roundoff, 4 * float_roundoff * 1600 + fast_function});
  }
}

TEST_F(GpuTest, SequenceStatisticsLeavePaddingOut) {
  for (const std::vector<int32_t>& lengths :
       {std::vector<int32_t>{70, 3, 0}, std::vector<int32_t>{0, 0, 0}}) {
    const Operand length = integers("lengths", lengths);
    const Operand x = normal("x", {3 * 70, 41}),
                  row_sum = normal("row_sum", {3, 5, 70}, Role::accumulate, 1.0, 0.5);
    const Operand rms = output("rms", {1}, Role::accumulate),
                  mean = output("mean", {1}, Role::accumulate);
    run([&](Ops& ops,
            const Pick& at) { ops.sequence_root_mean_square(at(x), at(length), at(rms)); },
        [](const Ops& ops) { return ops.sequence_reduction_workspace(3); });
    run([&](Ops& ops, const Pick& at) { ops.sequence_mean(at(row_sum), at(length), at(mean)); },
        [](const Ops& ops) { return ops.sequence_reduction_workspace(15); });
    expect_near(rms, {4 * float_roundoff, 0.0});
    expect_near(mean, {4 * float_roundoff, float_roundoff});
  }
}

TEST_F(GpuTest, LayerDropIsTheCpus) {
  for (uint64_t step = 0; step < 20; ++step) {
    const Operand scale = output("scale", {5}, Role::accumulate);
    run([&](Ops& ops, const Pick& at) {
      ops.set_random_step(step);
      ops.layer_drop({7, 3}, 0.5, at(scale));
    });
    expect_near(scale, exact);
  }
}

}  // namespace
}  // namespace sigtrain
