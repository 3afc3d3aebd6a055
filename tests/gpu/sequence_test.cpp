#include "gpu_testing.h"

namespace sigtrain {
namespace {

struct SequenceCase {
  int64_t batch, prefix, tokens, width;  // tokens: with the prefix
  bool positions;
};

class GpuSequence : public GpuTest, public ::testing::WithParamInterface<SequenceCase> {};

TEST_P(GpuSequence, Forward) {
  const SequenceCase c = GetParam();
  const Operand prefix = normal_if(c.prefix > 0, "prefix", {c.prefix, c.width});
  const Operand x = normal("x", {c.batch, c.tokens - c.prefix, c.width});
  const Operand positions = normal_if(c.positions, "positions", {c.tokens, c.width});
  const Operand y = output("y", {c.batch, c.tokens, c.width});
  run([&](Ops& ops, const Pick& at) {
    ops.sequence_forward(at(prefix), at(x), at(positions), at(y));
  });
  expect_near(y, c.positions ? Tolerance{bf16_roundoff, 0.0} : exact);
}

TEST_P(GpuSequence, Backward) {
  const SequenceCase c = GetParam();
  const Operand dy = normal("dy", {c.batch, c.tokens, c.width});
  const Operand dx = output("dx", {c.batch, c.tokens - c.prefix, c.width});
  const Operand dprefix = normal_if(c.prefix > 0, "dprefix", {c.prefix, c.width}, Role::accumulate);
  const Operand dpositions =
      normal_if(c.positions, "dpositions", {c.tokens, c.width}, Role::accumulate);
  run([&](Ops& ops, const Pick& at) {
    ops.sequence_backward(at(dy), at(dx), at(dprefix), at(dpositions));
  });
  expect_near(dx, exact);
  if (dprefix) expect_near(dprefix, summed(double(c.batch) + 1, 2 * dy.largest()));
  if (dpositions) expect_near(dpositions, summed(double(c.batch) + 1, 2 * dy.largest()));
}

TEST_P(GpuSequence, Pools) {
  const SequenceCase c = GetParam();
  for (const ImagePool pool : {ImagePool::class_token, ImagePool::mean}) {
    const Operand x = normal("x", {c.batch, c.tokens, c.width});
    const Operand y = output("y", {c.batch, c.width});
    run([&](Ops& ops, const Pick& at) { ops.pool_forward(pool, at(x), at(y)); });
    expect_near(y, rounded(x.largest()) + summed(double(c.tokens), x.largest()));
    const Operand dy = normal("dy", {c.batch, c.width});
    const Operand dx = output("dx", {c.batch, c.tokens, c.width});
    run([&](Ops& ops, const Pick& at) { ops.pool_backward(pool, at(dy), at(dx)); });
    expect_near(dx, rounded(dy.largest()));
  }
}

INSTANTIATE_TEST_SUITE_P(
    Cases, GpuSequence,
    ::testing::Values(SequenceCase{1, 0, 1, 8, false}, SequenceCase{3, 1, 5, 7, true},
                      SequenceCase{64, 1, 65, 192, true}, SequenceCase{4, 2, 3, 257, false},
                      SequenceCase{2, 0, 33, 24, true}, SequenceCase{16, 1, 197, 768, true}));

}  // namespace
}  // namespace sigtrain
