// Runs that are killed, damaged or changed, and resumed.
#include <random>

#include "small_run.h"

namespace sigtrain {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using Words = std::vector<std::string>;

class Resume : public SmallRun {
 protected:
  // Kills a run with a checkpoint at every step, again and again: at a random moment after some
  // progress, and every other time while a checkpoint is being written. The threads change too.
  void expect_killed_run_like_whole_one(const Words& variant) {
    const Words often = Words{"--set", "checkpoint.every=1"} + variant;
    train_well(often + Words{"--set", "run.name=whole"});

    const Words killed = Words{"--config", "small.yaml", "--resume", "auto"} + often +
                         Words{"--set", "run.name=killed"};
    std::mt19937 random(20);
    int kills = 0, during_writing = 0;
    for (int round = 0; round < 40; ++round) {
      const auto process = start("trainer", killed, 1 + round % 2);
      const auto lines = [&] { return metrics_lines("killed"); };
      const size_t enough = lines() + 2 + random() % 3;
      while (process->is_running() && lines() < enough) pause_for(0.5);
      if (round % 2 == 0) {
        pause_for(static_cast<double>(random() % 80) / 10.0);
      } else {
        while (process->is_running() && !is_writing("killed")) {
        }
      }
      process->send(SIGKILL);
      const ProcessResult result = process->wait();
      if (result.signal == SIGKILL) {
        ++kills;
        during_writing += is_writing("killed");
        continue;
      }
      ASSERT_EQ(result.exit_code, 0) << result.output();
      if (result.out.find("all 16 steps are done") != std::string::npos) break;
    }
    EXPECT_GE(kills, 4);
    EXPECT_GE(during_writing, 1);
    expect_same_run("whole", "killed", 16);
    EXPECT_FALSE(fs::exists(runs("killed.1"))) << "a resumed run started afresh";
  }

  // Without parsing: the last line may be half written.
  size_t metrics_lines(const std::string& run) const {
    const std::string text = slurp(runs(run) / "metrics.jsonl");
    return static_cast<size_t>(std::count(text.begin(), text.end(), '\n'));
  }
  bool is_writing(const std::string& run) const {
    std::error_code code;
    for (const auto& entry : fs::directory_iterator(runs(run) / "checkpoints", code)) {
      if (entry.path().filename().string().starts_with("incomplete_")) return true;
    }
    return false;
  }
  static void pause_for(double milliseconds) {
    std::this_thread::sleep_for(std::chrono::duration<double, std::milli>(milliseconds));
  }

