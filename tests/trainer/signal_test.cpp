// Ctrl-C and SIGTERM: the run ends in good order and says how to go on.
#include <regex>

#include "small_run.h"

namespace sigtrain {
namespace {

using testing::HasSubstr;
using Words = std::vector<std::string>;

class Signals : public SmallRun {
 protected:
  static void wait_until(Process& process, const std::string& text) {
    while (process.is_running() && process.out().find(text) == std::string::npos) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }

  // Stops a run in its course, then follows the advice that it prints.
  void expect_stops_and_goes_on(int signal, const std::string& signal_name,
                                const std::string& run_name) {
    const Words longer = {"--set", "train.steps=60", "--set", "checkpoint.every=0"};
    train_well(longer + Words{"--set", "run.name=whole"});

    const auto process = start("trainer", Words{"--config", "small.yaml"} + longer +
                                              Words{"--set", "run.name=" + run_name});
    wait_until(*process, "step 3/60");
    process->send(signal);
    const ProcessResult stopped = process->wait();
    ASSERT_EQ(stopped.exit_code, 0) << stopped.output();
    std::smatch match;
    ASSERT_TRUE(std::regex_search(
        stopped.out, match, std::regex("stopped by (\\w+) after step (\\d+); to go on: (.*)\n")))
        << stopped.out;
    EXPECT_EQ(match[1], signal_name);
    const int64_t step = std::stoll(match[2]);
    EXPECT_GE(step, 3);
    ASSERT_LT(step, 60);
    EXPECT_TRUE(fs::exists(checkpoint(run_name, step))) << "step " << step;
    EXPECT_EQ(metrics(run_name).back()["step"], step);

    Process resumed({"/bin/sh", "-c", match[3]}, folder(), {{"OMP_NUM_THREADS", "1"}});
    const ProcessResult finished = resumed.wait();
    ASSERT_EQ(finished.exit_code, 0) << finished.output();
    EXPECT_THAT(finished.out, HasSubstr("at step " + std::to_string(step)));
    expect_same_run("whole", run_name, 60);
  }
};

TEST_F(Signals, TerminateEndsInGoodOrder) { expect_stops_and_goes_on(SIGTERM, "SIGTERM", "ended"); }

TEST_F(Signals, InterruptEndsInGoodOrder) {
  expect_stops_and_goes_on(SIGINT, "SIGINT", "Kim's 2nd run");
}

TEST_F(Signals, ASecondInterruptEndsAtOnce) {
  train_well({"--set", "train.steps=4"});
  // The next step takes longer than anyone waits.
  const auto process =
      start("trainer",
            {"--config", "small.yaml", "--resume", "auto", "--set", "train.global_batch=400000",
             "--set", "train.micro_batch=1", "--set", "data.prefetch=1", "--set", "train.steps=8"});
  wait_until(*process, "at step 4");
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  process->send(SIGINT);
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  EXPECT_TRUE(process->is_running()) << "the first one waits for the step";
  process->send(SIGINT);
  EXPECT_EQ(process->wait().signal, SIGINT);
  train_well({"--resume", "auto"});
  EXPECT_EQ(metrics("small").back()["step"], 16);
}

}  // namespace
}  // namespace sigtrain
