#include "config/reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "config_files.h"

namespace sigtrain {
namespace {

using testing::ElementsAre;

TEST(Reader, KeepsTheDefaultsOfWhatIsNotGiven) {
  ConfigFiles files;
  files.write("a.yaml", kGood);
  const Config config = files.read("a.yaml");
  EXPECT_EQ(config.run.name, "good");
  EXPECT_EQ(config.run.dir, "");
  EXPECT_EQ(config.model.seq_len, 256);
  EXPECT_EQ(config.model.attention.kind, AttentionKind::sigmoid);
  EXPECT_FALSE(config.model.attention.bias.minus_log_seq_len);
  EXPECT_EQ(config.model.attention.bias.value, 0.0);
  EXPECT_FALSE(config.model.attention.scale.has_value());
  EXPECT_EQ(config.model.position.kind, PositionKind::rope);
  EXPECT_EQ(config.optimizer.beta2, 0.95);
  EXPECT_EQ(config.train.seed, 1u);
  EXPECT_THAT(config.data.train, ElementsAre("a"));
}

TEST(Reader, ReadsEveryKindOfValue) {
  ConfigFiles files;
  files.write("a.yaml", std::string(kGood) + R"(  source: synthetic
  tokenizer: "bytes"
model:
  vocab_size: +300
  attention: {kind: sigmoid, bias: -log(seq_len), scale: 0.5, causal: false, window: 64}
  norm:
    structure: hybrid
  dropout: .1
train:
  steps: 4e5
  seed: 18446744073709551615
schedule: {kind: wsd, warmup_steps: 1.5e3}
)");
  const Config config = files.read("a.yaml");
  EXPECT_EQ(config.data.source, DataSource::synthetic);
  EXPECT_EQ(config.data.tokenizer, "bytes");
  EXPECT_EQ(config.model.vocab_size, 300);
  EXPECT_TRUE(config.model.attention.bias.minus_log_seq_len);
  EXPECT_EQ(config.model.attention.scale, 0.5);
  EXPECT_FALSE(config.model.attention.causal);
  EXPECT_EQ(config.model.attention.window, 64);
  EXPECT_EQ(config.model.norm.structure, NormStructure::hybrid);
  EXPECT_EQ(config.model.dropout, 0.1);
  EXPECT_EQ(config.train.steps, 400000);
  EXPECT_EQ(config.train.seed, 18446744073709551615u);
  EXPECT_EQ(config.schedule.kind, ScheduleKind::wsd);
  EXPECT_EQ(config.schedule.warmup_steps, 1500);
}

// A file of `kGood` and, from line 6 on, `text`.
struct Bad {
  const char* name;
  const char* text;
  const char* message;
};

void PrintTo(const Bad& bad, std::ostream* out) { *out << bad.name; }

class BadFile : public testing::TestWithParam<Bad> {};

TEST_P(BadFile, SaysWhatToChange) {
  ConfigFiles files;
  files.write("a.yaml", std::string(kGood) + GetParam().text);
  EXPECT_EQ(files.error("a.yaml"), GetParam().message);
}

const Bad kBadFiles[] = {
    {"unknown_key_near", "model:\n  attention:\n    knd: sigmoid\n",
     "a.yaml:8: model.attention.knd: unknown key (did you mean 'kind'?)"},
    {"unknown_key_swapped", "model:\n  widht: 8\n",
     "a.yaml:7: model.widht: unknown key (did you mean 'width'?)"},
    {"unknown_section", "optimiser:\n  beta1: 0.9\n",
     "a.yaml:6: optimiser: unknown key (did you mean 'optimizer'?)"},
    {"key_of_another_section", "layers: 4\n",
     "a.yaml:6: layers: unknown key (did you mean 'model.layers'?)"},
    {"key_of_a_section_below", "model:\n  eps: 1e-5\n",
     "a.yaml:7: model.eps: unknown key (did you mean 'model.norm.eps'?)"},
    {"key_like_no_other", "checkpoint:\n  zzzzz: 1\n",
     "a.yaml:7: checkpoint.zzzzz: unknown key (known here: every, keep)"},
    {"flat_key_path", "model.layers: 4\n",
     "a.yaml:6: model.layers: unknown key (in a file, each part of a key path is a line of its "
     "own, "
     "indented)"},
    {"merge_key", "model:\n  <<: {layers: 3}\n",
     "a.yaml:7: model.<<: unknown key (known here: seq_len, vocab_size, vision, speech, layers, "
     "width, heads, "
     "kv_heads, head_dim, attention, norm, position, mlp, linear_bias, tied_embedding, dropout, "
     "stochastic_depth, layer_drop, layer_scale)"},
    {"text_for_integer", "model: {layers: abc}\n",
     "a.yaml:6: model.layers: expects an integer, got 'abc'"},
    {"fraction_for_integer", "model: {layers: 2.5}\n",
     "a.yaml:6: model.layers: expects an integer, got '2.5'"},
    {"inexact_exponent_for_integer", "model: {layers: 15e-1}\n",
     "a.yaml:6: model.layers: expects an integer, got '15e-1'"},
    {"hexadecimal", "model: {layers: 0x10}\n",
     "a.yaml:6: model.layers: expects an integer, got '0x10'"},
    {"unit", "train: {steps: 10k}\n", "a.yaml:6: train.steps: expects an integer, got '10k'"},
    {"quoted_integer", "model: {layers: \"4\"}\n",
     "a.yaml:6: model.layers: expects an integer, got the text '4' (remove the quotes)"},
    {"too_large_integer", "train: {steps: 99999999999999999999}\n",
     "a.yaml:6: train.steps: expects an integer of 64 bits, got '99999999999999999999'"},
    {"inexact_large_integer", "train: {steps: 1e18}\n",
     "a.yaml:6: train.steps: expects an integer, got '1e18'"},
    {"negative_seed", "train: {seed: -1}\n",
     "a.yaml:6: train.seed: expects a non-negative integer, got '-1'"},
    {"empty_quoted_integer", "train: {seed: ''}\n",
     "a.yaml:6: train.seed: expects a non-negative integer, got ''"},
    {"text_for_number", "model: {dropout: 1e}\n",
     "a.yaml:6: model.dropout: expects a number, got '1e'"},
    {"quoted_number", "model: {dropout: '0.1'}\n",
     "a.yaml:6: model.dropout: expects a number, got the text '0.1' (remove the quotes)"},
    {"nan", "model: {dropout: .nan}\n",
     "a.yaml:6: model.dropout: expects a finite number, got '.nan'"},
    {"infinity", "model: {layer_scale: -inf}\n",
     "a.yaml:6: model.layer_scale: expects a finite number, got '-inf'"},
    {"infinite_bias", "model: {attention: {bias: -.Inf}}\n",
     "a.yaml:6: model.attention.bias: expects a finite number, got '-.Inf'"},
    {"overflow", "optimizer: {eps: 1e999}\n",
     "a.yaml:6: optimizer.eps: '1e999' is beyond the range of a double"},
    {"yes_for_boolean", "model: {linear_bias: yes}\n",
     "a.yaml:6: model.linear_bias: expects true or false, got 'yes'"},
    {"quoted_boolean", "model: {linear_bias: 'true'}\n",
     "a.yaml:6: model.linear_bias: expects true or false, got the text 'true' (remove the quotes)"},
    {"bias_of_something_else", "model: {attention: {bias: -log(n)}}\n",
     "a.yaml:6: model.attention.bias: expects a number or -log(seq_len), got '-log(n)'"},
    {"scale_of_something_else", "model: {attention: {scale: auto}}\n",
     "a.yaml:6: model.attention.scale: expects a number or 1/sqrt(head_dim), got 'auto'"},
    {"misspelt_choice", "model: {attention: {kind: sigmod}}\n",
     "a.yaml:6: model.attention.kind: expects one of sigmoid, softmax, got 'sigmod' (did you mean "
     "'sigmoid'?)"},
    {"choice_like_no_other", "model: {mlp: {kind: Maxout}}\n",
     "a.yaml:6: model.mlp.kind: expects one of gelu, relu2, swiglu, got 'Maxout'"},
    {"list_for_map", "model:\n  - layers\n",
     "a.yaml:6: model: expects keys and values, got a list"},
    {"scalar_for_map", "model:\n  attention: sigmoid\n",
     "a.yaml:7: model.attention: expects keys and values, got 'sigmoid'"},
    {"map_for_scalar", "model:\n  layers:\n    a: 1\n",
     "a.yaml:7: model.layers: expects an integer, got a map"},
    {"list_for_scalar", "model:\n  layers: [1]\n",
     "a.yaml:7: model.layers: expects an integer, got a list"},
    {"null_value", "model:\n  layers:\n  width: 256\n",
     "a.yaml:7: model.layers: has no value: write one, or remove the key"},
    {"tilde", "model: {layers: ~}\n",
     "a.yaml:6: model.layers: has no value: write one, or remove the key"},
    {"empty_section", "model:\n\n\n",
     "a.yaml:6: model: has no value: write one, or remove the key"},
    {"key_twice", "model:\n  layers: 4\n  width: 256\n  layers: 5\n",
     "a.yaml:9: model.layers: given twice (first at line 7)"},
    {"section_twice", "run: {dir: x}\n", "a.yaml:6: run: given twice (first at line 1)"},
    {"alias", "model: {layers: &n 4, heads: *n}\n",
     "a.yaml:6: model.heads: aliases (*name) are not read: write the value out"},
    {"endless_alias", "model: &m {attention: *m}\n",
     "a.yaml:6: model.attention: aliases (*name) are not read: write the value out"},
    {"tag", "model: {layers: !!int 4}\n",
     "a.yaml:6: model.layers: YAML tags are not read: remove 'tag:yaml.org,2002:int'"},
    {"key_that_is_a_list", "model: {[a]: 4}\n", "a.yaml:6: model: a key is text, got a list"},
    {"second_document", "---\nmodel: {layers: 3}\n",
     "a.yaml:6: a second YAML document starts here: only one is read"},
    {"unclosed_list", "model: {layers: [1\n",
     "a.yaml:7: not valid YAML: end of sequence flow not found"},
    {"bad_indentation", "model:\n  layers: 3\n    width: 4\n",
     "a.yaml:8: not valid YAML: illegal map value"},
    {"tab", "model:\n\tlayers: 3\n",
     "a.yaml:7: not valid YAML: illegal map value (the line is indented by a tab: YAML takes "
     "spaces)"},
    {"control_characters", "model: {layers: \"a\\nb\\x07\"}\n",
     "a.yaml:6: model.layers: expects an integer, got 'a?b?'"},
    {"long_value",
     "model: {layers: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa}\n",
     "a.yaml:6: model.layers: expects an integer, got "
     "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa...'"},
    {"base_in_a_section", "model: {base: x.yaml}\n",
     "a.yaml:6: model.base: unknown key (known here: seq_len, vocab_size, vision, speech, layers, "
     "width, heads, "
     "kv_heads, head_dim, attention, norm, position, mlp, linear_bias, tied_embedding, dropout, "
     "stochastic_depth, layer_drop, layer_scale)"},
    {"missing_base", "base: no/such.yaml\n",
     "a.yaml:6: base: cannot read 'no/such.yaml': No such file or directory"},
    {"base_is_a_list", "base: [x.yaml]\n",
     "a.yaml:6: base: expects the path of a file, got a list"},
    {"base_is_itself", "base: a.yaml\n",
     "a.yaml:6: base: a config cannot inherit from itself: a.yaml -> a.yaml"},
};

INSTANTIATE_TEST_SUITE_P(Reader, BadFile, testing::ValuesIn(kBadFiles),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(Reader, RefusesListItemsThatAreNotText) {
  ConfigFiles files;
  files.write("a.yaml",
              "run: {name: x}\n"
              "data:\n"
              "  validation: data/lm\n"
              "  train:\n"
              "    - a\n"
              "    - [b]\n"
              "    -\n");
  EXPECT_EQ(files.error("a.yaml"),
            "a.yaml:3: data.validation: expects a list, as [a, b], got 'data/lm'\n"
            "a.yaml:4: data.train[2]: has no value: write one, or remove the key\n"
            "a.yaml:6: data.train[1]: expects text, got a list");
}

TEST(Reader, RefusesFilesThatAreNoConfig) {
  ConfigFiles files;
  EXPECT_EQ(files.error("none.yaml"), "cannot read 'none.yaml': No such file or directory");
  files.write("folder/a.yaml", kGood);
  EXPECT_EQ(files.error("folder"), "cannot read 'folder': it is a folder");
  files.write("base.yaml", "base: folder\n");
  EXPECT_EQ(files.error("base.yaml"), "base.yaml:1: base: cannot read 'folder': it is a folder");
  files.write("list.yaml", "# a list\n- a\n");
  EXPECT_EQ(files.error("list.yaml"),
            "list.yaml:2: expects keys and values at the top, got a list");
  files.write("text.yaml", "layers:4\n");
  EXPECT_EQ(files.error("text.yaml"),
            "text.yaml:1: expects keys and values at the top, got 'layers:4'");
  for (const char* nothing : {"", "# nothing\n", "---\n"}) {
    files.write("empty.yaml", nothing);
    EXPECT_EQ(
        files.error("empty.yaml"),
        "empty.yaml: run.name: must be given: it names the run's results\n"
        "empty.yaml: data.train: must list token shards, or folders of them\n"
        "empty.yaml: data.validation: must list token shards, or folders of them, to evaluate "
        "every 100 steps (eval.every)");
  }
  files.write("deep.yaml", std::string(100000, '['));
  EXPECT_NE(files.error("deep.yaml"), "");
}

TEST(Reader, ReportsEverythingAtOnceInTheOrderOfTheFiles) {
  ConfigFiles files;
  files.write("base.yaml",
              "run: {name: x}\n"
              "data: {train: [a], validation: [b]}\n"
              "optimizer:\n"
              "  beta1: 1.5\n"
              "  betta2: 0.9\n");
  files.write("a.yaml",
              "base: base.yaml\n"
              "train:\n"
              "  steps: 50\n"
              "  seed: abc\n"
              "model:\n"
              "  heads: 3\n"
              "  attention: {kind: softmx}\n"
              "  widht: 12\n"
              "schedule:\n"
              "  kind: cos\n");
  EXPECT_EQ(
      files.error("a.yaml", {"model.layers=x", "eval.every=-1", "log.often=1"}),
      "a.yaml:3: schedule.warmup_steps: 100 are more than train.steps, 50\n"
      "a.yaml:4: train.seed: expects a non-negative integer, got 'abc'\n"
      "a.yaml:7: model.attention.kind: expects one of sigmoid, softmax, got 'softmx' (did you "
      "mean 'softmax'?)\n"
      "a.yaml:8: model.widht: unknown key (did you mean 'width'?)\n"
      "a.yaml:10: schedule.kind: expects one of constant, linear, cosine, wsd, got 'cos'\n"
      "base.yaml:4: optimizer.beta1: must be in [0, 1), is 1.5\n"
      "base.yaml:5: optimizer.betta2: unknown key (did you mean 'beta2'?)\n"
      "--set model.layers=x: expects an integer, got 'x'\n"
      "--set eval.every=-1: must be at least 0, is -1\n"
      "--set log.often=1: unknown key (known here: every, diagnostics, tensorboard, peak_tflops)");
}

TEST(Reader, HoldsTheListOfProblems) {
  ConfigFiles files;
  files.write("a.yaml", std::string(kGood) + "model: {layers: a, heads: b}\n");
  try {
    files.read("a.yaml");
    FAIL();
  } catch (const UsageError& e) {
    EXPECT_EQ(dynamic_cast<const ConfigError&>(e).problems().size(), 2u);
  }
}

TEST(Reader, InheritsThroughAChainOfBases) {
  ConfigFiles files;
  files.write("shared/root.yaml",
              "run: {name: root, dir: out}\n"
              "data: {train: [a, b], validation: [c]}\n"
              "model: {layers: 2, width: 64, attention: {qk_norm: true, bias: -log(seq_len)}}\n");
  files.write("shared/middle.yaml",
              "base: root.yaml\n"
              "model: {layers: 3, attention: {scale: 2}}\n");
  files.write("leaf.yaml",
              "run: {name: leaf}\n"
              "data: {train: [d]}\n"
              "model: {attention: {bias: -3, scale: 1/sqrt(head_dim)}}\n"
              "base: shared/middle.yaml\n");
  const Config config = files.read("leaf.yaml");
  EXPECT_EQ(config.run.name, "leaf");
  EXPECT_EQ(config.run.dir, "out");
  EXPECT_THAT(config.data.train, ElementsAre("d"));
  EXPECT_THAT(config.data.validation, ElementsAre("c"));
  EXPECT_EQ(config.model.layers, 3);
  EXPECT_EQ(config.model.width, 64);
  EXPECT_TRUE(config.model.attention.qk_norm);
  EXPECT_FALSE(config.model.attention.bias.minus_log_seq_len);
  EXPECT_EQ(config.model.attention.bias.value, -3.0);
  EXPECT_FALSE(config.model.attention.scale.has_value());
}

TEST(Reader, BlamesTheFileThatHoldsTheValue) {
  ConfigFiles files;
  files.write("shared/root.yaml", std::string(kGood) + "model:\n  layers: x\n  width: y\n");
  files.write("leaf.yaml", "base: shared/root.yaml\nmodel: {width: 64}\n");
  EXPECT_EQ(files.error("leaf.yaml"),
            "shared/root.yaml:7: model.layers: expects an integer, got 'x'");
  files.write("softmax.yaml", "base: sigmoid.yaml\nmodel: {attention: {kind: softmax}}\n");
  files.write("sigmoid.yaml",
              std::string(kGood) + "model:\n  attention:\n    bias: -log(seq_len)\n");
  EXPECT_EQ(files.error("softmax.yaml"),
            "sigmoid.yaml:8: model.attention.bias: a constant bias cancels in softmax: remove it, "
            "or set it to 0 over the base's");
}

TEST(Reader, RefusesCyclesAndBrokenBases) {
  ConfigFiles files;
  files.write("a.yaml", "base: sub/b.yaml\n");
  files.write("sub/b.yaml", "base: c.yaml\n");
  files.write("sub/c.yaml", "\nbase: ../sub/../a.yaml\n");
  EXPECT_EQ(files.error("a.yaml"),
            "sub/c.yaml:2: base: a config cannot inherit from itself: a.yaml -> sub/b.yaml -> "
            "sub/c.yaml -> a.yaml");
  files.write("sub/c.yaml", "model: [\n");
  EXPECT_EQ(files.error("a.yaml"), "sub/c.yaml:2: not valid YAML: end of sequence flow not found");
}

TEST(Overrides, ReplaceInOrder) {
  ConfigFiles files;
  files.write("a.yaml", kGood);
  const Config config = files.read(
      "a.yaml", {"model.layers=7", "model.attention={bias: -2, window: 9}",
                 "model.attention.bias=-log(seq_len)", "data.train=[x, y/z]", "data.validation=[]",
                 "eval.every=0", "run.name=a=b", "run.dir=", "model.layers=8", "train.steps=1e3"});
  EXPECT_EQ(config.model.layers, 8);
  EXPECT_TRUE(config.model.attention.bias.minus_log_seq_len);
  EXPECT_EQ(config.model.attention.window, 9);
  EXPECT_THAT(config.data.train, ElementsAre("x", "y/z"));
  EXPECT_TRUE(config.data.validation.empty());
  EXPECT_EQ(config.run.name, "a=b");
  EXPECT_EQ(config.run.dir, "");
  EXPECT_EQ(config.train.steps, 1000);
}

TEST(Overrides, RepairWhatTheFileHasWrong) {
  ConfigFiles files;
  files.write("a.yaml", std::string(kGood) + "model: {layers: abc}\n");
  EXPECT_EQ(files.read("a.yaml", {"model.layers=3"}).model.layers, 3);
}

TEST(Overrides, AreNamedInTheirProblems) {
  ConfigFiles files;
  files.write("a.yaml", kGood);
  const std::vector<std::pair<std::string, std::string>> table = {
      {"model.layers=abc", "expects an integer, got 'abc'"},
      {"model.layers=", "expects an integer, got ''"},
      {"model.layers=~", "has no value: write one, or remove the key"},
      {"model.layers=# 3", "has no value: write one, or remove the key"},
      {"model.layers", "expects KEY=VALUE, as in model.layers=12"},
      {"", "expects KEY=VALUE, as in model.layers=12"},
      {"=3", "the key path has an empty part"},
      {"model..layers=3", "the key path has an empty part"},
      {"model.=3", "the key path has an empty part"},
      {"base=b.yaml", "a base can only be named in a file"},
      {"model.layrs=3", "unknown key (did you mean 'layers'?)"},
      {"layers=3", "unknown key (did you mean 'model.layers'?)"},
      {"modle.layers=3", "modle: unknown key (did you mean 'model'?)"},
      {"model=3", "expects keys and values, got '3'"},
      {"model.layers.deep=3", "model.layers: expects an integer, got a map"},
      {"model={layers: x}", "model.layers: expects an integer, got 'x'"},
      {"model={layers: 1, layers: 2}", "model.layers: given twice"},
      {"data.train=a", "expects a list, as [a, b], got 'a'"},
      {"data.train=[a, [b]]", "data.train[1]: expects text, got a list"},
      {"data.train=[a", "not valid YAML: end of sequence flow not found"},
      {"data.train=[a] b", "a second YAML document starts here: only one is read"},
      {"model.heads=3",
       "model.width: 256 is not a multiple of model.heads, 3 (model.head_dim would free the "
       "choice)"},
  };
  for (const auto& [text, message] : table) {
    EXPECT_EQ(files.error("a.yaml", {text}), "--set " + text + ": " + message);
  }
}

}  // namespace
}  // namespace sigtrain
