// What holds for every decoder language model: micro-batches add up, evaluation is training without
// its noise, memory grows linearly with the sequence, models learn, and the bias does its work.
#include "models/decoder_lm.h"

#include "models/small_lm.h"

namespace sigtrain {
namespace {

ModelConfig small_model(AttentionKind kind) {
  ModelConfig model;
  model.seq_len = 16;
  model.vocab_size = 32;
  model.layers = 2;
  model.width = 32;
  model.heads = 4;
  model.attention.kind = kind;
  model.attention.qk_norm = true;
  model.mlp.hidden = 64;
  if (kind == AttentionKind::sigmoid) {
    model.attention.bias.minus_log_seq_len = true;
    model.position.kind = PositionKind::alibi;
    model.norm.structure = NormStructure::hybrid;
  }
  return model;
}

class DecoderLms : public ::testing::TestWithParam<AttentionKind> {};

TEST_P(DecoderLms, MicroBatchesAddUpToTheWholeBatch) {
  SmallLm<double> lm(small_model(GetParam()), 4);
  RandomValues random(1);
  TokenRows rows = random_tokens(random, small_model(GetParam()), 4);
  const auto counted = static_cast<double>(rows.targets.size());
  lm.zero_gradients();
  const std::vector<double> whole = lm.train(rows, 0, 4, counted);
  const std::vector<double> expected(lm.gradients().begin(), lm.gradients().end());
  double largest = 0.0;
  for (const double value : expected) largest = std::max(largest, std::abs(value));
  ASSERT_GT(largest, 0.0);

  lm.zero_gradients();
  std::vector<double> total(loss_sum_slots, 0.0);
  for (const auto& [begin, end] : {std::pair{0, 1}, {1, 2}, {2, 4}}) {
    const std::vector<double> part = lm.train(rows, begin, end, counted);
    for (size_t slot = 0; slot < total.size(); ++slot) total[slot] += part[slot];
  }
  for (size_t i = 0; i < expected.size(); ++i)
    ASSERT_NEAR(lm.gradients()[i], expected[i], 1e-12 * largest) << i;
  for (size_t slot = 0; slot < total.size(); ++slot)
    EXPECT_NEAR(total[slot], whole[slot], 1e-12 * whole[slot]);
}

TEST_P(DecoderLms, EvaluationHasTheLossOfTrainingWithoutDropout) {
  for (const NormStructure structure :
       {NormStructure::pre, NormStructure::post, NormStructure::hybrid}) {
    ModelConfig model = small_model(GetParam());
    model.norm.structure = structure;
    model.layer_scale = 0.5;
    SmallLm<double> lm(model, 2);
    RandomValues random(1);
    TokenRows rows = random_tokens(random, model, 2);
    const std::vector<double> trained = lm.train(rows, 0, 2, 1.0);
    EXPECT_EQ(lm.evaluate(rows, 0, 2), trained);

    model.dropout = 0.3;
    model.stochastic_depth = 0.3;
    SmallLm<double> noisy(model, 2);
    EXPECT_EQ(noisy.evaluate(rows, 0, 2), trained);
    EXPECT_NE(noisy.train(rows, 0, 2, 1.0), trained);
  }
}

TEST_P(DecoderLms, MemoryGrowsLinearlyWithTheSequence) {
  const CpuOps<float> backend;
  ModelConfig model = small_model(GetParam());
  model.seq_len = 512;
  const ModelMemory at_512 = plan_lm(model, 1, {}, backend);
  model.seq_len = 1024;
  const ModelMemory at_1024 = plan_lm(model, 1, {}, backend);
  EXPECT_LT(static_cast<double>(at_1024.arena), 2.2 * static_cast<double>(at_512.arena));
  EXPECT_LT(static_cast<double>(at_1024.workspace), 2.2 * static_cast<double>(at_512.workspace));
}

TEST_P(DecoderLms, OverfitsOneBatch) {
  const OneThread one_thread;
  const ModelConfig model = small_model(GetParam());
  SmallLm<float> lm(model, 4);
  RandomValues random(3);
  TokenRows rows = random_tokens(random, model, 4);
  const auto counted = static_cast<double>(rows.targets.size());
  OptimizerConfig config;
  config.learning_rate = 1e-2;
  config.weight_decay = 0.0;
  Optimizer optimizer(lm.parameters(), lm.ops(), config, model.width);
  double loss = 0.0;
  for (int step = 0; step < 200; ++step) {
    optimizer.zero_gradients(lm.ops());
    loss = lm.train(rows, 0, 4, counted)[loss_sum_nll] / counted;
    optimizer.set_rate(lm.ops(), std::min(1.0, (step + 1) / 20.0));
    optimizer.step(lm.ops());
    if (step == 0) {
      EXPECT_GT(loss, 3.0);  // about ln 32 or more: nothing is known yet
    }
  }
  EXPECT_LT(loss, 0.05);
}

INSTANTIATE_TEST_SUITE_P(, DecoderLms,
                         ::testing::Values(AttentionKind::sigmoid, AttentionKind::softmax),
                         [](const auto& info) {
                           return info.param == AttentionKind::sigmoid ? "sigmoid" : "softmax";
                         });

TEST(SigmoidBias, KeepsTheAttentionOutputSmallAtTheStart) {
  ModelConfig model = small_model(AttentionKind::sigmoid);
  model.seq_len = 512;
  model.position.kind = PositionKind::none;  // ALiBi, too, would push far keys to zero
  const auto diagnostics = [](const ModelConfig& config) {
    SmallLm<float> lm(config, 1);
    RandomValues random(1);
    TokenRows rows = random_tokens(random, config, 1);
    lm.evaluate(rows, 0, 1);
    SingleProcess alone;
    return lm.diagnostics().read(lm.ops(), alone);
  };
  const auto with_bias = diagnostics(model);
  model.attention.bias = {};
  const auto without = diagnostics(model);
  constexpr auto rms = static_cast<size_t>(Diagnostic::attention_out_rms),
                 row_sum = static_cast<size_t>(Diagnostic::attention_row_sum);
  for (size_t layer = 0; layer < 2; ++layer) {
    EXPECT_GT(without[rms][layer], 10.0 * with_bias[rms][layer]) << "layer " << layer;
    EXPECT_GT(with_bias[rms][layer], 0.0);
    // A causal query sees 256 keys on average: half of each without a bias, 1/512 with it.
    EXPECT_NEAR(without[row_sum][layer], 128.0, 13.0);
    EXPECT_NEAR(with_bias[row_sum][layer], 0.5, 0.4);
  }
}

}  // namespace
}  // namespace sigtrain
