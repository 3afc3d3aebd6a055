#include "config/writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <type_traits>

#include "config/enum_names.h"
#include "config/fields.h"
#include "config/validate.h"
#include "config_files.h"

namespace sigtrain {
namespace {

bool equal(const AttentionBias& a, const AttentionBias& b) {
  return a.minus_log_seq_len == b.minus_log_seq_len && a.value == b.value;
}
template <typename T>
bool equal(const T& a, const T& b) {
  return a == b;
}

template <typename Section>
void expect_equal(const Section& a, const Section& b) {
  std::apply(
      [&](const auto&... field) {
        const auto compare = [&](const auto& one) {
          const auto& x = a.*one.member;
          const auto& y = b.*one.member;
          if constexpr (kIsSection<decltype(x)>) {
            expect_equal(x, y);
          } else {
            EXPECT_TRUE(equal(x, y)) << one.key;
          }
        };
        (compare(field), ...);
      },
      kFields<Section>);
}

// A valid value of each type, different from the default at every key where one is allowed.
void change(int64_t& value, const Range&) { value = 2 * value + 2; }
void change(uint64_t& value, const Range&) { value = 18446744073709551557u; }
void change(double& value, const Range& range) {
  value = range.high <= 1.0 ? 0.1 + 0.2 * value : std::nextafter(value / 3.0 + 1e-7, 1.0);
}
void change(bool& value, const Range&) { value = !value; }
void change(std::string& value, const Range&) { value = "it's \"x\": [a, b] # \xc3\xa9\ttab"; }
void change(std::vector<std::string>& value, const Range&) {
  value = {"null", "~", "true", "-1", "a, b", "", "line\nbreak", "*alias", "{x: y}", " spaced "};
}
void change(std::vector<double>& value, const Range&) { value = {1.0 / 3.0}; }
void change(AttentionBias& value, const Range&) { value.value = -1.0 / 3.0; }
void change(std::optional<double>& value, const Range&) { value = 5e-324; }
template <typename E>
requires std::is_enum_v<E>
void change(E& value, const Range&) {
  for (const auto& known : kEnumNames<E>) {
    if (known.value != value) {
      value = known.value;
      return;
    }
  }
}

/// Every value another than its default, for one task; but of the others' sections, which it may
/// not change.
Config changed(TaskKind task) {
  Config config;
  for_each_value(config, [](const std::string&, const auto& field, auto& value) {
    change(value, field.range);
  });
  // What the combinations ask for.
  config.data.train = {"null", "~", "a, b", "line\nbreak"};
  config.data.validation = {"*alias", "{x: y}", " spaced "};
  config.model.attention.learned_bias = false;
  config.model.attention.kind = AttentionKind::sigmoid;
  config.model.width = 60;
  config.model.heads = 6;
  config.model.kv_heads = 2;
  config.model.head_dim = 10;
  config.model.position.cape_scale = 1.5;
  config.task = task;
  if (task == TaskKind::speech_recognition) {
    config.model.vision = {};
    config.data.image = {};
    const SpeechAugmentConfig augment = config.augment.speech;
    config.augment = {};
    config.augment.speech = augment;
    config.model.seq_len = 0;
    config.model.vocab_size = 0;
    config.model.attention.causal = false;
    config.model.layer_drop = 0.0;
    config.loss.label_smoothing = config.loss.z_loss = 0.0;
    config.train.micro_batch = 1;
    config.train.cuda_graph = false;
    config.eval.sequences = 0;
    config.data.source = DataSource::speech;
    config.data.speech.letters = "ab:# '-\"";
    config.data.speech.bucket_seconds = {0.1, 3.0, 1e2};
    return config;
  }
  // Of grey images.
  config.model.speech = {};
  config.data.speech = {};
  config.augment.speech = {};
  config.eval.beam_width = 0;
  config.model.seq_len = 0;
  config.model.vocab_size = 0;
  config.model.vision.image_size = 68;
  config.model.vision.patch_size = 17;
  config.model.vision.channels = 1;
  config.loss.z_loss = 0.0;
  config.loss.chunk_rows = 0;
  config.data.tokenizer = "";
  config.data.image.eval_resize = 70;
  config.augment.repeats = 2;
  config.augment.saturation = config.augment.hue = 0.0;
  config.augment.randaugment_ops = 0;
  return config;
}

TEST(Writer, RoundTripsEveryKey) {
  for (const TaskKind task : {TaskKind::image_classification, TaskKind::speech_recognition}) {
    const Config config = changed(task);
    ASSERT_NO_THROW(validate(config));
    ConfigFiles files;
    files.write("a.yaml", to_yaml(config));
    expect_equal(files.read("a.yaml"), config);
  }
}

TEST(Writer, RoundTripsDefaultsAndSpecialForms) {
  Config config;
  config.run.name = "1e3";
  config.data.train = {"a"};
  config.eval.every = 0;
  config.model.attention.bias.minus_log_seq_len = true;
  ConfigFiles files;
  files.write("a.yaml", to_yaml(config));
  expect_equal(files.read("a.yaml"), config);
  EXPECT_THAT(to_yaml(config), testing::HasSubstr("    bias: -log(seq_len)\n"));
  EXPECT_THAT(to_yaml(config), testing::HasSubstr("    scale: 1/sqrt(head_dim)\n"));
  for (const double exact : {0.1, 1e-300, -12.476649250079015, 123456789.0}) {
    config.model.attention.bias = {.minus_log_seq_len = false, .value = exact};
    files.write("a.yaml", to_yaml(config));
    expect_equal(files.read("a.yaml"), config);
  }
}

TEST(Writer, ResolvesBasesAndOverrides) {
  ConfigFiles files;
  files.write("base.yaml", std::string(kGood) + "model: {layers: 2, width: 64}\n");
  files.write("a.yaml", "base: base.yaml\nmodel: {layers: 3}\n");
  const std::string yaml = to_yaml(files.read("a.yaml", {"model.heads=2"}));
  EXPECT_THAT(yaml, testing::HasSubstr("  layers: 3\n  width: 64\n  heads: 2\n"));
  EXPECT_THAT(yaml, testing::Not(testing::HasSubstr("\nbase:")));
  EXPECT_THAT(yaml, testing::HasSubstr("data:\n  source: text\n  train: [a]\n"));
}

TEST(Reference, DescribesEveryKey) {
  const std::string text = config_reference();
  EXPECT_THAT(text, testing::HasSubstr("optimizer.beta1: 0.9\n    of AdamW's first moment "
                                       "(a number, in [0, 1))\n"));
  EXPECT_THAT(text, testing::HasSubstr("model.attention.kind: sigmoid\n    how logits become "
                                       "weights (one of sigmoid, softmax)\n"));
  const Config defaults;
  for_each_value(defaults, [&](const std::string& path, const auto& field, const auto&) {
    EXPECT_FALSE(field.doc.empty()) << path;
    EXPECT_THAT(text, testing::HasSubstr(path + ": "));
  });
}

}  // namespace
}  // namespace sigtrain
