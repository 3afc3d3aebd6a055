// Text from checkpoints.
#include <set>

#include "data/utf8.h"
#include "small_run.h"

namespace sigtrain {
namespace {

using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;
using Words = std::vector<std::string>;

class Generate : public SmallRun {
 protected:
  Generate() { train_well({"--set", "train.steps=8"}); }

  // What it prints, less the line end; anything but the text itself is an error.
  std::string sample(const Words& options, const std::string& from = "runs/small",
                     const std::string& prompt = "The fox") {
    const ProcessResult result =
        run("generate", Words{from, "--tokens", "60", "--prompt", prompt} + options);
    EXPECT_EQ(result.exit_code, 0) << result.output();
    EXPECT_EQ(result.err, "");
    EXPECT_THAT(result.out, testing::EndsWith("\n"));
    return result.out.substr(0, result.out.size() - 1);
  }
};

TEST_F(Generate, IsAFunctionOfTheSeed) {
  const std::string text = sample({"--seed", "3"});
  EXPECT_EQ(sample({"--seed", "3"}), text);
  EXPECT_NE(sample({"--seed", "4"}), text);
  EXPECT_THAT(text, StartsWith("The fox"));
  EXPECT_GT(text.size(), 20u);
}

TEST_F(Generate, TemperatureZeroIsTheMostLikelyText) {
  const std::string text = sample({"--temperature", "0", "--seed", "1"});
  EXPECT_EQ(sample({"--temperature", "0", "--seed", "2"}), text);
  EXPECT_EQ(sample({"--top-k", "1", "--seed", "5"}), text);
  EXPECT_EQ(sample({"--top-p", "0", "--seed", "6"}), text);
}

TEST_F(Generate, ReadsARunOrACheckpoint) {
  const std::string text = sample({});
  EXPECT_EQ(sample({}, "runs/small/checkpoints/step_00000008"), text);
  EXPECT_NE(sample({}, "runs/small/checkpoints/step_00000004"), text);
  EXPECT_NE(sample({"--average", "--temperature", "2"}), sample({"--temperature", "2"}));
}

TEST_F(Generate, SaysThatARunKeptNoAverages) {
  train_well({"--set", "run.name=plain", "optimizer.ema_decay=0", "train.steps=2"});
  const ProcessResult result = run("generate", {"runs/plain", "--average"});
  EXPECT_EQ(result.exit_code, 1) << result.output();
  EXPECT_THAT(result.output(), HasSubstr("step_00000002 has no averaged weights: its run had "
                                         "optimizer.ema_decay 0"));
}

TEST_F(Generate, PassesOverADamagedCheckpoint) {
  const std::string before = sample({}, "runs/small/checkpoints/step_00000004");
  flip_byte(checkpoint("small", 8) / "model.safetensors");
  const ProcessResult result =
      run("generate", {"runs/small", "--tokens", "60", "--prompt", "The fox"});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_THAT(result.output(), HasSubstr("step_00000008/model.safetensors is altered"));
  EXPECT_THAT(result.out, HasSubstr(before));
}

TEST_F(Generate, PrintsWholeCharacters) {
  // A model that has hardly learnt, at a high temperature, samples bytes of every kind.
  std::set<std::string> texts;
  for (const char* seed : {"1", "2", "3", "4", "5"}) {
    const std::string text = sample({"--temperature", "5", "--top-p", "1", "--seed", seed},
                                    "runs/small", "gr\xC3\xBCn ");
    EXPECT_FALSE(find_invalid_utf8(text).has_value()) << text;
    EXPECT_THAT(text, StartsWith("gr\xC3\xBCn "));
    texts.insert(text);
  }
  EXPECT_EQ(texts.size(), 5u);
}

TEST_F(Generate, TakesPromptsOfAnyLength) {
  std::string prompt;
  for (int i = 0; i < 30; ++i) prompt += "The fox says: ";
  EXPECT_THAT(sample({}, "runs/small", prompt), StartsWith(prompt));
  EXPECT_EQ(sample({}, "runs/small", ""), sample({}, "runs/small", ""));
}

TEST_F(Generate, RefusesWhatDoesNotFit) {
  const auto refused = [&](const Words& arguments, int exit_code, const std::string& message) {
    const ProcessResult result = run("generate", arguments);
    EXPECT_EQ(result.exit_code, exit_code) << result.output();
    EXPECT_THAT(result.err, HasSubstr(message));
    EXPECT_EQ(result.out, "");
  };
  refused({"nowhere"}, 1, "nowhere");
  refused({"runs/small", "--tokenizer", "words"}, 2, "unknown tokenizer 'words'");
  refused({"runs/small", "--tokenizer", "no.model"}, 2,
          "there is no tokenizer no.model: say with --tokenizer FILE.model where it is now");
  const ProcessResult made = run("tokenize", {"text.txt", "--output", "other", "--train-bpe", "320",
                                              "--validation-fraction", "0.2"});
  ASSERT_EQ(made.exit_code, 0) << made.output();
  refused({"runs/small", "--tokenizer", "other/tokenizer.model"}, 2,
          "has 320 tokens, the model 257: it was trained with another one");
  // As many tokens as the model has, but others.
  train_well(
      {"--set", "model.vocab_size=320", "--set", "train.steps=4", "--set", "run.name=of_bytes"});
  refused({"runs/of_bytes", "--tokenizer", "other/tokenizer.model"}, 2,
          "the model was trained with");
  for (const int step : {4, 8}) flip_byte(checkpoint("small", step) / "state.json");
  const ProcessResult result = run("generate", {"runs/small"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.output(), HasSubstr("none of the 2 checkpoints"));
}

TEST_F(Generate, NeedsATokenizer) {
  train_well({"--set", "data.tokenizer=''", "--set", "train.steps=4", "--set", "run.name=bare"});
  const ProcessResult result = run("generate", {"runs/bare"});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, HasSubstr("give one with --tokenizer bytes|FILE.model"));
  EXPECT_EQ(sample({"--tokenizer", "bytes", "--temperature", "0"}, "runs/bare"),
            sample({"--tokenizer", "bytes", "--temperature", "0"}, "runs/bare"));
}

}  // namespace
}  // namespace sigtrain
