// Whole vision transformers on the GPU: their gradients against the CPU's, and the same bits every
// time.
#include "config/enum_names.h"
#include "models/small_vit.h"
#include "needs_gpu.h"
#include "whole_model.h"

namespace sigtrain {
namespace {

constexpr int64_t batch = 8;

using GpuVit = SmallVit<float, CudaOps>;

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

TEST_P(GpuVits, GradientsAreTheCpus) {
  ImageRows images = rows();
  SmallVit<float> cpu(model(), {}, batch, 11);
  GpuVit gpu(model(), {}, batch, 11);
  cpu.zero_gradients();
  gpu.zero_gradients();
  const std::vector<double> cpu_sums = cpu.train(images), gpu_sums = gpu.train(images);
  EXPECT_NEAR(gpu_sums[class_sum_objective] / cpu_sums[class_sum_objective], 1.0, 0.005);
  EXPECT_EQ(gpu_sums[class_sum_count], batch);
  expect_gradients_of_cpu(cpu, gpu);
}

TEST_P(GpuVits, GiveTheSameBitsTwiceAndWithRecomputation) {
  ImageRows images = rows();
  expect_same_bits_with_recomputation(
      [](Recompute recompute) { return GpuVit(model(), {}, batch, 11, recompute); },
      [&](GpuVit& vit) { return vit.train(images); });
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
