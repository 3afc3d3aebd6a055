// The configs the project ships.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "config/derived.h"
#include "config/reader.h"
#include "config/writer.h"
#include "models/vision_transformer.h"
#include "tasks/make_task.h"

namespace sigtrain {
namespace {

const std::filesystem::path kConfigs = std::filesystem::path(SIGTRAIN_SOURCE_DIR) / "configs";

Config shipped(const std::string& name) {
  return read_config((kConfigs / (name + ".yaml")).string());
}

TEST(Configs, AllAreValidAndNamedAsTheirFiles) {
  int count = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(kConfigs)) {
    if (!entry.is_regular_file()) continue;
    ++count;
    SCOPED_TRACE(entry.path().string());
    ASSERT_EQ(entry.path().extension(), ".yaml");
    Config config;
    ASSERT_NO_THROW(config = read_config(entry.path().string()));
    EXPECT_EQ(config.run.name, entry.path().stem().string());
  }
  EXPECT_GE(count, 9);
}

TEST(Configs, SizesAreThoseOfTheReference) {
  struct Size {
    const char* name;
    int64_t layers, width, heads, hidden, steps, tokens;
  };
  constexpr int64_t kMillion = 1 << 20;
  for (const Size& size : {Size{"lm_85m", 12, 768, 12, 2048, 400000, kMillion},
                           Size{"lm_1b", 24, 2048, 32, 5632, 300000, kMillion},
                           Size{"lm_7b", 32, 4096, 32, 11008, 250000, 4 * kMillion}}) {
    for (const char* kind : {"_sigmoid", "_softmax"}) {
      SCOPED_TRACE(std::string(size.name) + kind);
      const Config config = shipped(std::string(size.name) + kind);
      EXPECT_EQ(config.model.layers, size.layers);
      EXPECT_EQ(config.model.width, size.width);
      EXPECT_EQ(config.model.heads, size.heads);
      EXPECT_EQ(mlp_hidden(config.model), size.hidden);
      EXPECT_EQ(config.train.steps, size.steps);
      EXPECT_EQ(config.train.global_batch * config.model.seq_len, size.tokens);
      EXPECT_EQ(config.model.seq_len, 4096);
      EXPECT_EQ(config.model.vocab_size, 32768);
      EXPECT_EQ(config.optimizer.learning_rate, 0.01);
      EXPECT_EQ(config.optimizer.weight_decay, 1e-4);
      EXPECT_EQ(config.optimizer.decay_mode, DecayMode::decoupled);
      EXPECT_EQ(config.optimizer.rate_scale, RateScale::mup_simple);
      EXPECT_EQ(config.schedule.warmup_steps, 5000);
      EXPECT_TRUE(config.model.attention.qk_norm);
    }
  }
}

TEST(Configs, VisionTransformersHaveTheirPublishedSizes) {
  struct Size {
    const char* name;
    int64_t tokens, parameters;
  };
  // timm's vit_base_patch16_224 and vit_large_patch16_224 have 86,567,656 and 304,326,632. QK-norm
  // adds two weights of 64 a block, LayerScale two of the width.
  constexpr int64_t base = 86'567'656 + 12 * (2 * 64 + 2 * 768);
  constexpr int64_t large = 304'326'632 + 24 * (2 * 64 + 2 * 1024);
  // 7 blocks of 256 (attention 263,168, MLP 262,912, norms 1,024, QK-norm 128, LayerScale 512),
  // patches 12,544, last norm and head 3,082; digits likewise, without LayerScale.
  constexpr int64_t cifar10 = 7 * (263'168 + 262'912 + 1'024 + 128 + 512) + 12'544 + 3'082;
  constexpr int64_t digits = 4 * (16'640 + 33'088 + 256 + 32) + 320 + 778;
  for (const Size& size :
       {Size{"vit_b16_imagenet", 197, base}, Size{"vit_l16_imagenet", 197, large},
        Size{"vit_cifar10", 64, cifar10}, Size{"vit_digits", 16, digits}}) {
    for (const char* kind : {"_sigmoid", "_softmax"}) {
      SCOPED_TRACE(std::string(size.name) + kind);
      const Config config = shipped(std::string(size.name) + kind);
      ModelConfig model = config.model;
      EXPECT_EQ(image_tokens(model.vision), size.tokens);
      model.seq_len = size.tokens;
      ParameterTable table;
      const VisionTransformer vit(table, model, config.data.image);
      EXPECT_EQ(table.count(), size.parameters);
    }
  }
}

TEST(Configs, VisionTransformersDifferInTheirAttentionAlone) {
  for (const std::string size :
       {"vit_b16_imagenet", "vit_l16_imagenet", "vit_cifar10", "vit_digits"}) {
    const Config sigmoid = shipped(size + "_sigmoid");
    EXPECT_EQ(sigmoid.model.attention.kind, AttentionKind::sigmoid);
    Config softmax = shipped(size + "_softmax");
    EXPECT_EQ(softmax.model.attention.kind, AttentionKind::softmax);
    softmax.run.name = sigmoid.run.name;
    softmax.model.attention.kind = AttentionKind::sigmoid;
    softmax.model.attention.bias = sigmoid.model.attention.bias;
    EXPECT_EQ(to_yaml(softmax), to_yaml(sigmoid));
  }
}

// Undoes what a twin is meant to change; then nothing may differ from the sigmoid config.
TEST(Configs, TwinsDifferOnlyWhereTheyShould) {
  for (const std::string size : {"lm_tiny", "lm_85m", "lm_1b", "lm_7b"}) {
    const Config sigmoid = shipped(size + "_sigmoid");
    EXPECT_EQ(sigmoid.model.attention.kind, AttentionKind::sigmoid);
    EXPECT_TRUE(sigmoid.model.attention.bias.minus_log_seq_len);
    EXPECT_EQ(sigmoid.model.norm.structure, NormStructure::hybrid);
    EXPECT_EQ(sigmoid.model.position.kind, PositionKind::alibi);
    Config softmax = shipped(size + "_softmax");
    EXPECT_EQ(softmax.model.attention.kind, AttentionKind::softmax);
    EXPECT_EQ(softmax.model.norm.structure, NormStructure::pre);
    EXPECT_EQ(softmax.model.position.kind, PositionKind::rope);
    softmax.run.name = sigmoid.run.name;
    softmax.model.attention.kind = AttentionKind::sigmoid;
    softmax.model.attention.bias.minus_log_seq_len = true;
    softmax.model.norm.structure = NormStructure::hybrid;
    softmax.model.position.kind = PositionKind::alibi;
    EXPECT_EQ(to_yaml(softmax), to_yaml(sigmoid));
  }
  const Config third = shipped("lm_1b_softmax_alibi_hybridnorm");
  EXPECT_EQ(third.model.attention.kind, AttentionKind::softmax);
  EXPECT_EQ(third.model.norm.structure, NormStructure::hybrid);
  EXPECT_EQ(third.model.position.kind, PositionKind::alibi);
}

TEST(Configs, TheSpeechEncoderHas255MillionParameters) {
  for (const char* name : {"asr_255m_librispeech", "asr_100h_librispeech", "asr_tedlium"}) {
    for (const char* kind : {"_sigmoid", "_softmax"}) {
      SCOPED_TRACE(std::string(name) + kind);
      Config config = shipped(std::string(name) + kind);
      EXPECT_EQ(config.model.layers, 36);
      EXPECT_EQ(config.model.width, 768);
      EXPECT_EQ(config.model.heads, 4);
      EXPECT_EQ(head_dim(config.model), 192);
      EXPECT_EQ(mlp_hidden(config.model), 3072);
      constexpr int64_t width = 768, hidden = 3072, head_dim = 192, letters = 28;
      constexpr int64_t linears = width * 3 * width + 3 * width + width * width + width +
                                  2 * width * hidden + hidden + width;
      constexpr int64_t norms_and_scales = 2 * 2 * width + 2 * head_dim + 2 * width;
      constexpr int64_t front = 7 * 80 * 2 * width + 2 * width;
      constexpr int64_t head = 2 * width + (width + 1) * (letters + 1);
      const int64_t count = make_task(config)->parameters().count();
      EXPECT_EQ(count, front + 36 * (linears + norms_and_scales) + head);
      EXPECT_NEAR(static_cast<double>(count), 255e6, 2e6);
    }
  }
}

TEST(Configs, SpeechTwinsDifferOnlyWhereTheyShould) {
  for (const std::string size :
       {"asr_prompts", "asr_255m_librispeech", "asr_100h_librispeech", "asr_tedlium"}) {
    const Config sigmoid = shipped(size + "_sigmoid");
    Config softmax = shipped(size + "_softmax");
    EXPECT_EQ(sigmoid.model.attention.kind, AttentionKind::sigmoid);
    EXPECT_EQ(softmax.model.attention.kind, AttentionKind::softmax);
    softmax.run.name = sigmoid.run.name;
    softmax.model.attention.kind = AttentionKind::sigmoid;
    if (size == "asr_prompts") {
      EXPECT_EQ(softmax.model.norm.structure, NormStructure::pre);
      softmax.model.norm.structure = NormStructure::hybrid;
      softmax.model.attention.bias.value = -4.0;
    }
    EXPECT_EQ(to_yaml(softmax), to_yaml(sigmoid));
  }
}

}  // namespace
}  // namespace sigtrain
