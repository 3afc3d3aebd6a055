#include "op_testing.h"

namespace sigtrain {
namespace {

struct SequenceCase {
  int64_t batch, prefix, tokens, width;  // tokens: with the prefix
  bool positions;
};

class SequenceTest : public ::testing::TestWithParam<SequenceCase> {};

template <typename Real>
struct Sequence {
  explicit Sequence(const SequenceCase& c) {
    RandomValues random(3);
    prefix = random.normal_if<Real>(c.prefix > 0, {c.prefix, c.width});
    x = random.normal<Real>({c.batch, c.tokens - c.prefix, c.width});
    positions = random.normal_if<Real>(c.positions, {c.tokens, c.width});
    y = Buffer<Real>({c.batch, c.tokens, c.width});
    dy = random.normal<Real>(y.shape);
    dx = Buffer<Real>(x.shape);
    dprefix = random.normal_if<Real>(c.prefix > 0, {c.prefix, c.width});
    dpositions = random.normal_if<Real>(c.positions, {c.tokens, c.width});
  }
  void forward() { ops.sequence_forward(prefix, x, positions, y); }
  void backward() { ops.sequence_backward(dy, dx, dprefix, dpositions); }

  CpuOps<Real> ops;
  Buffer<Real> prefix, x, positions, y, dy, dx, dprefix, dpositions;
};

TEST_P(SequenceTest, ForwardIsTheFormula) {
  const SequenceCase c = GetParam();
  Sequence<double> s(c);
  s.forward();
  const int64_t own = c.tokens - c.prefix;
  for (int64_t b = 0; b < c.batch; ++b) {
    for (int64_t t = 0; t < c.tokens; ++t) {
      for (int64_t i = 0; i < c.width; ++i) {
        const double token =
            t < c.prefix ? s.prefix[t * c.width + i] : s.x[(b * own + t - c.prefix) * c.width + i];
        const double position = c.positions ? s.positions[t * c.width + i] : 0.0;
        ASSERT_EQ(s.y[(b * c.tokens + t) * c.width + i], token + position);
      }
    }
  }
}

TEST_P(SequenceTest, BackwardIsTheGradient) {
  const SequenceCase c = GetParam();
  Sequence<double> s(c);
  const auto loss = [&] {
    s.forward();
    return dot(s.y, s.dy);
  };
  const auto dprefix_before = s.dprefix, dpositions_before = s.dpositions;
  s.backward();
  EXPECT_LT(relative_error(s.dx, numerical_gradient(s.x, loss)), gradient_tolerance);
  if (c.prefix > 0) {
    EXPECT_LT(relative_error(added(s.dprefix, dprefix_before), numerical_gradient(s.prefix, loss)),
              gradient_tolerance);
  }
  if (c.positions) {
    EXPECT_LT(relative_error(added(s.dpositions, dpositions_before),
                             numerical_gradient(s.positions, loss)),
              gradient_tolerance);
  }
  // What nobody asks for is left out, and changes nothing else.
  Sequence<double> again(c);
  again.ops.sequence_backward(again.dy, {}, again.dprefix, {});
  if (c.prefix > 0) {
    EXPECT_TRUE(same_bits(again.dprefix, s.dprefix));
  }
}

TEST_P(SequenceTest, GivesTheSameBitsForAnyThreadCount) {
  expect_same_bits_for_any_thread_count<float>([&] {
    Sequence<float> s(GetParam());
    s.forward();
    s.backward();
    return std::vector{s.y, s.dx, s.dprefix, s.dpositions};
  });
}

INSTANTIATE_TEST_SUITE_P(Cases, SequenceTest,
                         ::testing::Values(SequenceCase{1, 0, 1, 1, false},
                                           SequenceCase{3, 1, 5, 7, true},
                                           SequenceCase{2, 0, 6, 33, true},
                                           SequenceCase{4, 2, 3, 8, false},
                                           SequenceCase{2, 1, 2, 40, true}));

class PoolTest : public ::testing::TestWithParam<ImagePool> {};

TEST_P(PoolTest, IsTheFormulaAndItsGradient) {
  constexpr int64_t batch = 3, tokens = 5, width = 19;
  RandomValues random(4);
  CpuOps<double> ops;
  auto x = random.normal<double>({batch, tokens, width});
  const auto dy = random.normal<double>({batch, width});
  Buffer<double> y({batch, width}), dx(x.shape);
  ops.pool_forward(GetParam(), x, y);
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t c = 0; c < width; ++c) {
      double expected = x[b * tokens * width + c];
      if (GetParam() == ImagePool::mean) {
        for (int64_t t = 1; t < tokens; ++t) expected += x[(b * tokens + t) * width + c];
        expected /= tokens;
      }
      EXPECT_NEAR(y[b * width + c], expected, 1e-15);
    }
  }
  auto gradient = dy;
  ops.pool_backward(GetParam(), gradient, dx);
  const auto loss = [&] {
    ops.pool_forward(GetParam(), x, y);
    return dot(y, dy);
  };
  EXPECT_LT(relative_error(dx, numerical_gradient(x, loss)), gradient_tolerance);
}

INSTANTIATE_TEST_SUITE_P(Pools, PoolTest,
                         ::testing::Values(ImagePool::class_token, ImagePool::mean));

}  // namespace
}  // namespace sigtrain
