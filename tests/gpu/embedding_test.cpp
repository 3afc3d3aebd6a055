#include "gpu_testing.h"

namespace sigtrain {
namespace {

struct EmbeddingCase {
  int64_t batch, seq_len, vocab_size, width;
  bool positions;
};

class GpuEmbedding : public GpuTest, public ::testing::WithParamInterface<EmbeddingCase> {
 protected:
  // Half of the rows share three tokens: runs of equal tokens longer than any piece of work.
  Operand tokens() {
    const EmbeddingCase c = GetParam();
    std::mt19937 engine(5);
    std::vector<int32_t> ids;
    for (int64_t n = 0; n < c.batch * c.seq_len; ++n) {
      const auto any = static_cast<int32_t>(engine() % static_cast<uint32_t>(c.vocab_size));
      ids.push_back(engine() % 2 ? any
                                 : static_cast<int32_t>(any % std::min<int64_t>(3, c.vocab_size)));
    }
    return integers("tokens", ids);
  }
};

TEST_P(GpuEmbedding, Forward) {
  const EmbeddingCase c = GetParam();
  const Operand ids = tokens();
  const Operand weight = normal("weight", {c.vocab_size, c.width});
  const Operand positions = normal_if(c.positions, "positions", {c.seq_len, c.width});
  const Operand y = output("y", {c.batch * c.seq_len, c.width});
  run([&](Ops& ops, const Pick& at) {
    ops.embedding_forward(at(ids), at(weight), at(positions), at(y));
  });
  expect_near(y, c.positions ? Tolerance{bf16_roundoff, 0.0} : exact);
}

TEST_P(GpuEmbedding, Backward) {
  const EmbeddingCase c = GetParam();
  const int64_t rows = c.batch * c.seq_len;
  const Operand ids = tokens();
  const Operand dy = normal("dy", {rows, c.width});
  const Operand dweight = normal("dweight", {c.vocab_size, c.width}, Role::accumulate);
  const Operand dpositions =
      normal_if(c.positions, "dpositions", {c.seq_len, c.width}, Role::accumulate);
  run([&](Ops& ops,
          const Pick& at) { ops.embedding_backward(at(ids), at(dy), at(dweight), at(dpositions)); },
      [&](const Ops& ops) {
        return ops.embedding_backward_workspace(rows, c.vocab_size, c.width);
      });
  expect_near(dweight, summed(double(rows) + 1, dy.largest()));
  if (c.positions) expect_near(dpositions, summed(double(c.batch) + 1, dy.largest()));
}

INSTANTIATE_TEST_SUITE_P(
    Cases, GpuEmbedding,
    ::testing::Values(EmbeddingCase{4, 512, 1000, 256, false}, EmbeddingCase{2, 33, 50, 768, true},
                      EmbeddingCase{3, 100, 7, 40, true}, EmbeddingCase{1, 1, 2, 8, false},
                      EmbeddingCase{5, 31, 300, 257, true}, EmbeddingCase{2, 64, 1, 16, false},
                      EmbeddingCase{1, 32, 4096, 2048, true},
                      EmbeddingCase{8, 1000, 32768, 64, false}));

TEST_F(GpuTest, TokensOutsideTheVocabularyAreReportedAtTheNextWait) {
  const Operand ids = integers("tokens", {1, 2, 9, 3}), weight = normal("weight", {9, 8});
  const Operand y = output("y", {4, 8});
  gpu().embedding_forward(ids.on_gpu(), weight.on_gpu(), {}, y.on_gpu());
  try {
    gpu().synchronize();
    FAIL() << "token 9 of 9 went unnoticed";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("token id 9 in row 2"), std::string::npos)
        << error.what();
  }
  gpu().synchronize();  // reported once

  const Operand dy = normal("dy", {4, 8}), dweight = normal("dweight", {9, 8}, Role::accumulate);
  const size_t bytes = gpu().embedding_backward_workspace(4, 9, 8);
  const DeviceMemory memory = gpu().allocate(bytes);
  gpu().set_workspace({memory.get(), DType::f32, {static_cast<int64_t>(bytes / 4)}});
  const Operand negative = integers("tokens", {1, -2147483647 - 1, 1, 0});
  gpu().embedding_backward(negative.on_gpu(), dy.on_gpu(), dweight.on_gpu(), {});
  gpu().set_workspace({});
  EXPECT_THROW(gpu().synchronize(), Error);
  EXPECT_TRUE(dweight.guards_are_intact());
}

TEST_F(GpuTest, WorkspaceThatIsTooSmallIsAnError) {
  const Operand ids = integers("tokens", {1, 2}), dy = normal("dy", {2, 8});
  const Operand dweight = normal("dweight", {9, 8}, Role::accumulate);
  EXPECT_THROW(gpu().embedding_backward(ids.on_gpu(), dy.on_gpu(), dweight.on_gpu(), {}), Error);
}

}  // namespace
}  // namespace sigtrain
