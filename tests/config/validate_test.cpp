#include "config/validate.h"

#include <gmock/gmock.h>
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
      {"model.seq_len=0", "must be at least 1: only images have a number of tokens of their own"},
      {"model.layers=0", "must be in [1, 4096], is 0"},
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

// A valid classifier of images, in fewer keys than its files have.
constexpr const char* kImages =
    "task: image_classification\n"
    "run: {name: x}\n"
    "model:\n"
    "  seq_len: 0\n"
    "  vision: {image_size: 32, patch_size: 4, classes: 10}\n"
    "  attention: {causal: false}\n"
    "  position: {kind: sincos}\n"
    "data: {source: image_folder, train: [a], validation: [b]}\n";

TEST(Validate, RefusesImpossibleImages) {
  ConfigFiles files;
  files.write("a.yaml", kImages);
  EXPECT_EQ(files.error("a.yaml"), "");
  const std::vector<std::pair<std::vector<std::string>, std::string>> table = {
      {{"model.vision.channels=2"}, "must be 1 (grey) or 3 (red, green, blue)"},
      {{"model.vision.patch_size=5"}, "model.vision.image_size, 32, is not a multiple of 5"},
      {{"model.vision.patch_size=0"}, "must be in [1, 16777216], is 0"},
      {{"model.seq_len=64"}, "must be 65, the tokens of an image, or 0"},
      {{"model.seq_len=65", "model.vision.pool=mean"}, "must be 64, the tokens of an image, or 0"},
      {{"model.vision.classes=0", "data.source=synthetic"},
       "must be given for synthetic data, which has none to count"},
      {{"model.attention.causal=true"},
       "must be false: patches of an image have no first and no last"},
      {{"model.position.kind=rope"},
       "must be none, learned or sincos: the others know one dimension, not two"},
      {{"model.position.kind=alibi"},
       "must be none, learned or sincos: the others know one dimension, not two"},
      {{"model.width=258", "model.heads=3"},
       "sincos positions of images need a multiple of 4, not 258"},
      {{"model.vocab_size=7"},
       "must be 0 for images: model.vision.classes is what their head needs"},
      {{"data.image.mean=[0.5]"}, "needs 3 numbers, one a channel, and has 1"},
      {{"data.image.stddev=[1, 1, 1, 1]"}, "needs 3 numbers, one a channel, and has 4"},
      {{"data.image.stddev=[1, 0, 1]"}, "must be greater than 0"},
      {{"data.image.eval_resize=31"},
       "is less than the 32 pixels of model.vision.image_size that are cut from it"},
      {{"data.source=text"}, "text holds no data for task image_classification"},
      {{"data.train=[]"}, "must list image folders or files"},
      {{"data.validation=[]"},
       "must list image folders or files, to evaluate every 100 steps (eval.every)"},
      {{"train.global_batch=8", "augment.repeats=3"}, "8 is not a multiple of augment.repeats, 3"},
      {{"loss.z_loss=0.1"}, "is of tokens: it has no effect on images"},
      {{"loss.chunk_rows=64"}, "is of tokens: it has no effect on images"},
      {{"data.tokenizer=bytes"}, "is of tokens: it has no effect on images"},
      {{"augment.mixup=-1"}, "must be at least 0, is -1"},
      {{"augment.cutmix=1", "train.micro_batch=1"},
       "mixes the images of a micro-batch: train.micro_batch, 1, must be at least twice "
       "augment.repeats, 1"},
      {{"augment.mixup=1", "augment.repeats=3", "train.micro_batch=5", "train.global_batch=15"},
       "mixes the images of a micro-batch: train.micro_batch, 5, must be at least twice "
       "augment.repeats, 3"},
      {{"augment.hue=0.6"}, "must be in [0, 0.5], is 0.6"},
      {{"data.image.max_damaged=2"}, "must be in [0, 1], is 2"},
      {{"data.workers=100000"}, "must be in [0, 1024], is 100000"},
  };
  for (const auto& [overrides, message] : table) {
    EXPECT_EQ(files.error("a.yaml", overrides), "--set " + overrides[0] + ": " + message);
  }
  const std::vector<std::string> grey = {"model.vision.channels=1", "data.image.mean=[0.5]",
                                         "data.image.stddev=[0.5]"};
  EXPECT_EQ(files.error("a.yaml", grey), "");
  for (const char* key : {"saturation=0.1", "hue=0.1", "randaugment_ops=1"}) {
    std::vector<std::string> overrides = grey;
    overrides.push_back("augment." + std::string(key));
    EXPECT_EQ(files.error("a.yaml", overrides),
              "--set " + overrides.back() + ": needs three channels");
  }
}

