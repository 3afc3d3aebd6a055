// Whole vision transformers on the GPU: their gradients against the CPU's, and the same bits every
// time.
#include "config/enum_names.h"
#include "models/small_vit.h"
#include "needs_gpu.h"
#include "ops/cuda/cuda_ops.h"
#include "train/optimizer.h"

namespace sigtrain {
namespace {

constexpr int64_t batch = 8;

struct VitCase {
  AttentionKind kind;
  ImagePool pool;
  PositionKind position;
};

class GpuVits : public NeedsGpu, public ::testing::WithParamInterface<VitCase> {
 protected:
  static ModelConfig model() {
    const VitCase c = GetParam();
    ModelConfig model;
    model.vision.image_size = 32;
    model.vision.patch_size = 4;
    model.vision.classes = 10;
    model.vision.pool = c.pool;
    model.layers = 3;
    model.width = 128;
    model.heads = 2;
    model.norm.kind = NormKind::layernorm;
    model.position.kind = c.position;
    model.mlp = {MlpKind::gelu, 256};
    model.attention.kind = c.kind;
    model.attention.causal = false;
    model.attention.qk_norm = true;
    if (c.kind == AttentionKind::sigmoid) model.attention.bias.minus_log_seq_len = true;
    model.linear_bias = true;
    model.layer_scale = 0.5;
    model.stochastic_depth = 0.2;
    return model;
  }
  static ImageRows rows() {
    RandomValues random(5);
    return random_images(random, model(), batch, true);
  }
};

// The tolerances are models_test.cpp's: as many roundings to bfloat16 lie in a row.
TEST_P(GpuVits, GradientsAreTheCpus) {
  ImageRows images = rows();
  SmallVit<float> cpu(model(), {}, batch, 11);
  SmallVit<float, CudaOps> gpu(model(), {}, batch, 11);
  cpu.zero_gradients();
  gpu.zero_gradients();
  const std::vector<double> cpu_sums = cpu.train(images), gpu_sums = gpu.train(images);
  EXPECT_NEAR(gpu_sums[class_sum_objective] / cpu_sums[class_sum_objective], 1.0, 0.005);
  EXPECT_EQ(gpu_sums[class_sum_count], batch);
  for (ParameterId id = 0; id < cpu.tensors(); ++id) {
    const std::vector<double> expected = cpu.gradient_values(id), actual = gpu.gradient_values(id);
    double product = 0.0, expected_squares = 0.0, actual_squares = 0.0;
    for (size_t i = 0; i < expected.size(); ++i) {
      product += expected[i] * actual[i];
      expected_squares += expected[i] * expected[i];
      actual_squares += actual[i] * actual[i];
    }
    const std::string& name = cpu.table()[id].name;
    ASSERT_GT(expected_squares, 0.0) << name;
    EXPECT_GT(product / std::sqrt(expected_squares * actual_squares), 0.999) << name;
    EXPECT_NEAR(std::sqrt(actual_squares / expected_squares), 1.0, 0.03) << name;
  }
}

TEST_P(GpuVits, GiveTheSameBitsTwiceAndWithRecomputation) {
  ImageRows images = rows();
  const auto train = [&](Recompute recompute) {
    SmallVit<float, CudaOps> vit(model(), {}, batch, 11, recompute);
    Optimizer optimizer(vit.parameters(), vit.ops(), {}, vit.model().width);
    optimizer.set_rate(vit.ops(), 1.0);
    for (int step = 0; step < 3; ++step) {
      optimizer.zero_gradients(vit.ops());
      vit.train(images);
      optimizer.step(vit.ops());
    }
    return host_values(vit.ops(), vit.parameters().master());
  };
  const std::vector<double> first = train(Recompute::none);
  for (const auto& recompute : kEnumNames<Recompute>)
    EXPECT_TRUE(train(recompute.value) == first) << recompute.name;
}

INSTANTIATE_TEST_SUITE_P(
    , GpuVits,
    ::testing::Values(VitCase{AttentionKind::sigmoid, ImagePool::class_token,
                              PositionKind::learned},
                      VitCase{AttentionKind::softmax, ImagePool::class_token, PositionKind::sincos},
                      VitCase{AttentionKind::sigmoid, ImagePool::mean, PositionKind::sincos},
                      VitCase{AttentionKind::softmax, ImagePool::mean, PositionKind::learned}),
    [](const auto& info) {
      return std::string(enum_name(info.param.kind)) + "_" +
             std::string(enum_name(info.param.pool));
    });

}  // namespace
}  // namespace sigtrain
