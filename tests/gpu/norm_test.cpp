#include "gpu_testing.h"

namespace sigtrain {
namespace {

/// What the norm makes of a residual stream, and how near the GPU comes to it.
struct Normalised {
  std::vector<double> y, mean, rstd;
  Tolerance of_y, of_mean, of_rstd;
};

/// Of the stream as the GPU holds it: what it normalises is the stored, rounded sum, so that
/// float's arithmetic and y's own rounding are all that separates the two.
Normalised normalised(const Operand& stream, const NormDesc& desc, const Operand& weight,
                      const Operand& bias) {
  std::vector<double> x = stream.gpu_values();
  const Shape shape = stream.on_cpu().shape;
  Normalised result;
  result.y.resize(x.size());
  result.mean.resize(size_t(shape[0]));
  result.rstd.resize(size_t(shape[0]));
  CpuOps<double> ops;
  const Tensor mean{result.mean.data(), DType::f64, {shape[0]}};
  ops.residual_norm_forward(desc, {x.data(), DType::f64, shape}, {}, {}, weight.on_cpu(),
                            bias.on_cpu(), {result.y.data(), DType::f64, shape},
                            desc.kind == NormKind::layernorm ? mean : Tensor{},
                            {result.rstd.data(), DType::f64, {shape[0]}});
  double largest = 0.0;
  for (const double value : x) largest = std::max(largest, std::abs(value));
  const double largest_rstd = *std::max_element(result.rstd.begin(), result.rstd.end());
  result.of_mean = {0.0, 16 * fast_function * largest};
  result.of_rstd = {16 * fast_function, 0.0};
  result.of_y = rounded(largest * largest_rstd * weight.largest());
  return result;
}

struct NormCase {
  NormKind kind;
  int64_t batch, seq_len, width;
  bool delta, layer_scale, sample_scale, bias, accumulate;
};

class GpuNorm : public GpuTest, public ::testing::WithParamInterface<NormCase> {
 protected:
  void SetUp() override {
    GpuTest::SetUp();
    if (IsSkipped()) return;
    c = GetParam();
    rows = c.batch * c.seq_len;
    desc.kind = c.kind;
    desc.eps = 1e-3;
    delta = normal_if(c.delta, "delta", {rows, c.width});
    layer_scale = normal_if(c.layer_scale, "layer_scale", {c.width});
    weight = normal("weight", {c.width}, Role::compute, 0.5, 1.0);
    if (c.sample_scale) {
      std::vector<double> scales;
      for (int64_t b = 0; b < c.batch; ++b) scales.push_back(b % 3 == 1 ? 0.0 : 1.25);
      sample_scale = given("sample_scale", {c.batch}, scales, Role::accumulate);
    }
  }
  ResidualBranch branch(const Pick& at) const {
    return {at(delta), at(layer_scale), at(sample_scale)};
  }

