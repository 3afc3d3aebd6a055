// What the GPU is held to with a whole model, whichever it is: the CPU's gradients, and the same
// bits every time.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "config/enum_names.h"
#include "models/small_model.h"

namespace sigtrain {

/// Expects each parameter's gradient on the GPU to be the CPU's in direction and length.
///
/// An activation rounded to bfloat16 is off by 2^-9 of itself (root mean square about 2^-9.8), and
/// some 30 of them lie in a row between the loss and the first layer's weights. Independent, they
/// add up to sqrt(60) 2^-9.8, under 1% of a gradient; 4.5% make a cosine of 0.999.
///
/// Where `layers_may_be_left_out`, a gradient that is zero on the CPU is to be zero on the GPU;
/// else none may be.
template <typename CpuModel, typename GpuModel>
void expect_gradients_of_cpu(CpuModel& cpu, GpuModel& gpu, bool layers_may_be_left_out = false) {
  for (ParameterId id = 0; id < cpu.tensors(); ++id) {
    const std::vector<double> expected = cpu.gradient_values(id), actual = gpu.gradient_values(id);
    const double expected_squares = dot(expected, expected), actual_squares = dot(actual, actual);
    const std::string& name = cpu.table()[id].name;
    if (layers_may_be_left_out && expected_squares == 0.0) {
      EXPECT_EQ(actual_squares, 0.0) << name;
      continue;
    }
    ASSERT_GT(expected_squares, 0.0) << name;
    EXPECT_GT(dot(expected, actual) / std::sqrt(expected_squares * actual_squares), 0.999) << name;
    EXPECT_NEAR(std::sqrt(actual_squares / expected_squares), 1.0, 0.03) << name;
  }
}

/// Expects a few optimizer steps to give the same losses and weights, bit for bit, once more and
/// with every way of recomputation. `make(recompute)` gives the model, `train(model)` adds a
/// batch's gradients and returns the sums of its loss.
template <typename Make, typename Train>
void expect_same_bits_with_recomputation(const Make& make, const Train& train) {
  struct Outcome {
    std::vector<std::vector<double>> losses;
    std::vector<double> weights;
  };
  const auto outcome_of = [&](Recompute recompute) {
    auto model = make(recompute);
    Optimizer optimizer(model.parameters(), model.ops(), {}, model.model().width);
    optimizer.set_rate(model.ops(), 1.0);
    Outcome outcome;
    for (int step = 0; step < 3; ++step) {
      optimizer.zero_gradients(model.ops());
      outcome.losses.push_back(train(model));
      optimizer.step(model.ops());
    }
    outcome.weights = host_values(model.ops(), model.parameters().master());
    return outcome;
  };
  const Outcome first = outcome_of(Recompute::none);
  for (const auto& recompute : kEnumNames<Recompute>) {
    const Outcome again = outcome_of(recompute.value);
    EXPECT_EQ(again.losses, first.losses) << recompute.name;
    EXPECT_TRUE(again.weights == first.weights) << recompute.name;
  }
}

}  // namespace sigtrain