TEST(Validate, RefusesKeysOfAnotherTask) {
  ConfigFiles files;
  files.write("a.yaml", kGood);
  for (const char* text : {"augment.flip=true", "augment.mixup=0.2", "model.vision.patch_size=8",
                           "data.image.mean=[1]", "data.image.eval_resize=256"}) {
    EXPECT_EQ(files.error("a.yaml", {text}),
              "--set " + std::string(text) + ": has no effect on task language_modeling");
  }
  EXPECT_EQ(files.error("a.yaml", {"data.source=cifar10"}),
            "--set data.source=cifar10: cifar10 holds no data for task language_modeling");
  EXPECT_EQ(files.error("a.yaml", {"task=image_clasification"}),
            "--set task=image_clasification: expects one of language_modeling, "
            "image_classification, speech_recognition, got 'image_clasification' (did you mean "
            "'image_classification'?)");
}

constexpr const char* kGoodSpeech = R"(task: speech_recognition
run: {name: x}
model: {seq_len: 0, attention: {causal: false}, position: {kind: alibi}}
train: {micro_batch: 1, global_batch: 2}
data: {source: speech, train: [a], validation: [b]}
)";

TEST(Validate, RefusesImpossibleSpeech) {
  ConfigFiles files;
  files.write("a.yaml", kGoodSpeech);
  EXPECT_NO_THROW(files.read("a.yaml", {}));
  EXPECT_NO_THROW(files.read("a.yaml", {"model.position.kind=cape", "model.vocab_size=29"}));
  const std::vector<std::pair<std::string, std::string>> table = {
      {"model.attention.causal=true", "must be false: an utterance is heard as a whole"},
      {"model.position.kind=learned",
       "must be none, rope, alibi, sincos or cape: utterances have no largest length to learn"},
      {"model.vocab_size=28", "must be 29, data.speech.letters and the blank, or 0"},
      {"model.seq_len=7", "must be 0, or the frames of the last of data.speech.bucket_seconds"},
      {"loss.label_smoothing=0.1", "has no effect on CTC"},
      {"loss.z_loss=0.1", "has no effect on CTC"},
      {"train.micro_batch=2", "must be 1: one of the batches that data.speech.batch_seconds makes"},
      {"train.cuda_graph=true", "must be false: batches of speech differ in shape"},
      {"eval.sequences=5", "must be 0: error rates are over the whole of data.validation"},
      {"data.speech.bucket_seconds=[]", "must list a duration at least"},
      {"data.speech.bucket_seconds=[1, 1]", "must rise, from more than 0 to at most 3600"},
      {"data.speech.bucket_seconds=[0, 1]", "must rise, from more than 0 to at most 3600"},
      {"data.speech.letters=abca", "must have each of its letters once"},
      {"data.speech.batch_seconds=0", "must be greater than 0, is 0"},
      {"model.speech.stride=0", "must be in [1, 16777216], is 0"},
      {"model.vision.classes=3", "has no effect on task speech_recognition"},
      {"augment.flip=true", "has no effect on task speech_recognition"},
      {"data.source=idx", "idx holds no data for task speech_recognition"},
      {"data.train=[]", "must list manifests or folders of speech"},
  };
  for (const auto& [text, message] : table)
    EXPECT_EQ(files.error("a.yaml", {text}), "--set " + text + ": " + message);
  EXPECT_THAT(files.error("a.yaml", {"model.layer_drop=0.1", "model.stochastic_depth=0.1"}),
              testing::HasSubstr("does not go together with model.stochastic_depth"));
}

TEST(Validate, RefusesSpeechSettingsOfOtherTasks) {
  ConfigFiles files;
  files.write("a.yaml", kGood);
  for (const char* text : {"model.speech.kernel=5", "data.speech.letters=ab",
                           "augment.speech.speed=0.1", "eval.beam_width=4"}) {
    EXPECT_EQ(files.error("a.yaml", {text}),
              "--set " + std::string(text) + ": has no effect on task language_modeling");
  }
  EXPECT_EQ(files.error("a.yaml", {"model.position.kind=cape"}),
            "--set model.position.kind=cape: cape is of speech: its positions are in time");
  EXPECT_EQ(files.error("a.yaml", {"data.source=speech"}),
            "--set data.source=speech: speech holds no data for task language_modeling");
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

// The file was right until then.
TEST(Validate, BlamesAnOverrideBeforeTheFile) {
  ConfigFiles files;
  files.write("a.yaml",
              std::string(kGood) + "schedule:\n  warmup_steps: 60\ntrain:\n  steps: 70\n");
  EXPECT_EQ(files.error("a.yaml"), "");
  EXPECT_EQ(files.error("a.yaml", {"train.steps=50"}),
            "--set train.steps=50: schedule.warmup_steps: 60 are more than train.steps, 50 "
            "(schedule.warmup_steps is given in a.yaml:7)");
  EXPECT_EQ(files.error("a.yaml", {"schedule.warmup_steps=80"}),
            "--set schedule.warmup_steps=80: 80 are more than train.steps, 70");
  // Of two overrides, the one of the key that the message is about; a default is given nowhere.
  EXPECT_EQ(files.error("a.yaml", {"train.steps=50", "schedule.warmup_steps=80"}),
            "--set schedule.warmup_steps=80: 80 are more than train.steps, 50");
  EXPECT_EQ(files.error("a.yaml", {"model.heads=3"}),
            "--set model.heads=3: model.width: 256 is not a multiple of model.heads, 3 "
            "(model.head_dim would free the choice)");
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
