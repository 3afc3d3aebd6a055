// The same seed gives the same bits, whatever the number of threads.
#include <cmath>

#include "small_run.h"

namespace sigtrain {
namespace {

using Words = std::vector<std::string>;

class Determinism : public SmallRun {
 protected:
  void expect_same_for_all_thread_counts(const Words& variant) {
    const auto named = [&](const char* name) {
      return variant + Words{"--set", std::string("run.name=") + name};
    };
    train_well(named("one"), 1);
    train_well(named("two"), 2);
    train_well(named("again"), 1);
    expect_same_run("one", "two", 16);
    expect_same_run("one", "again", 16);
  }
};

TEST_F(Determinism, OfSigmoidRuns) { expect_same_for_all_thread_counts({}); }
TEST_F(Determinism, OfSoftmaxRuns) { expect_same_for_all_thread_counts(kSoftmaxTwin); }

TEST_F(Determinism, AnotherSeedIsAnotherRun) {
  train_well({});
  train_well({"--set", "train.seed=2", "--set", "run.name=other"});
  EXPECT_NE(metrics("small").front()["loss"], metrics("other").front()["loss"]);
}

TEST_F(Determinism, TheResolvedConfigGivesTheSameRun) {
  train_well({"--set", "optimizer.weight_decay=0.012345678901234567", "--set", "train.steps=8"});
  const ProcessResult result =
      run("trainer", {"--config", "runs/small/config.yaml", "--set", "run.name=second"});
  ASSERT_EQ(result.exit_code, 0) << result.output();
  expect_same_run("small", "second", 8);
}

TEST_F(Determinism, AccumulatedGradientsAreThoseOfTheWholeBatch) {
  const Words plain = {"--set", "model.dropout=0", "--set", "model.stochastic_depth=0"};
  train_well(plain + Words{"--set", "train.micro_batch=4", "--set", "run.name=whole"});
  for (const char* micro_batch : {"1", "2"}) {
    const std::string name = std::string("parts_of_") + micro_batch;
    train_well(plain + Words{"--set", std::string("train.micro_batch=") + micro_batch, "--set",
                             "run.name=" + name});
    const auto whole = metrics("whole"), parts = metrics(name);
    for (const char* key : {"loss", "grad_norm"}) {
      const double expected = whole.front()[key];
      EXPECT_NEAR(parts.front()[key].get<double>(), expected, 2e-6 * expected) << key;
    }
    EXPECT_NEAR(parts.back()["loss"].get<double>(), whole.back()["loss"].get<double>(), 1e-3);
  }
}

}  // namespace
}  // namespace sigtrain
