#include "config/validate.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "config/problem.h"
#include "config_files.h"

namespace sigtrain {
namespace {

TEST(Validate, RefusesValuesOutOfRange) {
  ConfigFiles files;
  files.write("a.yaml", kGood);
  const std::vector<std::pair<std::string, std::string>> table = {
      {"model.seq_len=0", "must be in [1, 16777216], is 0"},
      {"model.layers=0", "must be in [1, 16777216], is 0"},
      {"model.heads=0", "must be in [1, 16777216], is 0"},
      {"model.width=99999999999", "must be in [1, 16777216], is 99999999999"},
      {"model.kv_heads=-1", "must be in [0, 16777216], is -1"},
      {"model.attention.window=-1", "must be in [0, 16777216], is -1"},
      {"model.attention.scale=0", "must be greater than 0, is 0"},
      {"model.norm.eps=0", "must be greater than 0, is 0"},
      {"model.dropout=1", "must be in [0, 1), is 1"},
      {"model.stochastic_depth=-0.1", "must be in [0, 1), is -0.1"},
      {"model.layer_scale=-1e-4", "must be at least 0, is -0.0001"},
      {"loss.label_smoothing=1.0", "must be in [0, 1), is 1"},
      {"optimizer.learning_rate=0", "must be greater than 0, is 0"},
      {"optimizer.beta1=1", "must be in [0, 1), is 1"},
      {"optimizer.beta2=1", "must be in [0, 1), is 1"},
      {"optimizer.eps=0", "must be greater than 0, is 0"},
      {"optimizer.ema_decay=1", "must be in [0, 1), is 1"},
      {"optimizer.clip_norm=-1", "must be at least 0, is -1"},
      {"schedule.final_ratio=1.5", "must be in [0, 1], is 1.5"},
      {"schedule.decay_fraction=0", "must be in (0, 1], is 0"},
      {"train.steps=0", "must be at least 1, is 0"},
      {"train.micro_batch=0", "must be in [1, 16777216], is 0"},
      {"checkpoint.keep=0", "must be at least 1, is 0"},
      {"log.every=0", "must be at least 1, is 0"},
      {"run.name=''", "must be given: it names the run's results"},
      {"run.name=a/b", "must not contain '/': run.dir chooses the folder"},
      {"run.name=..", "must be a name, not a folder"},
      {"data.train=[]", "must list token shards, or folders of them"},
      {"data.train=[a, '']", "lists an empty path"},
  };
  for (const auto& [text, message] : table) {
    EXPECT_EQ(files.error("a.yaml", {text}), "--set " + text + ": " + message);
  }
}

// Overrides that only together are wrong; the message goes to the first.
TEST(Validate, RefusesImpossibleCombinations) {
  ConfigFiles files;
  files.write("a.yaml", kGood);
  const std::vector<std::pair<std::vector<std::string>, std::string>> table = {
      {{"model.width=100", "model.heads=3"},
       "100 is not a multiple of model.heads, 3 (model.head_dim would free the choice)"},
      {{"model.kv_heads=3", "model.heads=4"}, "model.heads, 4, is not a multiple of 3"},
      {{"model.kv_heads=8", "model.heads=4"}, "8 are more than model.heads, 4"},
      {{"model.head_dim=33"},
       "rope turns pairs of channels: the head dimension (width / heads where not given) must be "
       "even"},
      {{"model.width=15", "model.heads=5", "model.position.kind=sincos"},
       "sincos positions need an even width, not 15"},
      {{"model.attention.bias=-10", "model.attention.kind=softmax"},
       "a constant bias cancels in softmax: remove it, or set it to 0 over the base's"},
      {{"model.attention.bias=-log(seq_len)", "model.attention.kind=softmax"},
       "a constant bias cancels in softmax: remove it, or set it to 0 over the base's"},
      {{"model.attention.learned_bias=true", "model.attention.kind=softmax"},
       "a bias for each head cancels in softmax: remove it, or set it to false over the base's"},
      {{"train.global_batch=10", "train.micro_batch=4"},
       "10 is not a multiple of train.micro_batch, 4"},
      {{"schedule.warmup_steps=11", "train.steps=10"}, "11 are more than train.steps, 10"},
      {{"schedule.decay_fraction=0.5", "schedule.warmup_steps=6", "train.steps=10",
        "schedule.kind=wsd"},
       "the final 0.5 of train.steps, 10, would start within the warm-up of 6"},
      {{"model.vocab_size=0", "data.source=synthetic"},
       "must be given for synthetic data, which has no shards to take it from"},
      {{"data.validation=[]", "eval.every=5"},
       "must list token shards, or folders of them, to evaluate every 5 steps (eval.every)"},
  };
  for (const auto& [overrides, message] : table) {
    EXPECT_EQ(files.error("a.yaml", overrides), "--set " + overrides[0] + ": " + message);
  }
}

TEST(Validate, AllowsUnusualButPossibleConfigs) {
  ConfigFiles files;
  files.write("a.yaml", kGood);
  const std::vector<std::vector<std::string>> table = {
      {"model.heads=3", "model.head_dim=64"},
      {"model.heads=4", "model.kv_heads=1"},
      {"model.width=12", "model.heads=4", "model.position.kind=alibi"},
      {"model.attention.causal=false", "model.attention.window=8"},
      {"model.attention.kind=softmax", "model.position.kind=alibi"},
      {"model.attention.learned_bias=true", "model.attention.bias=-10"},
      {"model.position.kind=learned"},
      {"model.position.kind=sincos", "model.attention.kind=softmax"},
      {"data.validation=[]", "eval.every=0"},
      {"data.source=synthetic", "data.train=[]", "data.validation=[]", "model.vocab_size=100"},
      {"train.steps=100", "schedule.warmup_steps=100"},
      {"train.steps=10", "schedule.warmup_steps=5", "schedule.kind=wsd",
       "schedule.decay_fraction=0.5"},
      {"schedule.final_ratio=1", "optimizer.beta1=0", "optimizer.weight_decay=0"},
  };
  for (const auto& overrides : table) EXPECT_EQ(files.error("a.yaml", overrides), "");
}

TEST(Validate, BlamesAValueThatWasGivenBeforeADefault) {
  ConfigFiles files;
  files.write("a.yaml", std::string(kGood) + "train:\n  steps: 50\n");
  EXPECT_EQ(files.error("a.yaml"),
            "a.yaml:7: schedule.warmup_steps: 100 are more than train.steps, 50");
}

TEST(Validate, DoesNotJudgeWhatIsKnownToBeWrong) {
  Config config;
  config.model.heads = 3;
  config.data.train = {"a"};
  config.data.validation = {"b"};
  EXPECT_EQ(impossible_values(config, {"run.name", "model.heads"}).size(), 0u);
  EXPECT_EQ(impossible_values(config, {"run", "model"}).size(), 0u);
  EXPECT_EQ(impossible_values(config, {"run.na", "mod"}).size(), 2u);
}

TEST(Validate, ChecksConfigsMadeInCode) {
  Config config;
  config.run.name = "x";
  config.data.source = DataSource::synthetic;
  config.model.vocab_size = 16;
  EXPECT_NO_THROW(validate(config));
  config.model.width = 3;
  config.model.dropout = std::numeric_limits<double>::quiet_NaN();
  try {
    validate(config);
    FAIL();
  } catch (const ConfigError& e) {
    EXPECT_STREQ(e.what(),
                 "model.dropout: must be a finite number, is nan\n"
                 "model.width: 3 is not a multiple of model.heads, 4 (model.head_dim would free "
                 "the choice)");
  }
}

}  // namespace
}  // namespace sigtrain
