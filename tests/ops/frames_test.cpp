// What speech needs beside the other operations: windows of frames, sinusoids at real positions,
// GLU, layer drop, and means that leave padding out.
#include <algorithm>
#include <cmath>

#include "nn/positions.h"
#include "ops/op_testing.h"

namespace sigtrain {
namespace {

template <typename Real>
void check_unfold(const UnfoldDesc& desc, const std::vector<int32_t>& lengths) {
  auto x = RandomValues(1).normal<float>({desc.batch, desc.in_len, desc.channels});
  Buffer<int32_t> length({desc.batch});
  length.values = lengths;
  Buffer<Real> y({desc.batch * desc.out_len, desc.kernel * desc.channels});
  CpuOps<Real>().unfold(desc, x, length, y);
  for (int64_t b = 0; b < desc.batch; ++b) {
    for (int64_t t = 0; t < desc.out_len; ++t) {
      for (int64_t k = 0; k < desc.kernel; ++k) {
        const int64_t frame = t * desc.stride - desc.padding + k;
        for (int64_t c = 0; c < desc.channels; ++c) {
          const float expected = frame < 0 || frame >= lengths[static_cast<size_t>(b)]
                                     ? 0.0F
                                     : x[(b * desc.in_len + frame) * desc.channels + c];
          ASSERT_EQ(y[((b * desc.out_len + t) * desc.kernel + k) * desc.channels + c],
                    static_cast<Real>(expected))
              << b << " " << t << " " << k << " " << c;
        }
      }
    }
  }
}

TEST(Unfold, HoldsEveryWindow) {
  for (const UnfoldDesc& desc :
       {UnfoldDesc{3, 20, 7, 5, 7, 3, 3}, UnfoldDesc{3, 20, 20, 1, 3, 1, 1},
        UnfoldDesc{3, 20, 4, 8, 2, 5, 0}, UnfoldDesc{3, 20, 9, 2, 40, 3, 3}}) {
    check_unfold<float>(desc, {20, 8, 0});
    check_unfold<double>(desc, {1, 19, 20});
  }
}

template <typename Real>
void check_sinusoids(double tolerance) {
  constexpr int64_t rows = 6, width = 10;
  auto x = RandomValues(2).normal<Real>({rows, width});
  const Buffer<Real> before = x;
  Buffer<float> positions({rows});
  positions.values = {0.0F, 1.0F, 2.0F, -3.5F, 700.25F, 4.0F};
  CpuOps<Real>().add_sinusoids(positions, x);
  for (int64_t n = 0; n < rows; ++n) {
    for (int64_t i = 0; i < width / 2; ++i) {
      const double angle = positions[n] * std::pow(10000.0, -2.0 * static_cast<double>(i) / width);
      EXPECT_NEAR(x[n * width + i], before[n * width + i] + std::sin(angle), tolerance);
      EXPECT_NEAR(x[n * width + width / 2 + i], before[n * width + width / 2 + i] + std::cos(angle),
                  tolerance);
    }
  }
}

TEST(AddSinusoids, IsTheFormula) {
  check_sinusoids<double>(1e-14);
  check_sinusoids<float>(8 * float_roundoff);  // two roundings of numbers below 4
}

// At whole positions they are the table that models without augmentation use.
TEST(AddSinusoids, IsTheTableAtWholePositions) {
  Buffer<double> x({5, 12});
  std::fill(x.values.begin(), x.values.end(), 0.0);
  Buffer<float> positions({5});
  positions.values = {0, 1, 2, 3, 4};
  CpuOps<double>().add_sinusoids(positions, x);
  const std::vector<double> table = sincos_table(5, 12);
  for (int64_t i = 0; i < x.size(); ++i) EXPECT_NEAR(x[i], table[static_cast<size_t>(i)], 1e-14);
}

template <typename Real>
void check_glu_forward() {
  auto x = RandomValues(3).normal<Real>({7, 2 * 19}, 5.0);
  Buffer<Real> y({7, 19});
  CpuOps<Real>().glu_forward(x, y);
  for (int64_t n = 0; n < 7; ++n) {
    for (int64_t f = 0; f < 19; ++f) {
      const double exact =
          x[n * 38 + f] / (1.0 + std::exp(-static_cast<double>(x[n * 38 + 19 + f])));
      EXPECT_NEAR(y[n * 19 + f], exact, 8 * std::numeric_limits<Real>::epsilon() * std::abs(exact));
    }
  }
}

TEST(Glu, ForwardIsTheFormula) {
  check_glu_forward<double>();
  check_glu_forward<float>();
}

TEST(Glu, BackwardIsTheGradient) {
  RandomValues random(4);
  auto x = random.normal<double>({5, 2 * 13}, 2.0), dy = random.normal<double>({5, 13});
  Buffer<double> y(dy.shape), dx(x.shape);
  CpuOps<double> ops;
  ops.glu_backward(x, dy, dx);
  const auto loss = [&] {
    ops.glu_forward(x, y);
    return dot(y, dy);
  };
  EXPECT_LT(relative_error(dx, numerical_gradient(x, loss)), gradient_tolerance);
  RandomValues same_random(4);
  auto x_float = same_random.normal<float>(x.shape, 2.0),
       dy_float = same_random.normal<float>(dy.shape);
  Buffer<float> dx_float(x.shape);
  CpuOps<float>().glu_backward(x_float, dy_float, dx_float);
  EXPECT_LT(relative_error(dx_float, dx), 20 * float_roundoff);
}

TEST(LayerDrop, IsAllOrNothingWithItsProbability) {
  CpuOps<float> ops;
  const RandomStream stream{3, 5};
  Buffer<float> scale({4});
  int64_t kept = 0;
  constexpr int64_t steps = 4000;
  constexpr double p = 0.3;
  for (int64_t step = 0; step < steps; ++step) {
    ops.set_random_step(static_cast<uint64_t>(step));
    ops.layer_drop(stream, p, scale);
    for (const float value : scale.values) ASSERT_EQ(value, scale[0]);
    ASSERT_TRUE(scale[0] == 0.0F || scale[0] == 1.0F);
    kept += scale[0] == 1.0F;
  }
  // Five standard deviations of a binomial count.
  EXPECT_NEAR(static_cast<double>(kept), (1 - p) * steps, 5 * std::sqrt(steps * p * (1 - p)));
}

template <typename Real>
void check_sequence_statistics(const std::vector<int32_t>& lengths, double tolerance) {
  constexpr int64_t batch = 3, seq_len = 7, width = 5, heads = 2;
  RandomValues random(6);
  auto x = random.normal<Real>({batch * seq_len, width}, 1.0, 0.5);
  auto row_sum = random.normal<Real>({batch, heads, seq_len}, 1.0, 0.5);
  Buffer<int32_t> length({batch});
  length.values = lengths;
  double squares = 0.0, sum = 0.0, rows = 0.0;
  for (int64_t b = 0; b < batch; ++b) {
    const int64_t counted = lengths[static_cast<size_t>(b)];
    rows += static_cast<double>(counted);
    for (int64_t t = 0; t < seq_len; ++t) {
      for (int64_t c = 0; c < width; ++c) {
        Real& value = x[(b * seq_len + t) * width + c];
        if (t < counted) {
          squares += static_cast<double>(value) * value;
        } else {
          value = std::numeric_limits<Real>::quiet_NaN();
        }
      }
      for (int64_t h = 0; h < heads; ++h) {
        Real& value = row_sum[(b * heads + h) * seq_len + t];
        if (t < counted) {
          sum += value;
        } else {
          value = std::numeric_limits<Real>::quiet_NaN();
        }
      }
    }
  }
  CpuOps<Real> ops;
  Buffer<Real> rms({1}), mean({1});
  {
    const ExactWorkspace workspace(ops, ops.sequence_reduction_workspace(batch));
    ops.sequence_root_mean_square(x, length, rms);
  }
  {
    const ExactWorkspace workspace(ops, ops.sequence_reduction_workspace(batch * heads));
    ops.sequence_mean(row_sum, length, mean);
  }
  EXPECT_NEAR(rms[0], rows > 0 ? std::sqrt(squares / (rows * width)) : 0.0, tolerance);
  EXPECT_NEAR(mean[0], rows > 0 ? sum / (rows * heads) : 0.0, tolerance);
}

TEST(SequenceStatistics, LeavePaddingOut) {
  for (const std::vector<int32_t>& lengths :
       {std::vector{7, 3, 0}, std::vector{1, 7, 5}, std::vector{0, 0, 0}}) {
    check_sequence_statistics<double>(lengths, 1e-14);
    check_sequence_statistics<float>(lengths, 2 * float_roundoff);
  }
}

TEST(SequenceStatistics, AreTheSameForAnyThreadCount) {
  auto x = RandomValues(7).normal<float>({6 * 301, 33});
  Buffer<int32_t> length({6});
  length.values = {301, 7, 0, 155, 300, 299};
  expect_same_bits_for_any_thread_count<float>([&] {
    CpuOps<float> ops;
    const ExactWorkspace workspace(ops, ops.sequence_reduction_workspace(6));
    Buffer<float> rms({1});
    ops.sequence_root_mean_square(x, length, rms);
    return std::vector{rms};
  });
}

}  // namespace
}  // namespace sigtrain
