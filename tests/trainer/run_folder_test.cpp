// What a run leaves in its folder and on standard output.
#include <fmt/format.h>

#include <cmath>
#include <regex>

#include "small_run.h"

namespace sigtrain {
namespace {

using nlohmann::ordered_json;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::MatchesRegex;
using Words = std::vector<std::string>;

class RunFolder : public SmallRun {
 protected:
  static std::vector<std::string> keys(const ordered_json& line) {
    std::vector<std::string> keys;
    for (const auto& [key, value] : line.items()) keys.push_back(key);
    return keys;
  }
  static ordered_json last_validation(const std::vector<ordered_json>& lines) {
    for (size_t i = lines.size(); i-- > 0;) {
      if (lines[i]["split"] == "validation") return lines[i];
    }
    ADD_FAILURE() << "no validation line";
    return {};
  }
};

TEST_F(RunFolder, HoldsMetricsOfEveryLoggedStep) {
  train_well({"--set", "log.every=4", "--set", "train.steps=15"});
  std::vector<std::pair<int64_t, std::string>> seen;
  for (const auto& line : metrics("small", true)) {
    seen.emplace_back(line["step"], line["split"]);
    for (const auto& [key, value] : line.items()) {
      if (key == "split") continue;
      for (const auto& number : value.is_array() ? value : ordered_json::array({value})) {
        EXPECT_TRUE(number.is_number()) << line;
      }
    }
    if (line["split"] == "validation") {
      EXPECT_THAT(keys(line), ElementsAre("step", "split", "loss", "accuracy", "targets",
                                          "loss_ema", "accuracy_ema", "seconds", "tokens"));
      EXPECT_EQ(line["targets"], 6 * 32);
      continue;
    }
    EXPECT_THAT(
        keys(line),
        ElementsAre("step", "split", "loss", "accuracy", "lr", "grad_norm", "tokens_per_second",
                    "tflops", "seconds", "tokens", "skipped_steps", "attention_out_rms",
                    "attention_branch_rms", "attention_row_sum", "layer_grad_norm"));
    EXPECT_EQ(line["attention_out_rms"].size(), 2u) << "one a layer";
    EXPECT_EQ(line["layer_grad_norm"].size(), 4u) << "embedding, layers, head";
    double squares = 0.0;
    for (const double norm : line["layer_grad_norm"]) squares += norm * norm;
    EXPECT_NEAR(std::sqrt(squares), line["grad_norm"].get<double>(), 1e-5);
    EXPECT_EQ(line["tokens"], line["step"].get<int64_t>() * 4 * 32);
    EXPECT_GT(line["tokens_per_second"], 0.0);
  }
  // Every fourth step, the first, the last and those that are evaluated.
  using Seen = std::pair<int64_t, std::string>;
  EXPECT_THAT(
      seen, ElementsAre(Seen(1, "train"), Seen(4, "train"), Seen(5, "train"), Seen(5, "validation"),
                        Seen(8, "train"), Seen(10, "train"), Seen(10, "validation"),
                        Seen(12, "train"), Seen(15, "train"), Seen(15, "validation")));
}

TEST_F(RunFolder, SoftmaxRowsSumToOne) {
  train_well(kSoftmaxTwin + Words{"--set", "train.steps=4"});
  for (const double sum : metrics("small").front()["attention_row_sum"]) EXPECT_NEAR(sum, 1, 1e-5);
}

TEST_F(RunFolder, LearnsSomething) {
  train_well({});
  const auto lines = metrics("small");
  EXPECT_NEAR(lines.front()["loss"].get<double>(), std::log(257.0), 1.0);
  EXPECT_LT(last_validation(lines)["loss"].get<double>(), 4.3);
}

TEST_F(RunFolder, HoldsTheResolvedConfigTheLogAndTensorBoardEvents) {
  const ProcessResult result = train_well({"--set", "train.steps=6"});
  EXPECT_THAT(slurp(runs("small") / "config.yaml"),
              AllOf(HasSubstr("steps: 6"), HasSubstr("bias: -log(seq_len)")));
  const std::string line =
      ".*step 5/6  loss [0-9.]+  val [0-9.]+  lr [0-9.e-]+  grad [0-9.]+  [0-9.]+[kM]? tok/s  "
      "ETA [0-9]+[.][0-9]s\n.*";
  EXPECT_THAT(result.out, MatchesRegex(line));
  EXPECT_EQ(result.out.find('\r'), std::string::npos) << "a live line in a file";
  EXPECT_EQ(result.err, "");
  EXPECT_THAT(slurp(runs("small") / "train.log"), MatchesRegex(line));
  EXPECT_THAT(result.out, HasSubstr("checkpoint runs/small/checkpoints/step_00000006"));

  size_t event_bytes = 0;
  for (const auto& entry : fs::directory_iterator(runs("small"))) {
    if (entry.path().filename().string().starts_with("events.out.tfevents.")) {
      event_bytes += entry.file_size();
      EXPECT_THAT(slurp(entry.path()), AllOf(HasSubstr("train/loss"), HasSubstr("validation/loss"),
                                             HasSubstr("train/attention_out_rms/01")));
    }
  }
  EXPECT_GT(event_bytes, 100u);
  train_well({"--set", "run.name=plain", "--set", "log.tensorboard=false", "--set",
              "log.diagnostics=false", "--set", "train.steps=2"});
  for (const auto& entry : fs::directory_iterator(runs("plain"))) {
    EXPECT_FALSE(entry.path().filename().string().starts_with("events")) << entry.path();
  }
  EXPECT_FALSE(metrics("plain").front().contains("attention_out_rms"));
}

TEST_F(RunFolder, KeepsTheLastCheckpoints) {
  train_well({"--set", "checkpoint.every=3", "--set", "checkpoint.keep=2"});
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(runs("small") / "checkpoints")) {
    names.push_back(entry.path().filename());
  }
  std::sort(names.begin(), names.end());
  EXPECT_THAT(names, ElementsAre("step_00000015", "step_00000016"));
}

TEST_F(RunFolder, OfAnEarlierRunIsMovedAside) {
  const Words brief = {"--set", "train.steps=2"};
  train_well(brief);
  const std::string first = slurp(runs("small") / "metrics.jsonl");
  const ProcessResult second = train_well(brief);
  EXPECT_THAT(second.out, HasSubstr("an earlier run in runs/small was moved to runs/small.1"));
  EXPECT_EQ(slurp(runs("small.1") / "metrics.jsonl"), first);
  EXPECT_TRUE(fs::exists(runs("small.1") / "checkpoints/step_00000002/model.safetensors"));
  train_well(brief);
  EXPECT_EQ(slurp(runs("small.1") / "metrics.jsonl"), first);
  EXPECT_EQ(metrics("small.2"), metrics("small"));
}

TEST_F(RunFolder, MayBeChosen) {
  train_well({"--set", "run.dir=elsewhere/deep", "--set", "train.steps=2"});
  EXPECT_TRUE(fs::exists(folder() / "elsewhere/deep/checkpoints/step_00000002"));
  EXPECT_FALSE(fs::exists(folder() / "runs"));
}

TEST_F(RunFolder, EvalOnlyGivesTheLastValidationLosses) {
  train_well({});
  const ordered_json last = last_validation(metrics("small"));
  const auto before = files();
  for (const Words& from : {Words{}, Words{"--resume", "auto"},
                            Words{"--resume", "runs/small/checkpoints/step_00000016"}}) {
    const ProcessResult result = train_well(Words{"--eval-only"} + from, 2);
    EXPECT_THAT(result.out,
                AllOf(HasSubstr(fmt::format("step_00000016: validation loss {:.5f}",
                                            last["loss"].get<double>())),
                      HasSubstr(fmt::format("(averaged weights): validation loss {:.5f}",
                                            last["loss_ema"].get<double>())),
                      HasSubstr("over 192 targets")));
  }
  EXPECT_EQ(files(), before);
  EXPECT_NE(last["loss"], last["loss_ema"]);
}

TEST_F(RunFolder, SyntheticDataNeedNoFiles) {
  fs::remove_all(folder() / "tokens");
  const Words synthetic = {"--set", "data.source=synthetic", "--set", "model.vocab_size=100",
                           "--set", "data.train=[]",         "--set", "data.validation=[]"};
  train_well(synthetic);
  const auto lines = metrics("small");
  EXPECT_EQ(lines.size(), 16u) << "no validation";
  // Uniform tokens cannot be learnt: the loss stays about log(100).
  EXPECT_NEAR(lines.back()["loss"].get<double>(), std::log(100.0), 0.6);
  const ProcessResult result = train(synthetic + Words{"--eval-only"});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.output(), HasSubstr("there is no validation data"));
}

TEST_F(RunFolder, ValidationDataMayBeAbsent) {
  train_well({"--set", "data.validation=[]", "--set", "eval.every=0"});
  EXPECT_EQ(metrics("small").size(), 16u);
}

}  // namespace
}  // namespace sigtrain
