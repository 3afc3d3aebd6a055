// Training runs on the GPU, by the trainer itself: against the CPU's, killed and resumed,
// recomputed and replayed from a CUDA graph.
#include "needs_gpu.h"
#include "trainer_testing.h"

namespace sigtrain {
namespace {

class GpuTraining : public NeedsGpu {
 protected:
  void SetUp() override {
    NeedsGpu::SetUp();
    if (!IsSkipped()) write_learnable_text(folder_ / "data");
  }

  std::filesystem::path run_folder(const std::string& name) const { return folder_ / name; }

  /// The arguments of a run of configs/CONFIG.yaml on the text, whose results go to
  /// run_folder(name).
  std::string arguments(const std::string& name, const std::string& config,
                        const std::vector<std::string>& settings) const {
    std::string text = "--config " SIGTRAIN_SOURCE_DIR "/configs/" + config + ".yaml";
    std::vector<std::string> all = {
        "run.dir=" + run_folder(name).string(),
        "data.tokenizer=bytes",
        "data.train=[" + (folder_ / "data/train").string() + "]",
        "data.validation=[" + (folder_ / "data/validation").string() + "]",
        "eval.every=0",
        "eval.sequences=8",
        "log.tensorboard=false"};
    all.insert(all.end(), settings.begin(), settings.end());
    for (const std::string& setting : all) text += " --set '" + setting + "'";
    return text;
  }

  void train(const std::string& name, const std::string& config,
             const std::vector<std::string>& settings, const std::string& device = "cuda") const {
    const ProgramResult result =
        run_trainer(arguments(name, config, settings) + " --device " + device);
    ASSERT_EQ(result.exit_code, 0) << result.output;
  }

  std::string final_weights(const std::string& name, int64_t step) const {
    return slurp(run_folder(name) / "checkpoints" / fmt::format("step_{:08d}", step) /
                 "model.safetensors");
  }

  void expect_same_run(const std::string& a, const std::string& b, int64_t last_step) const {
    EXPECT_EQ(training_curve(run_folder(a)), training_curve(run_folder(b))) << a << ", " << b;
    EXPECT_EQ(training_curve(run_folder(a), "grad_norm"),
              training_curve(run_folder(b), "grad_norm"))
        << a << ", " << b;
    ASSERT_FALSE(final_weights(a, last_step).empty());
    EXPECT_TRUE(final_weights(a, last_step) == final_weights(b, last_step)) << a << ", " << b;
  }

