// Recomputation changes what is kept between forward and backward, and not one bit of the result.
#include "config/enum_names.h"
#include "models/small_lm.h"

namespace sigtrain {
namespace {

constexpr int64_t batch = 3;

struct Outcome {
  std::vector<double> sums;
  std::vector<float> gradients;
};

Outcome train(const ModelConfig& model, Recompute recompute) {
  SmallLm<float> lm(model, batch, {0.1, 0.01, 0}, 1, recompute);
  RandomValues random(7);
  TokenRows rows = random_tokens(random, model, batch);
  Outcome outcome;
  // Twice: what the first pass left in shared memory must not matter.
  for (int pass = 0; pass < 2; ++pass) {
    lm.zero_gradients();
    outcome.sums = lm.train(rows, 0, batch, static_cast<double>(rows.targets.size()));
  }
  outcome.gradients.assign(lm.gradients().begin(), lm.gradients().end());
  return outcome;
}

void expect_same_bits(const ModelConfig& model, const std::string& name) {
  const Outcome kept = train(model, Recompute::none);
  float largest = 0.0F;
  for (const float value : kept.gradients) largest = std::max(largest, std::abs(value));
  ASSERT_GT(largest, 0.0F);
  for (const Recompute recompute : {Recompute::norms_and_activations, Recompute::block}) {
    const Outcome again = train(model, recompute);
    EXPECT_EQ(again.sums, kept.sums) << name << " " << enum_name(recompute);
    EXPECT_EQ(std::memcmp(again.gradients.data(), kept.gradients.data(),
                          kept.gradients.size() * sizeof(float)),
              0)
        << name << " " << enum_name(recompute);
  }
}

TEST(Recompute, GivesTheSameBits) {
  for (const auto& structure : kEnumNames<NormStructure>) {
    for (const auto& kind : kEnumNames<AttentionKind>) {
      for (const auto& mlp : kEnumNames<MlpKind>) {
        // bit 0: dropout; bit 1: stochastic depth; bit 2: LayerScale
        for (int noise = 0; noise < 8; ++noise) {
          ModelConfig model;
          model.seq_len = 10;
          model.vocab_size = 19;
          model.layers = 3;
          model.width = 24;
          model.heads = 4;
          model.kv_heads = 2;
          model.mlp = {mlp.value, 37};
          model.norm.structure = structure.value;
          model.norm.kind = noise % 2 == 0 ? NormKind::rmsnorm : NormKind::layernorm;
          model.position.kind = kEnumNames<PositionKind>[static_cast<size_t>(noise) % 4].value;
          if (model.position.kind == PositionKind::rope) model.head_dim = 8;
          model.attention.kind = kind.value;
          model.attention.qk_norm = noise % 3 == 0;
          model.linear_bias = noise % 2 == 1;
          if (kind.value == AttentionKind::sigmoid) model.attention.bias.minus_log_seq_len = true;
          model.dropout = noise & 1 ? 0.3 : 0.0;
          model.stochastic_depth = noise & 2 ? 0.5 : 0.0;
          model.layer_scale = noise & 4 ? 0.5 : 0.0;
          expect_same_bits(model, std::string(structure.name) + " " + std::string(kind.name) + " " +
                                      std::string(mlp.name) + " " + std::to_string(noise));
        }
      }
    }
  }
}

TEST(Recompute, EvaluatesTheSame) {
  for (const auto& structure : kEnumNames<NormStructure>) {
    ModelConfig model;
    model.seq_len = 10;
    model.vocab_size = 19;
    model.layers = 2;
    model.width = 24;
    model.mlp.hidden = 40;
    model.head_dim = 8;
    model.norm.structure = structure.value;
    RandomValues random(7);
    TokenRows rows = random_tokens(random, model, batch);
    std::vector<double> kept;
    for (const auto& recompute : kEnumNames<Recompute>) {
      SmallLm<float> lm(model, batch, {}, 1, recompute.value);
      const std::vector<double> sums = lm.evaluate(rows, 0, batch);
      if (kept.empty()) kept = sums;
      EXPECT_EQ(sums, kept) << structure.name << " " << recompute.name;
    }
  }
}

}  // namespace
}  // namespace sigtrain