  NormCase c;
  int64_t rows = 0;
  NormDesc desc;
  Operand delta, layer_scale, sample_scale, weight;
};

TEST_P(GpuNorm, Forward) {
  // Rows of different sizes: the statistics of one are wrong for its neighbours.
  std::vector<double> values = normal("values", {rows, c.width}).values();
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = round_to_bf16(double(1 + i / size_t(c.width) % 3) * (0.5 + values[i]));
  const Operand residual = given("residual", {rows, c.width}, values);
  const Operand bias = normal_if(c.bias, "bias", {c.width});
  const Operand sum = output_if(c.delta, "residual_out", {rows, c.width});
  const Operand y = output("y", {rows, c.width});
  const Operand mean = output_if(c.kind == NormKind::layernorm, "mean", {rows}, Role::accumulate);
  const Operand rstd = output("rstd", {rows}, Role::accumulate);
  run([&](Ops& ops, const Pick& at) {
    ops.residual_norm_forward(desc, at(residual), branch(at), at(sum), at(weight), at(bias), at(y),
                              at(mean), at(rstd));
  });
  if (c.delta) expect_near(sum, rounded(sum.largest()));
  const Normalised expected = normalised(c.delta ? sum : residual, desc, weight, bias);
  if (mean) expect_near(mean, expected.mean, expected.of_mean);
  expect_near(rstd, expected.rstd, expected.of_rstd);
  expect_near(y, expected.y, expected.of_y);
}

TEST_P(GpuNorm, Backward) {
  const Operand x = normal("x", {rows, c.width}, Role::compute, 1.0, 0.5);
  const Operand dy = normal("dy", {rows, c.width});
  // Statistics of x, to float.
  std::vector<double> means, rstds;
  for (int64_t n = 0; n < rows; ++n) {
    double mean = 0.0, variance = 0.0;
    for (int64_t k = 0; k < c.width; ++k) mean += x.values()[n * c.width + k] / double(c.width);
    if (c.kind == NormKind::rmsnorm) mean = 0.0;
    for (int64_t k = 0; k < c.width; ++k)
      variance += std::pow(x.values()[n * c.width + k] - mean, 2.0) / double(c.width);
    means.push_back(static_cast<float>(mean));
    rstds.push_back(static_cast<float>(1.0 / std::sqrt(variance + desc.eps)));
  }
  Operand mean;
  if (c.kind == NormKind::layernorm) mean = given("mean", {rows}, means, Role::accumulate);
  const Operand rstd = given("rstd", {rows}, rstds, Role::accumulate);
  const Operand d_residual =
      c.accumulate ? normal("d_residual", {rows, c.width}) : output("d_residual", {rows, c.width});
  const Operand dweight = normal("dweight", {c.width}, Role::accumulate);
  const Operand dbias = normal_if(c.bias, "dbias", {c.width}, Role::accumulate);
  const Operand d_delta = output_if(c.layer_scale || c.sample_scale, "d_delta", {rows, c.width});
  const Operand d_layer_scale =
      normal_if(c.layer_scale, "d_layer_scale", {c.width}, Role::accumulate);
  run(
      [&](Ops& ops, const Pick& at) {
        ops.residual_norm_backward(desc, at(x), at(weight), at(mean), at(rstd), at(dy),
                                   c.accumulate, at(d_residual), at(dweight), at(dbias), branch(at),
                                   at(d_delta), at(d_layer_scale));
      },
      [&](const Ops& ops) { return ops.residual_norm_backward_workspace(rows, c.width); });
  const double xhat = (x.largest() + 0.5) * rstd.largest();
  const double terms = double(rows) + 8;
  expect_near(d_residual,
              rounded(d_residual.largest() + dy.largest() * weight.largest() * rstd.largest()));
  expect_near(dweight, summed(terms, dy.largest() * xhat));
  if (dbias) expect_near(dbias, summed(terms, dy.largest()));
  if (d_delta) expect_near(d_delta, rounded(d_delta.largest() + d_residual.largest()));
  if (d_layer_scale) {
    expect_near(d_layer_scale, summed(terms * 8, 1.25 * delta.largest() * d_residual.largest()));
  }
}

INSTANTIATE_TEST_SUITE_P(
    Cases, GpuNorm,
    ::testing::Values(NormCase{NormKind::rmsnorm, 2, 64, 2048, true, false, false, false, true},
                      NormCase{NormKind::rmsnorm, 1, 40, 768, false, false, false, false, false},
                      NormCase{NormKind::layernorm, 3, 17, 768, true, true, true, true, true},
                      NormCase{NormKind::layernorm, 2, 5, 1024, false, false, false, true, true},
                      NormCase{NormKind::rmsnorm, 4, 3, 4096, true, true, false, false, false},
                      NormCase{NormKind::layernorm, 1, 3, 8192, true, false, true, true, true},
                      NormCase{NormKind::rmsnorm, 3, 1000, 64, true, false, true, false, true},
                      NormCase{NormKind::rmsnorm, 5, 7, 33, true, true, true, false, true},
                      NormCase{NormKind::layernorm, 5, 7, 515, true, true, true, true, false},
                      NormCase{NormKind::rmsnorm, 1, 1, 8, false, false, false, false, false},
                      NormCase{NormKind::layernorm, 1, 2, 1, true, false, false, true, false}));

TEST_F(GpuTest, NormRejectsRowsThatAreTooWide) {
  const Operand x = normal("x", {1, 8200}), weight = normal("weight", {8200});
  const Operand y = output("y", {1, 8200}), rstd = output("rstd", {1}, Role::accumulate);
  EXPECT_THROW(gpu().residual_norm_forward({}, x.on_gpu(), {}, {}, weight.on_gpu(), {}, y.on_gpu(),
                                           {}, rstd.on_gpu()),
               Error);
}

// residual_out may be the residual itself.
TEST_F(GpuTest, NormInPlace) {
  const Operand stream = normal("stream", {9, 136}), delta = normal("delta", {9, 136});
  const Operand weight = normal("weight", {136});
  const Operand y = output("y", {9, 136}), rstd = output("rstd", {9}, Role::accumulate);
  run([&](Ops& ops, const Pick& at) {
    ops.residual_norm_forward({}, at(stream), {at(delta), {}, {}}, at(stream), at(weight), {},
                              at(y), {}, at(rstd));
  });
  expect_near(stream, rounded(stream.largest()));
  const Normalised expected = normalised(stream, {}, weight, {});
  expect_near(rstd, expected.rstd, expected.of_rstd);
  expect_near(y, expected.y, expected.of_y);
}

}  // namespace
}  // namespace sigtrain
