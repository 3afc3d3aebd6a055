#include <gmock/gmock.h>

#include "op_testing.h"

namespace sigtrain {
namespace {

struct EmbeddingShape {
  int64_t rows, seq_len, vocab_size, width;
  bool with_positions;
};

class EmbeddingTest : public ::testing::TestWithParam<EmbeddingShape> {};

template <typename Real>
void check_against_the_formula(const EmbeddingShape& s) {
  CpuOps<Real> ops;
  RandomValues random(1);
  const int64_t rows = s.rows;
  auto tokens = random.integers({rows}, 0, s.vocab_size);
  auto weight = random.normal<Real>({s.vocab_size, s.width});
  auto positions = random.normal_if<Real>(s.with_positions, {s.seq_len, s.width});
  Buffer<Real> y({rows, s.width});
  ops.embedding_forward(tokens, weight, positions, y);
  for (int64_t n = 0; n < rows; ++n) {
    for (int64_t c = 0; c < s.width; ++c) {
      const Real position = s.with_positions ? positions[n % s.seq_len * s.width + c] : Real(0);
      ASSERT_EQ(y[n * s.width + c], weight[tokens[n] * s.width + c] + position);
    }
  }
}

TEST_P(EmbeddingTest, ForwardIsTheFormula) {
  check_against_the_formula<double>(GetParam());
  check_against_the_formula<float>(GetParam());
}

TEST_P(EmbeddingTest, BackwardIsTheGradient) {
  const EmbeddingShape s = GetParam();
  CpuOps<double> ops;
  RandomValues random(2);
  const int64_t rows = s.rows;
  auto tokens = random.integers({rows}, 0, s.vocab_size);
  auto weight = random.normal<double>({s.vocab_size, s.width});
  auto positions = random.normal_if<double>(s.with_positions, {s.seq_len, s.width});
  auto dy = random.normal<double>({rows, s.width});
  Buffer<double> y({rows, s.width});
  const auto loss = [&] {
    ops.embedding_forward(tokens, weight, positions, y);
    return dot(y, dy);
  };
  auto dweight = random.normal<double>(weight.shape);
  auto dpositions = random.normal_if<double>(s.with_positions, positions.shape);
  const auto dweight_before = dweight, dpositions_before = dpositions;
  ExactWorkspace workspace(ops, ops.embedding_backward_workspace(rows, s.vocab_size, s.width));
  ops.embedding_backward(tokens, dy, dweight, dpositions);
  EXPECT_LT(relative_error(added(dweight, dweight_before), numerical_gradient(weight, loss)),
            gradient_tolerance);
  if (s.with_positions) {
    EXPECT_LT(
        relative_error(added(dpositions, dpositions_before), numerical_gradient(positions, loss)),
        gradient_tolerance);
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, EmbeddingTest,
                         ::testing::Values(EmbeddingShape{1, 1, 1, 1, false},
                                           EmbeddingShape{1, 4, 3, 5, true},
                                           EmbeddingShape{21, 7, 5, 1, true},
                                           EmbeddingShape{10, 5, 11, 67, false},
                                           EmbeddingShape{20, 9, 4, 19, true}));

TEST(Embedding, BackwardSumsInFloatAsInDouble) {
  constexpr int64_t rows = 600, vocab_size = 3, width = 70, seq_len = 20;
  RandomValues random(3), same_random(3);
  auto tokens = random.integers({rows}, 0, vocab_size);
  same_random.integers({rows}, 0, vocab_size);
  auto dy = random.normal<double>({rows, width});
  auto dy_float = same_random.normal<float>({rows, width});
  Buffer<double> dweight({vocab_size, width}), dpositions({seq_len, width});
  Buffer<float> dweight_float({vocab_size, width}), dpositions_float({seq_len, width});
  for (auto* x : {&dweight, &dpositions}) std::fill(x->values.begin(), x->values.end(), 0.0);
  for (auto* x : {&dweight_float, &dpositions_float})
    std::fill(x->values.begin(), x->values.end(), 0.0F);
  CpuOps<double>().embedding_backward(tokens, dy, dweight, dpositions);
  CpuOps<float>().embedding_backward(tokens, dy_float, dweight_float, dpositions_float);
  // A sum of n terms of size up to 5 errs by at most n rounding errors of n times that.
  EXPECT_LT(largest_difference(dweight_float, dweight), 260 * 260 * 5 * float_roundoff);
  EXPECT_LT(largest_difference(dpositions_float, dpositions), 30 * 30 * 5 * float_roundoff);
}

TEST(Embedding, IsTheSameForAnyThreadCount) {
  constexpr int64_t batch = 3, seq_len = 331, vocab_size = 17, width = 131;
  RandomValues random(4);
  auto tokens = random.integers({batch * seq_len}, 0, vocab_size);
  auto weight = random.normal<float>({vocab_size, width});
  auto positions = random.normal<float>({seq_len, width});
  auto dy = random.normal<float>({batch * seq_len, width});
  const auto dweight_before = random.normal<float>(weight.shape);
  const auto dpositions_before = random.normal<float>(positions.shape);
  expect_same_bits_for_any_thread_count<float>([&] {
    CpuOps<float> ops;
    Buffer<float> y({batch * seq_len, width});
    auto dweight = dweight_before, dpositions = dpositions_before;
    ops.embedding_forward(tokens, weight, positions, y);
    ops.embedding_backward(tokens, dy, dweight, dpositions);
    return std::vector{y, dweight, dpositions};
  });
}

TEST(Embedding, NamesATokenOutsideTheVocabulary) {
  CpuOps<float> ops;
  RandomValues random(5);
  auto weight = random.normal<float>({4, 3}), dy = random.normal<float>({2, 3});
  Buffer<float> y({2, 3});
  Buffer<int32_t> tokens({2});
  for (const int32_t wrong : {4, -1, std::numeric_limits<int32_t>::max()}) {
    tokens[0] = 3, tokens[1] = wrong;
    const auto names_it = ::testing::ThrowsMessage<Error>(
        ::testing::AllOf(::testing::HasSubstr("row 1"), ::testing::HasSubstr("[0, 4)"),
                         ::testing::HasSubstr(fmt::format("token id {} ", wrong))));
    EXPECT_THAT([&] { ops.embedding_forward(tokens, weight, {}, y); }, names_it);
    EXPECT_THAT([&] { ops.embedding_backward(tokens, dy, weight, {}); }, names_it);
  }
}

}  // namespace
}  // namespace sigtrain
