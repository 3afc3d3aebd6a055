#include "gpu_testing.h"

namespace sigtrain {
namespace {

struct LinearCase {
  int64_t rows, in, out;
  bool bias;
  Activation activation;
};

class GpuLinear : public GpuTest, public ::testing::WithParamInterface<LinearCase> {};

double exact_gelu(double x) { return 0.5 * x * std::erfc(-x / std::sqrt(2.0)); }

TEST_P(GpuLinear, Forward) {
  const LinearCase c = GetParam();
  const Operand x = normal("x", {c.rows, c.in});
  const Operand weight =
      normal("weight", {c.out, c.in}, Role::compute, 1 / std::sqrt(double(c.in)));
  const Operand bias = normal_if(c.bias, "bias", {c.out});
  const bool activated = c.activation != Activation::none;
  const Operand z = output_if(activated, "pre_activation", {c.rows, c.out});
  const Operand y = output("y", {c.rows, c.out});
  run([&](Ops& ops, const Pick& at) {
    ops.linear_forward(at(x), at(weight), at(bias), c.activation, at(z), at(y));
  });
  Tolerance product = rounded(1.0) + summed(double(c.in), x.largest() * weight.largest());
  // For sizes that are no multiples of 8, some of cuBLASLt's algorithms round the product, which is
  // at most |y| + |bias|, before they add the bias. Which of them is fastest is decided by timing.
  if (c.bias) product = product + Tolerance{bf16_roundoff, bf16_roundoff * bias.largest()};
  if (!activated) {
    expect_near(y, product);
    return;
  }
  expect_near(z, product);
  // The activation is that of the pre-activation as it is stored. The exact GELU and its tanh
  // approximation differ by more than this around -2.
  std::vector<double> expected = z.gpu_values();
  for (double& value : expected) {
    value =
        c.activation == Activation::gelu ? exact_gelu(value) : std::pow(std::max(value, 0.0), 2.0);
  }
  const Tolerance function =
      c.activation == Activation::gelu ? gelu_tolerance(0.0) : Tolerance{4 * float_roundoff, 0.0};
  expect_near(y, expected, Tolerance{bf16_roundoff, 0.0} + function);
}

TEST_P(GpuLinear, Backward) {
  const LinearCase c = GetParam();
  const Operand x = normal("x", {c.rows, c.in});
  const Operand weight =
      normal("weight", {c.out, c.in}, Role::compute, 1 / std::sqrt(double(c.out)));
  const Operand dy = normal("dy", {c.rows, c.out});
  // Here the activation is the one in front of x.
  const Operand z = normal_if(c.activation != Activation::none, "pre_activation", {c.rows, c.in});
  const Operand dx = output("dx", {c.rows, c.in});
  const Operand dweight = normal("dweight", {c.out, c.in}, Role::accumulate);
  const Operand dbias = normal_if(c.bias, "dbias", {c.out}, Role::accumulate);
  const bool sums_dx = c.bias && c.activation != Activation::none;
  const Operand dbias_before = normal_if(sums_dx, "dbias_before", {c.in}, Role::accumulate);
  const std::vector<double> at_first = sums_dx ? dbias_before.values() : std::vector<double>{};
  run(
      [&](Ops& ops, const Pick& at) {
        ops.linear_backward(at(x), at(weight), at(dy), c.activation, at(z), at(dx), at(dweight),
                            at(dbias), at(dbias_before));
      },
      [&](const Ops& ops) { return ops.linear_backward_workspace(c.rows, c.in, c.out); });
  // With an activation the product is rounded once more before it is multiplied by the derivative,
  // which is below 1.13 for GELU and below twice the largest pre-activation for relu2.
  const double slope = c.activation == Activation::none   ? 1.0
                       : c.activation == Activation::gelu ? 1.13
                                                          : 2.0 * z.largest();
  Tolerance tolerance =
      rounded(slope) + summed(double(c.out), slope * dy.largest() * weight.largest());
  if (c.activation != Activation::none) tolerance.relative *= 2.0;
  expect_near(dx, tolerance);
  expect_near(dweight, summed(double(c.rows) + 1, x.largest() * dy.largest()));
  if (c.bias) expect_near(dbias, summed(double(c.rows) + 1, dy.largest()));
  if (sums_dx) {
    // Of dx as it is stored: a sum over its rows, on top of what was there.
    const std::vector<double> of_dx = dx.gpu_values();
    std::vector<double> expected = at_first;
    double largest = 0.0;
    for (size_t i = 0; i < of_dx.size(); ++i) {
      expected[i % size_t(c.in)] += of_dx[i];
      largest = std::max(largest, std::abs(of_dx[i]));
    }
    expect_near(dbias_before, expected, summed(double(c.rows) + 1, largest));
  }
}

TEST_F(GpuTest, LinearWithoutInputGradient) {
  const Operand x = normal("x", {24, 16}), weight = normal("weight", {8, 16});
  const Operand dy = normal("dy", {24, 8});
  const Operand dweight = normal("dweight", {8, 16}, Role::accumulate);
  run([&](Ops& ops, const Pick& at) {
    ops.linear_backward(at(x), at(weight), at(dy), Activation::none, {}, {}, at(dweight), {}, {});
  });
  expect_near(dweight, summed(25, x.largest() * dy.largest()));
}

INSTANTIATE_TEST_SUITE_P(Shapes, GpuLinear,
                         ::testing::Values(LinearCase{64, 128, 256, false, Activation::none},
                                           LinearCase{300, 512, 384, true, Activation::none},
                                           LinearCase{128, 256, 1024, true, Activation::gelu},
                                           LinearCase{96, 64, 192, false, Activation::gelu},
                                           LinearCase{130, 96, 160, true, Activation::relu2},
                                           LinearCase{37, 33, 51, true, Activation::gelu},
                                           LinearCase{5, 7, 3, false, Activation::none},
                                           LinearCase{2048, 320, 257, true, Activation::relu2},
                                           LinearCase{1, 64, 64, true, Activation::none}));

}  // namespace
}  // namespace sigtrain
