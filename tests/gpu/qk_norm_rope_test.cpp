#include "gpu_testing.h"

namespace sigtrain {
namespace {

struct QkCase {
  int64_t batch, seq_len, heads, kv_heads, head_dim;
  bool norm, rope;
};

class GpuQkNormRope : public GpuTest, public ::testing::WithParamInterface<QkCase> {
 protected:
  void SetUp() override {
    GpuTest::SetUp();
    if (IsSkipped()) return;
    c = GetParam();
    rows = c.batch * c.seq_len;
    all_heads = c.heads + c.kv_heads;
    desc = {c.batch, c.seq_len, c.heads, c.kv_heads, c.head_dim, 1e-3};
    qkv = normal("qkv", {rows, (all_heads + c.kv_heads) * c.head_dim});
    q_weight = normal_if(c.norm, "q_weight", {c.head_dim}, Role::compute, 0.3, 1.0);
    k_weight = normal_if(c.norm, "k_weight", {c.head_dim}, Role::compute, 0.3, 1.0);
    if (!c.rope) return;
    std::vector<double> table;
    for (int64_t t = 0; t < c.seq_len; ++t) {
      for (const bool sine : {false, true}) {
        for (int64_t d = 0; d < c.head_dim / 2; ++d) {
          const double angle = double(t) * std::pow(10000.0, -2.0 * double(d) / double(c.head_dim));
          table.push_back(static_cast<float>(sine ? std::sin(angle) : std::cos(angle)));
        }
      }
    }
    rope = given("rope", {c.seq_len, c.head_dim}, table, Role::accumulate);
  }

  QkCase c;
  int64_t rows = 0, all_heads = 0;
  QkNormRopeDesc desc;
  Operand qkv, q_weight, k_weight, rope;
};

TEST_P(GpuQkNormRope, Forward) {
  const Operand qk = output("qk", {rows, all_heads * c.head_dim});
  const Operand rstd = output_if(c.norm, "rstd", {rows, all_heads}, Role::accumulate);
  run([&](Ops& ops, const Pick& at) {
    ops.qk_norm_rope_forward(desc, at(qkv), at(q_weight), at(k_weight), at(rope), at(qk), at(rstd));
  });
  expect_near(qk, c.norm || c.rope ? rounded(2 * qk.largest()) : exact);
  if (c.norm) expect_near(rstd, {16 * fast_function, 0.0});
}

TEST_P(GpuQkNormRope, Backward) {
  Operand rstd;
  if (c.norm) {
    std::vector<double> values;
    for (int64_t n = 0; n < rows; ++n) {
      for (int64_t h = 0; h < all_heads; ++h) {
        double squares = 0.0;
        for (int64_t d = 0; d < c.head_dim; ++d) {
          const int64_t at = n * (all_heads + c.kv_heads) * c.head_dim + h * c.head_dim + d;
          squares += std::pow(qkv.values()[at], 2.0);
        }
        values.push_back(
            static_cast<float>(1 / std::sqrt(squares / double(c.head_dim) + desc.eps)));
      }
    }
    rstd = given("rstd", {rows, all_heads}, values, Role::accumulate);
  }
  const Operand d_qkv = normal("d_qkv", {rows, (all_heads + c.kv_heads) * c.head_dim});
  const double largest = d_qkv.largest();
  const Operand dq_weight = normal_if(c.norm, "dq_weight", {c.head_dim}, Role::accumulate);
  const Operand dk_weight = normal_if(c.norm, "dk_weight", {c.head_dim}, Role::accumulate);
  run(
      [&](Ops& ops, const Pick& at) {
        ops.qk_norm_rope_backward(desc, at(qkv), at(q_weight), at(k_weight), at(rope), at(rstd),
                                  at(d_qkv), at(dq_weight), at(dk_weight));
      },
      [&](const Ops& ops) { return ops.qk_norm_rope_backward_workspace(desc); });
  if (!c.norm && !c.rope) {
    expect_near(d_qkv, exact);
    return;
  }
  const double scale = c.norm ? rstd.largest() * q_weight.largest() : 1.0;
  expect_near(d_qkv, rounded(4 * scale * largest));
  if (c.norm) {
    const double term = 2 * largest * qkv.largest() * rstd.largest();
    expect_near(dq_weight, summed(double(rows * c.heads) + 8, term));
    expect_near(dk_weight, summed(double(rows * c.kv_heads) + 8, term));
  }
}

INSTANTIATE_TEST_SUITE_P(
    Cases, GpuQkNormRope,
    ::testing::Values(QkCase{2, 33, 4, 4, 64, true, true}, QkCase{1, 100, 8, 2, 128, true, true},
                      QkCase{3, 7, 2, 1, 32, true, false}, QkCase{2, 9, 3, 3, 96, false, true},
                      QkCase{1, 65, 4, 1, 192, true, true}, QkCase{2, 5, 1, 1, 16, true, true},
                      QkCase{1, 3, 2, 2, 512, true, true}, QkCase{1, 2000, 12, 12, 64, true, true},
                      QkCase{2, 3, 2, 2, 64, false, false}));

TEST_F(GpuTest, QkNormRopeRejectsOtherHeadDimensions) {
  QkNormRopeDesc desc{1, 1, 1, 1, 24, 1e-5};
  EXPECT_THROW((void)gpu().qk_norm_rope_backward_workspace(desc), Error);
}

}  // namespace
}  // namespace sigtrain
