// Steps whose gradient is not finite: skipped, counted, and in the end the reason to stop.
#include "small_run.h"

namespace sigtrain {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using Words = std::vector<std::string>;

class NonFinite : public SmallRun {
 protected:
  // The first step throws the weights to where nothing is finite any more.
  const Words diverging_ = {
      "--set", "optimizer.learning_rate=1e30", "--set", "optimizer.clip_norm=0",
      "--set", "checkpoint.every=1",           "--set", "run.name=diverging"};
};

TEST_F(NonFinite, StopsAfterTheStepsAllowedInARow) {
  const ProcessResult result =
      train(diverging_ + Words{"--set", "train.max_bad_steps=5", "--set", "eval.every=0"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.output(),
              AllOf(HasSubstr("step 2: the gradient is not finite"),
                    HasSubstr("the step is skipped, 1 in a row, 1 in all"),
                    HasSubstr("5 steps in a row had a loss or gradient that is not finite "
                              "(train.max_bad_steps)"),
                    HasSubstr("the checkpoint of step 1 is intact"),
                    HasSubstr("Lower optimizer.learning_rate")));
  const auto lines = metrics("diverging");
  ASSERT_EQ(lines.size(), 5u);
  for (size_t i = 0; i < lines.size(); ++i) {
    EXPECT_EQ(lines[i]["skipped_steps"], i) << lines[i];
    EXPECT_EQ(lines[i]["grad_norm"].is_null(), i > 0) << lines[i];
  }
}

TEST_F(NonFinite, LeavesTheCheckpointsFromBeforeTheTrouble) {
  train(diverging_ + Words{"--set", "train.max_bad_steps=8", "--set", "checkpoint.keep=2"});
  EXPECT_TRUE(fs::exists(checkpoint("diverging", 1)));
  EXPECT_FALSE(fs::exists(checkpoint("diverging", 2))) << "it would hold the weights of step 1";
  const ProcessResult result = train_well({"--eval-only", "--set", "run.name=diverging"});
  EXPECT_THAT(result.out, HasSubstr("validation loss"));
}

TEST_F(NonFinite, TheCountGoesOnAfterAResume) {
  const Words patient =
      diverging_ + Words{"--set", "train.steps=100000", "--set", "train.max_bad_steps=100000",
                         "--set", "eval.every=0"};
  const auto process = start("trainer", Words{"--config", "small.yaml"} + patient);
  while (process->is_running() && process->out().find("7 in a row") == std::string::npos) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  process->send(SIGTERM);
  const ProcessResult stopped = process->wait();
  ASSERT_EQ(stopped.exit_code, 0) << stopped.output();
  const int64_t skipped = metrics("diverging").back()["skipped_steps"];
  EXPECT_GE(skipped, 7);

  const ProcessResult resumed =
      train(patient + Words{"--set", "train.max_bad_steps=" + std::to_string(skipped + 3),
                            "--resume", "auto"});
  EXPECT_EQ(resumed.exit_code, 1);
  EXPECT_THAT(resumed.output(), HasSubstr(std::to_string(skipped + 3) + " steps in a row"));
  EXPECT_EQ(metrics("diverging").back()["skipped_steps"], skipped + 2);
}

}  // namespace
}  // namespace sigtrain
