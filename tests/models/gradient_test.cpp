// The hand-written backward of whole models, against central differences of their own loss.
#include <random>

#include "config/enum_names.h"
#include "models/small_lm.h"

namespace sigtrain {
namespace {

constexpr int64_t batch = 3;

/// Every norm structure, attention, MLP and norm, each in turn with every kind of position; what
/// else can be set is drawn at random, so that any two settings meet somewhere.
std::vector<ModelConfig> all_models() {
  std::mt19937 random(2024);
  const auto coin = [&] { return random() % 2 == 0; };
  std::vector<ModelConfig> models;
  for (const auto& structure : kEnumNames<NormStructure>) {
    for (const auto& kind : kEnumNames<AttentionKind>) {
      for (const auto& mlp : kEnumNames<MlpKind>) {
        for (const auto& norm : kEnumNames<NormKind>) {
          ModelConfig model;
          model.seq_len = 6;
          model.vocab_size = 13;
          model.layers = 2;
          model.width = 12;
          model.heads = 4;
          model.kv_heads = coin() ? 2 : 4;
          model.head_dim = coin() ? 4 : 0;  // 0: width / heads, odd
          model.norm.structure = structure.value;
          model.norm.kind = norm.value;
          model.mlp.kind = mlp.value;
          model.mlp.hidden = 10;
          model.position.kind = kEnumNames<PositionKind>[models.size() % 5].value;
          if (model.position.kind == PositionKind::rope) model.head_dim = 4;
          model.attention.kind = kind.value;
          model.attention.causal = coin();
          model.attention.window = coin() ? 3 : 0;
          model.attention.qk_norm = coin();
          if (kind.value == AttentionKind::sigmoid) {
            model.attention.bias.minus_log_seq_len = true;
            model.attention.learned_bias = coin();
          }
          model.linear_bias = coin();
          model.tied_embedding = coin();
          model.layer_scale = coin() ? 0.5 : 0.0;
          model.dropout = coin() ? 0.2 : 0.0;
          model.stochastic_depth = coin() ? 0.3 : 0.0;
          models.push_back(model);
        }
      }
    }
  }
  // One token, one head, and lengths that fill neither a tile of queries nor one of keys.
  for (const auto& [seq_len, heads] : {std::pair{1, 1}, {67, 1}, {130, 3}}) {
    for (const auto& kind : kEnumNames<AttentionKind>) {
      ModelConfig model;
      model.seq_len = seq_len;
      model.vocab_size = 13;
      model.layers = 1;
      model.width = 12;
      model.heads = heads;
      model.mlp.hidden = 10;
      model.attention.kind = kind.value;
      model.attention.qk_norm = true;
      // With a norm behind it, attention over one key would pass hardly any gradient to q and k.
      model.norm.structure = seq_len > 1 ? NormStructure::hybrid : NormStructure::pre;
      model.position.kind = PositionKind::alibi;
      if (kind.value == AttentionKind::sigmoid) model.attention.bias.minus_log_seq_len = true;
      // Softmax over one key is 1 whatever q and k are: nothing to compare.
      if (seq_len > 1 || kind.value == AttentionKind::sigmoid) models.push_back(model);
    }
  }
  return models;
}

std::string describe(const ModelConfig& model) {
  const auto flag = [](bool set, const char* text) { return set ? std::string("_") + text : ""; };
  std::string text =
      std::string(enum_name(model.norm.structure)) + "_" + std::string(enum_name(model.norm.kind)) +
      "_" + std::string(enum_name(model.attention.kind)) + "_" +
      std::string(enum_name(model.mlp.kind)) + "_" + std::string(enum_name(model.position.kind));
  text += fmt::format("_{}tokens_{}heads", model.seq_len, model.heads);
  return text + flag(model.kv_heads > 0 && model.kv_heads < model.heads, "gqa") +
         flag(model.head_dim == 4, "headdim") + flag(model.attention.causal, "causal") +
         flag(model.attention.window > 0, "window") + flag(model.attention.qk_norm, "qknorm") +
         flag(model.attention.learned_bias, "learnedbias") + flag(model.linear_bias, "bias") +
         flag(model.tied_embedding, "tied") + flag(model.layer_scale > 0, "layerscale") +
         flag(model.dropout > 0, "dropout") + flag(model.stochastic_depth > 0, "depth");
}

class Gradients : public ::testing::TestWithParam<ModelConfig> {
 protected:
  Gradients() : lm_(GetParam(), batch, {0.1, 0.01, 0}), random_(5) {
    move_weights(lm_, random_);
    rows_ = random_tokens(random_, GetParam(), batch);
    rows_.targets[rows_.targets.size() / 2] = -1;
    counted_ = static_cast<double>(rows_.targets.size() - 1);
  }

  double loss() { return lm_.train(rows_, 0, batch, counted_)[loss_sum_objective] / counted_; }

  double slope(ParameterId id, const std::vector<double>& direction) {
    return slope_along(lm_.weight(id), direction, [&] { return loss(); });
  }

  SmallLm<double> lm_;
  RandomValues random_;
  TokenRows rows_;
  double counted_ = 0.0;
  OneThread one_thread_;
};

TEST_P(Gradients, AreTheSlopesOfTheLoss) {
  lm_.zero_gradients();
  loss();
  const std::vector<double> gradients(lm_.gradients().begin(), lm_.gradients().end());
  for (ParameterId id = 0; id < lm_.tensors(); ++id) {
    const Parameter& parameter = lm_.table()[id];
    const auto n = static_cast<size_t>(parameter.shape.numel());
    const std::span gradient =
        std::span(gradients).subspan(static_cast<size_t>(parameter.offset), n);
    const double norm = std::sqrt(dot(gradient, gradient));
    ASSERT_GT(norm, 0.0) << parameter.name;

    // Along a random direction, which no entry escapes ...
    const Buffer<double> direction = random_.normal<double>(parameter.shape);
    EXPECT_NEAR(slope(id, direction.values), dot(gradient, direction.values), 1e-6 * norm)
        << parameter.name;
    // ... and along single entries, held to the norm of as many average ones.
    constexpr int samples = 3;
    double error = 0.0;
    for (int sample = 0; sample < samples; ++sample) {
      const auto entry = static_cast<size_t>(random_.integer(0, parameter.shape.numel()));
      std::vector<double> axis(n, 0.0);
      axis[entry] = 1.0;
      const double difference = slope(id, axis) - gradient[entry];
      error += difference * difference;
    }
    EXPECT_LT(std::sqrt(error), 1e-6 * norm * std::sqrt(samples / static_cast<double>(n)))
        << parameter.name;
  }
}

INSTANTIATE_TEST_SUITE_P(, Gradients, ::testing::ValuesIn(all_models()),
                         [](const auto& info) { return describe(info.param); });

}  // namespace
}  // namespace sigtrain
