// Whole speech encoders on the GPU, over utterances of unequal lengths: their gradients against the
// CPU's, and the same bits every time.
#include "config/enum_names.h"
#include "models/small_speech.h"
#include "needs_gpu.h"
#include "whole_model.h"

namespace sigtrain {
namespace {

/// Of weights and of random numbers: with these, layer_drop leaves one of the three layers out.
constexpr uint64_t seed = 12;

using GpuEncoder = SmallSpeech<float, CudaOps>;

struct SpeechCase {
  AttentionKind kind;
  PositionKind position;
  NormStructure structure;
  double layer_scale = 0.0, dropout = 0.0;
  bool learned_bias = false;
};

class GpuSpeech : public NeedsGpu, public ::testing::WithParamInterface<SpeechCase> {
 protected:
  static ModelConfig model() {
    const SpeechCase c = GetParam();
    ModelConfig model;
    model.vocab_size = 29;
    model.speech.mel_bins = 40;
    model.layers = 3;
    model.width = 384;
    model.heads = 2;  // of 192, as the large model's
    model.norm.kind = NormKind::layernorm;
    model.norm.structure = c.structure;
    model.position.kind = c.position;
    model.mlp = {MlpKind::gelu, 512};
    model.attention.kind = c.kind;
    model.attention.causal = false;
    model.attention.qk_norm = true;
    if (c.kind == AttentionKind::sigmoid) model.attention.bias.value = -4.0;
    model.attention.learned_bias = c.learned_bias;
    model.linear_bias = true;
    model.layer_scale = c.layer_scale;
    model.dropout = c.dropout;
    model.layer_drop = 0.3;
    return model;
  }
  static SpokenRows rows() {
    RandomValues random(5);
    return random_speech(random, model(), {300, 211, 30, 477}, 20);
  }
};

TEST_P(GpuSpeech, GradientsAreTheCpus) {
  SpokenRows speech = rows();
  SmallSpeech<float> cpu(model(), speech, seed);
  GpuEncoder gpu(model(), speech, seed);
  cpu.zero_gradients();
  gpu.zero_gradients();
  const std::vector<double> cpu_sums = cpu.train(speech), gpu_sums = gpu.train(speech);
  EXPECT_NEAR(gpu_sums[ctc_sum_nll] / cpu_sums[ctc_sum_nll], 1.0, 0.005);
  EXPECT_EQ(gpu_sums[ctc_sum_sequences], cpu_sums[ctc_sum_sequences]);
  EXPECT_EQ(gpu_sums[ctc_sum_targets], cpu_sums[ctc_sum_targets]);
  int64_t without_gradient = 0;
  for (ParameterId id = 0; id < cpu.tensors(); ++id) {
    const std::vector<double> gradient = cpu.gradient_values(id);
    without_gradient += dot(gradient, gradient) == 0.0;
  }
  EXPECT_GT(without_gradient, 0) << "no layer was left out";
  expect_gradients_of_cpu(cpu, gpu, true);
}

TEST_P(GpuSpeech, GivesTheSameBitsTwiceAndWithRecomputation) {
  SpokenRows speech = rows();
  expect_same_bits_with_recomputation(
      [&](Recompute recompute) { return GpuEncoder(model(), speech, seed, recompute); },
      [&](GpuEncoder& encoder) { return encoder.train(speech); });
}

INSTANTIATE_TEST_SUITE_P(
    , GpuSpeech,
    ::testing::Values(SpeechCase{AttentionKind::sigmoid, PositionKind::alibi, NormStructure::pre,
                                 0.1, 0.1},
                      SpeechCase{AttentionKind::softmax, PositionKind::alibi, NormStructure::pre},
                      SpeechCase{AttentionKind::sigmoid, PositionKind::cape, NormStructure::hybrid,
                                 0.0, 0.0, true},
                      SpeechCase{AttentionKind::softmax, PositionKind::rope, NormStructure::post}),
    [](const auto& info) {
      return std::string(enum_name(info.param.kind)) + "_" +
             std::string(enum_name(info.param.position));
    });

}  // namespace
}  // namespace sigtrain