 private:
  TemporaryFolder folder_;
};

// Everything that is drawn at random, and more than one micro-batch in a step.
const std::vector<std::string> noisy = {"model.dropout=0.1",       "model.stochastic_depth=0.1",
                                        "train.global_batch=8",    "train.micro_batch=4",
                                        "optimizer.ema_decay=0.9", "schedule.warmup_steps=10"};

std::vector<std::string> with(std::vector<std::string> settings,
                              const std::vector<std::string>& more) {
  settings.insert(settings.end(), more.begin(), more.end());
  return settings;
}

// Measured on real text too, this project's own pages and sources in bytes (650 kB, November 2026,
// the same settings): in the worst window the GPU is off by 0.90% with sigmoid and 0.07% with
// softmax. A second fp32 run on the CPU whose weights were rounded to bfloat16 once, behind step
// 10, is off by 0.62% and 0.07%: that is how much the models amplify a rounding on that text, not
// what the GPU adds. The text here amplifies little, so that the bound tells a mistake from a
// rounding.
TEST_F(GpuTraining, FollowsTheCpusLossCurve) {
  constexpr int64_t steps = 200, window = 10;
  const std::vector<std::string> settings = {"train.steps=200", "log.every=1",
                                             "log.diagnostics=false", "checkpoint.every=0"};
  for (const std::string kind : {"sigmoid", "softmax"}) {
    train("cpu_" + kind, "lm_tiny_" + kind, settings, "cpu");
    train("gpu_" + kind, "lm_tiny_" + kind, settings);
    const auto cpu = training_curve(run_folder("cpu_" + kind));
    const auto gpu = training_curve(run_folder("gpu_" + kind));
    ASSERT_EQ(cpu.size(), static_cast<size_t>(steps));
    ASSERT_EQ(gpu.size(), static_cast<size_t>(steps));
    for (int64_t begin = 1; begin <= steps; begin += window) {
      double cpu_mean = 0.0, gpu_mean = 0.0;
      for (int64_t step = begin; step < begin + window; ++step) {
        cpu_mean += cpu.at(step) / window;
        gpu_mean += gpu.at(step) / window;
      }
      EXPECT_NEAR(gpu_mean, cpu_mean, 0.01 * cpu_mean) << kind << " from step " << begin;
    }
    EXPECT_LT(cpu.at(steps), 0.5 * cpu.at(1)) << "there was something to learn";
  }
}

TEST_F(GpuTraining, AKilledRunGoesOnToTheSameBits) {
  const std::vector<std::string> settings =
      with(noisy, {"train.steps=300", "log.every=1", "checkpoint.every=10", "checkpoint.keep=2"});
  train("whole", "lm_tiny_sigmoid", settings);
  const std::string metrics = (run_folder("killed") / "metrics.jsonl").string();
  const std::string trainer = SIGTRAIN_BINARY_DIR "/trainer ";
  const std::string call = arguments("killed", "lm_tiny_sigmoid", settings) + " --device cuda";
  const std::string script =
      trainer + call + " >/dev/null 2>&1 & pid=$!; while kill -0 $pid 2>/dev/null && [ \"$(cat '" +
      metrics + "' 2>/dev/null | wc -l)\" -lt 25 ]; do sleep 0.02; done; kill -9 $pid; wait $pid";
  // 137: ended by signal 9, not by itself.
  ASSERT_EQ(WEXITSTATUS(std::system(script.c_str())), 137);
  const ProgramResult resumed = run_trainer(call + " --resume auto");
  ASSERT_EQ(resumed.exit_code, 0) << resumed.output;
  EXPECT_NE(resumed.output.find("resuming"), std::string::npos) << resumed.output;
  expect_same_run("whole", "killed", 300);
}

TEST_F(GpuTraining, RecomputationGivesTheSameLosses) {
  for (const std::string config : {"lm_tiny_sigmoid", "lm_tiny_softmax"}) {
    const std::vector<std::string> settings =
        with(noisy, {"train.steps=20", "log.every=1", "checkpoint.every=0"});
    train(config, config, settings);
    for (const std::string recompute : {"norms_and_activations", "block"}) {
      train(config + recompute, config, with(settings, {"train.recompute=" + recompute}));
      expect_same_run(config, config + recompute, 20);
    }
  }
}

TEST_F(GpuTraining, ACudaGraphGivesTheSameLosses) {
  // Logged steps with diagnostics are not replayed; without them, all but the first are.
  for (const std::vector<std::string>& logging :
       {std::vector<std::string>{"log.every=5", "log.diagnostics=true"},
        std::vector<std::string>{"log.every=1", "log.diagnostics=false"}}) {
    for (const std::string recompute : {"none", "block"}) {
      const std::vector<std::string> settings =
          with(with(noisy, logging), {"train.steps=32", "train.recompute=" + recompute,
                                      "checkpoint.every=10", "eval.every=8"});
      const std::string name = logging[0] + recompute;
      train(name, "lm_tiny_sigmoid", settings);
      train(name + "graph", "lm_tiny_sigmoid", with(settings, {"train.cuda_graph=true"}));
      expect_same_run(name, name + "graph", 32);
      const auto losses = [&](const std::string& run) {
        std::map<int64_t, double> by_step;
        for (const auto& [step, record] : metrics_of(run_folder(run), "validation"))
          by_step[step] = record.at("loss").get<double>();
        return by_step;
      };
      EXPECT_EQ(losses(name).size(), 4u);
      EXPECT_EQ(losses(name), losses(name + "graph"));
    }
  }
}

// On Hopper their backward pass is two kernels, of which the second begins before the first has
// ended.
TEST_F(GpuTraining, WideHeadsGiveTheSameLossesFromACudaGraph) {
  const std::vector<std::string> settings =
      with(noisy, {"model.width=384", "model.heads=2", "train.steps=12", "log.every=1",
                   "log.diagnostics=false", "checkpoint.every=6"});
  for (const std::string config : {"lm_tiny_sigmoid", "lm_tiny_softmax"}) {
    train(config + "_eager", config, settings);
    train(config + "_graph", config, with(settings, {"train.cuda_graph=true"}));
    expect_same_run(config + "_eager", config + "_graph", 12);
  }
}

TEST_F(GpuTraining, TellsSpeedAndMemory) {
  const std::string call = arguments(
      "told", "lm_tiny_sigmoid",
      {"train.steps=4", "schedule.warmup_steps=1", "log.every=2", "log.peak_tflops=1000"});
  const ProgramResult result = run_trainer(call + " --device cuda");
  ASSERT_EQ(result.exit_code, 0) << result.output;
  EXPECT_NE(result.output.find(" TFLOP/s"), std::string::npos) << result.output;
  EXPECT_NE(result.output.find("% MFU"), std::string::npos) << result.output;
  EXPECT_NE(result.output.find("on the device in use"), std::string::npos) << result.output;
  for (const auto& [step, record] : metrics_of(run_folder("told"))) {
    EXPECT_GT(record.at("tflops").get<double>(), 0.0);
    EXPECT_NEAR(record.at("mfu").get<double>(), record.at("tflops").get<double>() / 1000, 1e-9);
  }
}

TEST_F(GpuTraining, ImagesGiveTheSameBitsFromAGraphAndWithRecomputation) {
  const std::vector<std::string> settings = {
      "data.source=synthetic",   "data.train=[]",         "data.validation=[]",
      "data.tokenizer=''",       "eval.every=0",          "eval.sequences=0",
      "train.steps=12",          "train.global_batch=64", "train.micro_batch=32",
      "schedule.warmup_steps=4", "log.every=4",           "log.diagnostics=false",
      "checkpoint.every=6"};
  const std::string config = "vit_cifar10_sigmoid";
  train("graph", config, settings);
  train("eager", config, with(settings, {"train.cuda_graph=false"}));
  train("block", config, with(settings, {"train.recompute=block"}));
  expect_same_run("graph", "eager", 12);
  expect_same_run("graph", "block", 12);
  std::filesystem::remove_all(run_folder("eager") / "checkpoints" / "step_00000012");
  const ProgramResult resumed =
      run_trainer(arguments("eager", config, settings) + " --device cuda --resume auto");
  ASSERT_EQ(resumed.exit_code, 0) << resumed.output;
  expect_same_run("graph", "eager", 12);
}

}  // namespace
}  // namespace sigtrain