  void expect_refused(const ProcessResult& result, const std::string& message) {
    EXPECT_EQ(result.exit_code, 1) << result.output();
    EXPECT_THAT(result.output(), HasSubstr(message));
  }
};

TEST_F(Resume, AKilledSigmoidRunIsLikeAWholeOne) { expect_killed_run_like_whole_one({}); }
TEST_F(Resume, AKilledSoftmaxRunIsLikeAWholeOne) { expect_killed_run_like_whole_one(kSoftmaxTwin); }

TEST_F(Resume, FromAPathBranchesOffWithoutTouchingTheOtherRun) {
  train_well({"--set", "run.name=whole"});
  const std::string from = checkpoint("whole", 8);
  const std::string before = slurp(runs("whole") / "metrics.jsonl");
  const Words branch = {"--set", "run.name=branch", "--resume", from};
  train_well(branch);
  EXPECT_TRUE(fs::exists(checkpoint("whole", 16)));
  EXPECT_EQ(slurp(runs("whole") / "metrics.jsonl"), before);
  auto expected = metrics("whole");
  std::erase_if(expected, [](const auto& line) { return line["step"] <= 8; });
  EXPECT_EQ(metrics("branch"), expected);

  // A second branch does not mix with the first, which is kept.
  train_well(branch);
  EXPECT_EQ(metrics("branch.1"), expected);
  EXPECT_EQ(metrics("branch"), expected);
}

TEST_F(Resume, FromAnEarlierStepSetsTheLaterOnesAside) {
  train_well({"--set", "run.name=a"});
  const auto whole = metrics("a");
  const ProcessResult result =
      train_well({"--set", "run.name=a", "--resume", checkpoint("a", 8).string()});
  EXPECT_THAT(result.out,
              AllOf(HasSubstr("resuming"), HasSubstr("at step 8"),
                    HasSubstr("abandoned_step_00000012"), Not(HasSubstr("another schedule"))));
  EXPECT_TRUE(fs::exists(runs("a") / "checkpoints/abandoned_step_00000016"));
  EXPECT_EQ(metrics("a"), whole);
}

TEST_F(Resume, AFinishedRunSaysSo) {
  train_well({});
  const auto whole = metrics("small");
  const ProcessResult result = train_well({"--resume", "auto"});
  EXPECT_THAT(result.out, HasSubstr("all 16 steps are done; a larger train.steps goes on"));
  EXPECT_EQ(metrics("small"), whole);

  // Nothing is trained, so the files are still those of the run that was.
  const std::string config = slurp(runs("small") / "config.yaml");
  const ProcessResult shorter = train_well({"--resume", "auto", "--set", "train.steps=12"});
  EXPECT_THAT(shorter.out,
              AllOf(HasSubstr("all 16 steps are done"), Not(HasSubstr("another schedule"))));
  EXPECT_EQ(slurp(runs("small") / "config.yaml"), config);
  EXPECT_EQ(metrics("small"), whole);
}

TEST_F(Resume, ALongerRunSaysThatItsScheduleIsAnother) {
  train_well({});
  const ProcessResult result =
      train_well({"--resume", "auto", "--set", "train.steps=20", "optimizer.learning_rate=0.002"});
  EXPECT_THAT(result.out,
              HasSubstr("from here on the learning rate follows another schedule: train.steps is "
                        "20, was 16; optimizer.learning_rate is 0.002, was "));
}

TEST_F(Resume, TheSpeedIsThatOfTheStepsDoneSince) {
  const Words quiet = {"--set", "eval.every=0", "--set", "checkpoint.every=0"};
  train_well(quiet + Words{"--set", "train.steps=200", "--set", "log.every=100"});
  train_well(quiet + Words{"--set", "train.steps=210", "--resume", "auto"});
  double first = 0.0, fastest = 0.0;
  for (const auto& line : metrics("small", true)) {
    if (line["split"] != "train" || line["step"] <= 200) continue;
    double& speed = line["step"] == 201 ? first : fastest;
    speed = std::max(speed, line["tokens_per_second"].get<double>());
  }
  ASSERT_GT(first, 0.0);
  // Counting the 200 steps from before would make it some 200 times too large.
  EXPECT_LT(first, 20.0 * fastest);
}

TEST_F(Resume, WithoutCheckpointStartsAfresh) {
  const ProcessResult result = train_well({"--resume", "auto"});
  EXPECT_THAT(result.out, HasSubstr("no checkpoint under runs/small: starting afresh"));
  EXPECT_EQ(metrics("small").size(), 16u + 4u);
}

TEST_F(Resume, ADamagedNewestCheckpointIsPassedOver) {
  train_well({"--set", "run.name=whole"});
  train_well({});
  const fs::path damaged = checkpoint("small", 16) / "model.safetensors";
  flip_byte(damaged);
  expect_refused(train({"--resume", "runs/small/checkpoints/step_00000016"}),
                 "runs/small/checkpoints/step_00000016/model.safetensors is altered");
  const ProcessResult result = train_well({"--resume", "auto"});
  EXPECT_THAT(result.out,
              AllOf(HasSubstr("passing over the checkpoint step_00000016"),
                    HasSubstr("step_00000016/model.safetensors is altered"),
                    HasSubstr("resuming runs/small/checkpoints/step_00000012 at step 12")));
  expect_same_run("whole", "small", 16);
}

TEST_F(Resume, EveryTruncatedFileIsRefusedByName) {
  train_well({"--set", "train.steps=4"});
  for (const char* file : {"model.safetensors", "optimizer.safetensors", "state.json",
                           "config.yaml", "MANIFEST.json"}) {
    const fs::path path = checkpoint("small", 4) / file;
    const std::string bytes = slurp(path);
    spill(path, bytes.substr(0, bytes.size() - 3));
    expect_refused(train({"--resume", "runs/small/checkpoints/step_00000004"}),
                   std::string("step_00000004/") + file);
    spill(path, bytes);
  }
}

TEST_F(Resume, FromWhatIsNoCheckpointSaysWhichOneIs) {
  train_well({"--set", "train.steps=4"});
  const std::string meant = "(did you mean runs/small/checkpoints/step_00000004?)";
  expect_refused(train({"--resume", "runs/small/checkpoints/step_00000005"}),
                 "there is no checkpoint folder runs/small/checkpoints/step_00000005 " + meant);
  for (const std::string folder : {"runs/small", "runs/small/checkpoints"}) {
    expect_refused(train({"--resume", folder}),
                   folder + " is not a complete checkpoint: it has no MANIFEST.json " + meant);
  }
  expect_refused(train({"--resume", "nowhere"}),
                 "there is no checkpoint folder nowhere; --resume auto takes the newest");
  fs::remove(checkpoint("small", 4) / "state.json");
  expect_refused(train({"--resume", checkpoint("small", 4)}), "it has no state.json");
}

// Nor is what lies in the run's own folder moved aside for a start that fails.
TEST_F(Resume, FromAnotherTaskOrModelTouchesNothing) {
  train_well({"--set", "run.name=other"});
  train_well({});
  const auto before = files();
  spill(folder() / "images.yaml", R"(task: image_classification
run: {name: small}
model:
  seq_len: 0
  vision: {image_size: 8, patch_size: 4, classes: 3}
  attention: {causal: false}
  position: {kind: learned}
data: {source: synthetic}
eval: {every: 0}
)");
  expect_refused(run("trainer", {"--config", "images.yaml", "--resume", "auto"}),
                 "is of a run of task language_modeling, this config's task is "
                 "image_classification; to go on with it, use its own config");
  fs::remove(folder() / "images.yaml");
  expect_refused(train({"--resume", checkpoint("other", 16), "--set", "model.width=64"}),
                 "model.width 32, this config says 64; to go on with it, set it back");
  expect_refused(train({"--resume", "auto", "--set", "optimizer.ema_decay=0", "train.steps=18"}),
                 "with averaged weights (optimizer.ema_decay 0.9), this config says 0");
  EXPECT_EQ(files(), before);
}

TEST_F(Resume, WithEveryCheckpointDamagedStops) {
  train_well({"--set", "checkpoint.keep=2"});
  for (const int step : {12, 16}) flip_byte(checkpoint("small", step) / "optimizer.safetensors");
  const auto before = files();
  for (const Words& arguments : {Words{"--resume", "auto"}, Words{"--eval-only"}}) {
    const ProcessResult result = train(arguments);
    expect_refused(result, "none of the 2 checkpoints under runs/small/checkpoints is intact");
    EXPECT_THAT(result.output(), HasSubstr("step_00000016/optimizer.safetensors is altered"));
  }
  EXPECT_EQ(files(), before);
}

TEST_F(Resume, WithAnotherModelSeedOrVocabularyIsRefused) {
  train_well({"--set", "model.vocab_size=300"});
  const auto refused = [&](const Words& changes, const std::string& message) {
    SCOPED_TRACE(changes.back());
    expect_refused(train(Words{"--set", "model.vocab_size=300", "--set", "data.tokenizer=''",
                               "--resume", "auto"} +
                         changes),
                   message);
  };
  refused(kSoftmaxTwin, "model.attention.kind sigmoid, this config says softmax");
  refused({"--set", "model.layers=3"}, "model.layers 2, this config says 3");
  refused({"--set", "model.dropout=0"}, "model.dropout 0.1, this config says 0");
  refused({"--set", "model.vocab_size=301"}, "model.vocab_size 300, this config says 301");
  refused({"--set", "train.seed=9"}, "train.seed 1, this config says 9");
  const ProcessResult made = run("tokenize", {"text.txt", "--output", "other", "--train-bpe", "300",
                                              "--validation-fraction", "0.2"});
  ASSERT_EQ(made.exit_code, 0) << made.output();
  refused({"--set", "data.train=[other/train]", "--set", "data.validation=[other/validation]"},
          "the shards of data.train have");
  refused({"--eval-only", "--set", "data.train=[other/train]", "--set",
           "data.validation=[other/validation]"},
          "the shards of data.train have");
  // None of the refusals moved anything: the run still goes on.
  EXPECT_TRUE(fs::exists(checkpoint("small", 16)));
  train_well({"--set", "model.vocab_size=300", "--set", "train.steps=18", "--resume", "auto"});
  EXPECT_EQ(metrics("small").back()["step"], 18);
}

}  // namespace
}  // namespace sigtrain
