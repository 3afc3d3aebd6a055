#include "op_testing.h"

namespace sigtrain {
namespace {

template <typename Real>
Buffer<Real> of(std::initializer_list<double> values) {
  Buffer<Real> buffer({static_cast<int64_t>(values.size())});
  std::transform(values.begin(), values.end(), buffer.values.begin(),
                 [](double value) { return static_cast<Real>(value); });
  return buffer;
}

template <typename Real>
Buffer<Real> zeros(int64_t n) {
  Buffer<Real> buffer({n});
  std::fill(buffer.values.begin(), buffer.values.end(), Real(0));
  return buffer;
}

template <typename Real>
Buffer<Real> control_with(double learning_rate, double schedule) {
  auto control = zeros<Real>(control_slots);
  control[control_learning_rate] = static_cast<Real>(learning_rate);
  control[control_schedule] = static_cast<Real>(schedule);
  return control;
}

template <typename Real>
void check_clip_factor() {
  CpuOps<Real> ops;
  auto control = control_with<Real>(0.25, 0.5);
  auto sums = of<Real>({4.0, 3.0, 9.0});
  ops.clip_factor(sums, 1.0, control);
  EXPECT_EQ(control[control_grad_norm], 4.0);
  EXPECT_EQ(control[control_clip_scale], 0.25);
  EXPECT_EQ(control[control_finite], 1.0);
  EXPECT_EQ(control[control_applied_steps], 1.0);
  ops.clip_factor(sums, 8.0, control);  // below the limit
  EXPECT_EQ(control[control_clip_scale], 1.0);
  ops.clip_factor(sums, 0.0, control);  // no limit
  EXPECT_EQ(control[control_clip_scale], 1.0);
  EXPECT_EQ(control[control_applied_steps], 3.0);
  double skipped = 0.0;
  for (const double bad :
       {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    sums[1] = static_cast<Real>(bad);
    for (const double max_norm : {0.0, 1.0}) {
      ops.clip_factor(sums, max_norm, control);
      EXPECT_EQ(control[control_finite], 0.0);
      EXPECT_EQ(control[control_applied_steps], 3.0);
      EXPECT_EQ(control[control_skipped_steps], ++skipped);
      EXPECT_EQ(control[control_consecutive_skipped], skipped);
      EXPECT_FALSE(std::isfinite(control[control_grad_norm]));
    }
  }
  sums[1] = 0.0;
  ops.clip_factor(sums, 1.0, control);  // training goes on
  EXPECT_EQ(control[control_finite], 1.0);
  EXPECT_EQ(control[control_applied_steps], 4.0);
  EXPECT_EQ(control[control_skipped_steps], skipped);
  EXPECT_EQ(control[control_consecutive_skipped], 0.0);
  // The host's slots are the host's.
  EXPECT_EQ(control[control_learning_rate], 0.25);
  EXPECT_EQ(control[control_schedule], 0.5);
}

TEST(ClipFactor, SetsItsSlots) {
  check_clip_factor<float>();
  check_clip_factor<double>();
}

// Two steps from w = 2 with g = 1 and then g = -0.5, computed by hand with beta1 = 0.5,
// beta2 = 0.75, eps = 0.5, lr = 0.1, rate_scale = 0.5, weight decay 0.01, schedule 0.8:
//   step 1: m = 0.5, v = 0.25; m^ = 0.5 / 0.5 = 1, v^ = 0.25 / 0.25 = 1; update 1 / (1 + 0.5) = 2/3
//   step 2: m = 0.25 - 0.25 = 0, v = 0.1875 + 0.0625 = 0.25; m^ = 0; update 0
// coupled:   w1 = 2 - 0.05 (2/3 + 0.02),          w2 = w1 - 0.05 * 0.01 w1
// decoupled: w1 = 2 - 0.05 * 2/3 - 0.8 * 0.02,    w2 = w1 - 0.8 * 0.01 w1
template <typename Real>
void check_two_steps(DecayMode mode, double clip_scale) {
  CpuOps<Real> ops;
  AdamWDesc desc;
  desc.beta1 = 0.5, desc.beta2 = 0.75, desc.eps = 0.5;
  desc.rate_scale = 0.5, desc.weight_decay = 0.01, desc.decay_mode = mode;
  constexpr int64_t n = 5;
  auto w = zeros<Real>(n), m = zeros<Real>(n), v = zeros<Real>(n), g = zeros<Real>(n);
  std::fill(w.values.begin(), w.values.end(), Real(2));
  Buffer<Real> compute_weights({n});
  auto control = control_with<Real>(0.1, 0.8);
  control[control_finite] = 1.0;
  control[control_clip_scale] = static_cast<Real>(clip_scale);
  const bool coupled = mode == DecayMode::coupled;
  const double w1 = coupled ? 2 - 0.05 * (2.0 / 3 + 0.02) : 2 - 0.05 * 2.0 / 3 - 0.8 * 0.02;
  const double w2 = coupled ? w1 - 0.05 * 0.01 * w1 : w1 - 0.8 * 0.01 * w1;
  const double tolerance = 8 * std::numeric_limits<Real>::epsilon();
  for (const int step : {1, 2}) {
    control[control_applied_steps] = step;
    std::fill(g.values.begin(), g.values.end(),
              static_cast<Real>((step == 1 ? 1.0 : -0.5) / clip_scale));
    ops.adamw(desc, control, g, w, m, v, compute_weights);
    for (int64_t i = 0; i < n; ++i) {
      EXPECT_NEAR(m[i], step == 1 ? 0.5 : 0.0, tolerance);
      EXPECT_NEAR(v[i], 0.25, tolerance);
      EXPECT_NEAR(w[i], step == 1 ? w1 : w2, tolerance);
      EXPECT_EQ(compute_weights[i], w[i]);
    }
  }
}

TEST(AdamW, TwoStepsByHand) {
  for (const DecayMode mode : {DecayMode::coupled, DecayMode::decoupled}) {
    for (const double clip_scale : {1.0, 0.25}) {
      check_two_steps<float>(mode, clip_scale);
      check_two_steps<double>(mode, clip_scale);
    }
  }
}

TEST(AdamW, FirstStepMovesByTheLearningRate) {
  // With bias correction and small eps the first update is lr * sign(g), whatever the betas.
  CpuOps<double> ops;
  auto w = of<double>({1.0, 1.0}), g = of<double>({1e-3, -50.0});
  auto m = zeros<double>(2), v = zeros<double>(2);
  auto control = control_with<double>(0.01, 1.0);
  ops.clip_factor(of<double>({1.0}), 0.0, control);
  ops.adamw({}, control, g, w, m, v, {});
  EXPECT_NEAR(w[0], 0.99, 1e-6);
  EXPECT_NEAR(w[1], 1.01, 1e-6);
}

TEST(AdamW, ChangesNothingWhenTheStepIsNotFinite) {
  CpuOps<float> ops;
  RandomValues random(1);
  auto control = control_with<float>(0.1, 1.0);
  ops.clip_factor(of<float>({std::numeric_limits<double>::quiet_NaN()}), 1.0, control);
  Buffer<float> g({33});  // of NaN
  auto w = random.normal<float>({33}), m = random.normal<float>({33});
  auto v = random.normal<float>({33}), compute_weights = random.normal<float>({33});
  auto average = random.normal<float>({33});
  const std::vector before{w, m, v, compute_weights, average};
  ops.adamw({}, control, g, w, m, v, compute_weights);
  ops.ema_update(0.9, control, w, average);
  const std::vector after{w, m, v, compute_weights, average};
  for (size_t i = 0; i < after.size(); ++i) EXPECT_TRUE(same_bits(after[i], before[i])) << i;
}

TEST(EmaUpdate, IsTheFormula) {
  CpuOps<double> ops;
  RandomValues random(2);
  auto control = control_with<double>(0.1, 1.0);
  control[control_finite] = 1.0;
  auto w = random.normal<double>({1003}), average = random.normal<double>({1003});
  const auto before = average;
  ops.ema_update(0.75, control, w, average);
  for (int64_t i = 0; i < w.size(); ++i)
    ASSERT_NEAR(average[i], 0.75 * before[i] + 0.25 * w[i], 1e-15 * 8);
}

template <typename Real>
std::vector<Buffer<Real>> three_steps(int64_t n) {
  CpuOps<Real> ops;
  RandomValues random(3);
  AdamWDesc desc;
  desc.weight_decay = 0.1;
  auto w = random.normal<Real>({n}), m = zeros<Real>(n), v = zeros<Real>(n), average = w;
  Buffer<Real> compute_weights({n});
  auto control = control_with<Real>(0.01, 0.5);
  for (int step = 0; step < 3; ++step) {
    auto g = random.normal<Real>({n});
    Buffer<Real> sum({1});
    ExactWorkspace workspace(ops, ops.reduction_workspace(n));
    ops.sum_of_squares(g, sum);
    ops.clip_factor(sum, 1.0, control);
    ops.adamw(desc, control, g, w, m, v, compute_weights);
    ops.ema_update(0.9, control, w, average);
  }
  return {w, m, v, compute_weights, average, control};
}

TEST(Optimizer, FloatAgreesWithDouble) {
  const auto exact = three_steps<double>(50021);
  const auto rounded = three_steps<float>(50021);
  for (size_t i = 0; i < exact.size(); ++i)
    EXPECT_LT(relative_error(rounded[i], exact[i]), 30 * float_roundoff) << i;
}

TEST(Optimizer, IsTheSameForAnyThreadCount) {
  expect_same_bits_for_any_thread_count<float>([] { return three_steps<float>(50021); });
}

}  // namespace
}  // namespace sigtrain
