#include "models/speech_encoder.h"

#include <fmt/format.h>

#include <cmath>

#include "models/small_speech.h"

namespace sigtrain {
namespace {

ModelConfig small_model() {
  ModelConfig model;
  model.vocab_size = 6;
  model.speech = {5, 7, 3};
  model.layers = 3;
  model.width = 12;
  model.heads = 2;
  model.attention.bias = {false, -1.0};
  model.attention.causal = false;
  model.norm.kind = NormKind::layernorm;
  model.position.kind = PositionKind::alibi;
  model.mlp = {MlpKind::gelu, 16};
  model.linear_bias = true;
  return model;
}

std::vector<std::pair<std::string, ModelConfig>> models() {
  std::vector<std::pair<std::string, ModelConfig>> all;
  const auto add = [&](const std::string& name, auto change) {
    all.emplace_back(name, small_model());
    change(all.back().second);
  };
  add("sigmoid alibi pre", [](ModelConfig&) {});
  add("softmax alibi post layer_drop", [](ModelConfig& model) {
    model.attention.kind = AttentionKind::softmax;
    model.attention.bias = {};
    model.norm.structure = NormStructure::post;
    model.layer_drop = 0.4;
  });
  add("sigmoid rope qk_norm layer_scale layer_drop", [](ModelConfig& model) {
    model.position.kind = PositionKind::rope;
    model.attention.qk_norm = true;
    model.attention.learned_bias = true;
    model.layer_scale = 0.3;
    model.layer_drop = 0.4;
  });
  add("sigmoid cape hybrid dropout", [](ModelConfig& model) {
    model.position.kind = PositionKind::cape;
    model.norm.structure = NormStructure::hybrid;
    model.dropout = 0.2;
    model.layer_drop = 0.3;
  });
  add("softmax sincos pre stochastic_depth", [](ModelConfig& model) {
    model.attention.kind = AttentionKind::softmax;
    model.attention.bias = {};
    model.position.kind = PositionKind::sincos;
    model.stochastic_depth = 0.5;
  });
  return all;
}

// Every parameter's gradient, along a random direction, by central differences; the draws of
// dropout and of layers left out are the same each time.
TEST(SpeechEncoder, GradientsAreThoseOfTheLoss) {
  for (const auto& [name, model] : models()) {
    SCOPED_TRACE(name);
    RandomValues random(5);
    SpokenRows rows = random_speech(random, model, {20, 31, 9}, 4);
    SmallSpeech<double> speech(model, rows);
    speech.zero_gradients();
    speech.train(rows);
    std::vector<std::vector<double>> gradients;
    for (ParameterId id = 0; id < speech.tensors(); ++id)
      gradients.push_back(speech.gradient_values(id));
    for (ParameterId id = 0; id < speech.tensors(); ++id) {
      const std::vector<double>& gradient = gradients[static_cast<size_t>(id)];
      const auto direction = random.normal<double>({static_cast<int64_t>(gradient.size())});
      const double expected = dot(gradient, direction.values);
      const double actual = slope_along(speech.weight(id), direction.values, [&] {
        return speech.train(rows)[ctc_sum_nll] / rows.letters();
      });
      EXPECT_NEAR(actual, expected, gradient_tolerance * std::max(1.0, std::abs(expected)))
          << speech.table()[id].name;
    }
  }
}

// An utterance has the same logits and loss alone, and beside longer ones under padding that is
// noise; and its diagnostics do not see the padding either.
TEST(SpeechEncoder, PaddingIsNeitherHeardNorCounted) {
  for (const auto& [name, model] : models()) {
    SCOPED_TRACE(name);
    RandomValues random(6);
    SpokenRows together = random_speech(random, model, {20, 31, 9}, 8);
    SpokenRows alone = random_speech(random, model, {20});
    const int64_t bins = model.speech.mel_bins, frames = alone.seq_len();
    std::copy_n(together.features.values.begin(), 20 * bins, alone.features.values.begin());
    std::copy_n(together.positions.values.begin(), frames, alone.positions.values.begin());
    std::copy_n(together.targets.values.begin(), frames, alone.targets.values.begin());
    SmallSpeech<double> of_both(model, together), of_one(model, alone);
    of_both.evaluate(together);
    of_one.evaluate(alone);
    for (size_t i = 0; i < of_one.logits().size(); ++i)
      ASSERT_NEAR(of_both.logits()[i], of_one.logits()[i], 1e-12) << i;
    EXPECT_NEAR(of_both.losses()[0], of_one.losses()[0], 1e-11);

    SpokenRows padded = random_speech(random, model, {20}, 13);
    std::copy_n(together.features.values.begin(), 20 * bins, padded.features.values.begin());
    std::copy_n(together.positions.values.begin(), frames, padded.positions.values.begin());
    std::copy_n(together.targets.values.begin(), frames, padded.targets.values.begin());
    SmallSpeech<double> of_padded(model, padded);
    of_padded.evaluate(padded);
    SingleProcess process;
    const auto expected = of_one.diagnostics().read(of_one.ops(), process);
    const auto actual = of_padded.diagnostics().read(of_padded.ops(), process);
    for (size_t d = 0; d < expected.size(); ++d)
      for (size_t layer = 0; layer < expected[d].size(); ++layer)
        EXPECT_NEAR(actual[d][layer], expected[d][layer], 1e-12) << d << " " << layer;

    // Nor do the gradients.
    of_one.zero_gradients();
    of_padded.zero_gradients();
    if (model.dropout > 0.0) continue;  // whose draws depend on where a frame lies
    of_one.train(alone);
    of_padded.train(padded);
    for (size_t i = 0; i < of_one.gradients().size(); ++i)
      ASSERT_NEAR(of_padded.gradients()[i], of_one.gradients()[i], 1e-11) << i;
  }
}

TEST(SpeechEncoder, RecomputationGivesTheSameBits) {
  for (const auto& [name, model] : models()) {
    SCOPED_TRACE(name);
    RandomValues random(7);
    SpokenRows rows = random_speech(random, model, {20, 31, 9});
    SmallSpeech<float> plain(model, rows);
    plain.zero_gradients();
    plain.train(rows);
    for (const Recompute recompute : {Recompute::norms_and_activations, Recompute::block}) {
      SmallSpeech<float> again(model, rows, 1, recompute);
      again.zero_gradients();
      again.train(rows);
      for (size_t i = 0; i < plain.gradients().size(); ++i)
        ASSERT_EQ(again.gradients()[i], plain.gradients()[i]) << i;
    }
  }
}

// A training step leaves layers out as a whole: their gradients are exactly zero, those of others
// are not.
TEST(SpeechEncoder, LayersLeftOutHaveNoGradient) {
  ModelConfig model = small_model();
  model.layers = 8;
  model.layer_drop = 0.5;
  RandomValues random(8);
  SpokenRows rows = random_speech(random, model, {20, 31});
  SmallSpeech<double> speech(model, rows);
  speech.zero_gradients();
  speech.train(rows);
  int64_t dropped = 0;
  for (int64_t layer = 0; layer < model.layers; ++layer) {
    const std::string name = fmt::format("layers.{}.", layer);
    int64_t zero = 0, present = 0;
    for (ParameterId id = 0; id < speech.tensors(); ++id) {
      const std::string& parameter = speech.table()[id].name;
      if (!parameter.starts_with(name) || !parameter.ends_with("weight")) continue;
      double largest = 0.0;
      for (const double g : speech.gradient_values(id)) largest = std::max(largest, std::abs(g));
      (largest == 0.0 ? zero : present) += 1;
    }
    EXPECT_TRUE(zero == 0 || present == 0) << name << ": both halves stay or go";
    dropped += present == 0;
  }
  EXPECT_GT(dropped, 0);
  EXPECT_LT(dropped, model.layers);
}

}  // namespace
}  // namespace sigtrain
