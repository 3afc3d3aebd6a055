// What the trainer tells, and settings that must not change a run, on the CPU.
#include <gmock/gmock.h>

#include "trainer_testing.h"

namespace sigtrain {
namespace {

using testing::HasSubstr;
using testing::Not;

class TrainerRuns : public ::testing::Test {
 protected:
  void SetUp() override { write_learnable_text(folder_ / "data"); }

  /// A short run of a model that takes no time.
  std::string train(const std::string& name, const std::string& settings) const {
    const ProgramResult result = run_trainer(
        "--config " SIGTRAIN_SOURCE_DIR
        "/configs/lm_tiny_sigmoid.yaml --device cpu --set run.dir=" +
        (folder_ / name).string() + " --set 'data.train=[" + (folder_ / "data/train").string() +
        "]' --set 'data.validation=[" + (folder_ / "data/validation").string() +
        "]' --set model.seq_len=32 --set model.width=64 --set model.heads=2 --set model.layers=2"
        " --set data.tokenizer=bytes --set train.global_batch=4 --set train.micro_batch=2 --set "
        "train.steps=6"
        " --set schedule.warmup_steps=2 --set eval.sequences=4 --set checkpoint.every=0"
        " --set model.dropout=0.1 --set log.every=2 --set log.tensorboard=false " +
        settings);
    EXPECT_EQ(result.exit_code, 0) << result.output;
    return result.output;
  }
  std::filesystem::path run_folder(const std::string& name) const { return folder_ / name; }

 private:
  TemporaryFolder folder_;
};

TEST_F(TrainerRuns, AreTheSameWithRecomputation) {
  train("kept", "");
  const auto kept = training_curve(run_folder("kept"));
  EXPECT_EQ(kept.size(), 4u);
  for (const std::string recompute : {"norms_and_activations", "block"}) {
    train(recompute, "--set train.recompute=" + recompute);
    EXPECT_EQ(training_curve(run_folder(recompute)), kept) << recompute;
  }
}

TEST_F(TrainerRuns, SayThatTheCpuHasNoGraph) {
  EXPECT_THAT(train("none", ""), Not(HasSubstr("cuda_graph")));
  EXPECT_THAT(train("graph", "--set train.cuda_graph=true"),
              HasSubstr("train.cuda_graph has no effect on the cpu backend"));
  EXPECT_EQ(training_curve(run_folder("graph")), training_curve(run_folder("none")));
}

TEST_F(TrainerRuns, TellTheirSpeed) {
  EXPECT_THAT(train("unknown", ""), Not(HasSubstr("TFLOP/s")));
  for (const auto& [step, record] : metrics_of(run_folder("unknown"))) {
    EXPECT_GT(record.at("tflops").get<double>(), 0.0);
    EXPECT_FALSE(record.contains("mfu"));
  }
  const std::string told = train("known", "--set log.peak_tflops=2");
  EXPECT_THAT(told, HasSubstr(" TFLOP/s  "));
  EXPECT_THAT(told, HasSubstr("% MFU"));
  for (const auto& [step, record] : metrics_of(run_folder("known")))
    EXPECT_NEAR(record.at("mfu").get<double>(), record.at("tflops").get<double>() / 2, 1e-12);
}

}  // namespace
}  // namespace sigtrain
