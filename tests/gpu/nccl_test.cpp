// Exchanges between GPUs through NCCL: of one rank everywhere, of two where there are two GPUs.
#if defined(SIGTRAIN_HAS_NCCL)
#include <gmock/gmock.h>

#include "dist/nccl_communicator.h"
#include "needs_gpu.h"
#include "ops/cuda/cuda_ops.h"
#include "ops/host_values.h"
#include "trainer_testing.h"

namespace sigtrain {
namespace {

class Nccl : public NeedsGpu {
 protected:
  void SetUp() override {
    NeedsGpu::SetUp();
    if (!IsSkipped()) write_learnable_text(folder_ / "data");
  }

  std::filesystem::path run_folder(const std::string& name) const { return folder_ / name; }

  /// A run of the tiny model, in which everything is on that ranks have a part in.
  std::string arguments(const std::string& name, const std::vector<std::string>& settings) const {
    std::string text =
        "--config " SIGTRAIN_SOURCE_DIR "/configs/lm_tiny_sigmoid.yaml --device cuda";
    std::vector<std::string> all = {
        "run.dir=" + run_folder(name).string(),
        "data.tokenizer=bytes",
        "data.train=[" + (folder_ / "data/train").string() + "]",
        "data.validation=[" + (folder_ / "data/validation").string() + "]",
        "model.dropout=0.1",
        "optimizer.ema_decay=0.9",
        "train.steps=12",
        "train.global_batch=8",
        "train.micro_batch=2",
        "train.bucket_bytes=500000",
        "schedule.warmup_steps=4",
        "eval.every=6",
        "eval.sequences=8",
        "checkpoint.every=6",
        "log.every=1",
        "log.tensorboard=false"};
    all.insert(all.end(), settings.begin(), settings.end());
    for (const std::string& setting : all) text += " --set '" + setting + "'";
    return text;
  }
  void train_alone(const std::string& name, const std::vector<std::string>& settings) const {
    const ProgramResult result = run_trainer(arguments(name, settings));
    ASSERT_EQ(result.exit_code, 0) << result.output;
  }
  void train_ranks(int ranks, const std::string& name,
                   const std::vector<std::string>& settings) const {
    const ProgramResult result = run_ranks(ranks, arguments(name, settings));
    ASSERT_EQ(result.exit_code, 0) << result.output;
  }
  void expect_same_run(const std::string& a, const std::string& b) const {
    for (const char* split : {"train", "validation"}) {
      const auto ours = metrics_of(run_folder(a), split), theirs = metrics_of(run_folder(b), split);
      ASSERT_EQ(ours.size(), theirs.size());
      ASSERT_FALSE(ours.empty());
      for (const auto& [step, record] : ours)
        EXPECT_EQ(record.at("loss"), theirs.at(step).at("loss")) << b << " step " << step;
    }
    for (const char* file : {"model.safetensors", "optimizer.safetensors"}) {
      const auto bytes = [&](const std::string& run) {
        return slurp(run_folder(run) / "checkpoints/step_00000012" / file);
      };
      ASSERT_FALSE(bytes(a).empty());
      EXPECT_TRUE(bytes(a) == bytes(b)) << b << " " << file;
    }
  }

 private:
  TemporaryFolder folder_;
};

TEST_F(Nccl, OneRankGetsBackWhatItGave) {
  CudaOps ops;
  SingleProcess alone;
  NcclCommunicator communicator(alone, ops);
  const DeviceMemory memory = ops.allocate(1024 * sizeof(float));
  const Tensor x{memory.get(), DType::f32, {1024}};
  std::vector<double> values(1024);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<double>(i);
  set_host_values(ops, x, values);
  Ticket last = 0;
  for (int turn = 0; turn < 3; ++turn) {
    communicator.measure();
    for (const Ticket ticket : {communicator.all_reduce(x), communicator.reduce_scatter(x),
                                communicator.all_gather(x), communicator.broadcast(x)}) {
      EXPECT_GT(ticket, last);
      last = ticket;
    }
    communicator.wait(last);
    communicator.wait(last - 1);  // over already
    EXPECT_EQ(host_values(ops, x), values);
    const ExchangeTimes times = communicator.measured();
    EXPECT_GT(times.exchanging, 0.0);
    EXPECT_GE(times.waited, 0.0);
  }
  // What is under way counts where it is waited for, if at all.
  communicator.measure();
  last = communicator.all_gather(x);
  EXPECT_EQ(communicator.measured().exchanging, 0.0);
  communicator.measure();
  communicator.wait(last);
  EXPECT_GT(communicator.measured().exchanging, 0.0);
  last = communicator.all_gather(x);
  communicator.wait(last);
  communicator.measure();
  EXPECT_EQ(communicator.measured().exchanging, 0.0);
}

TEST_F(Nccl, OneRankTrainsToTheSameBits) {
  if (std::string(SIGTRAIN_MPIEXEC).empty()) GTEST_SKIP() << "there is no mpirun";
  train_alone("alone", {});
  train_ranks(1, "one", {});
  expect_same_run("alone", "one");
  train_ranks(1, "graph", {"train.cuda_graph=true", "log.diagnostics=false"});
  expect_same_run("alone", "graph");
}

TEST_F(Nccl, OneRankWithShardsTrainsToTheSameBits) {
  if (std::string(SIGTRAIN_MPIEXEC).empty()) GTEST_SKIP() << "there is no mpirun";
  // Shards add up the norm's squares in another order; without clipping it changes nothing.
  train_alone("alone", {"optimizer.clip_norm=0"});
  train_ranks(1, "one", {"optimizer.clip_norm=0", "optimizer.shard=true"});
  expect_same_run("alone", "one");
  train_ranks(1, "graph",
              {"optimizer.clip_norm=0", "optimizer.shard=true", "train.cuda_graph=true",
               "log.diagnostics=false"});
  expect_same_run("alone", "graph");
}

TEST_F(Nccl, TwoRanksFollowOne) {
  if (std::string(SIGTRAIN_MPIEXEC).empty()) GTEST_SKIP() << "there is no mpirun";
  if (CudaOps::count() < 2) GTEST_SKIP() << "there is one GPU";
  train_alone("alone", {});
  const auto alone = training_curve(run_folder("alone"));
  const auto alone_norms = training_curve(run_folder("alone"), "grad_norm");
  for (const std::string shard : {"false", "true"}) {
    for (const std::string graph : {"false", "true"}) {
      const std::string name = "two" + shard + graph;
      train_ranks(
          2, name,
          {"optimizer.shard=" + shard, "train.cuda_graph=" + graph, "log.diagnostics=false"});
      const auto two = training_curve(run_folder(name));
      ASSERT_EQ(two.size(), alone.size());
      // The first step has the same micro-batches and weights, whose losses and gradients are fp32
      // sums in another order: of four micro-batches, and of the squares of 2.2M elements.
      const double alone_norm = alone_norms.at(1);
      EXPECT_NEAR(two.at(1), alone.at(1), 1e-6 * alone.at(1)) << name;
      EXPECT_NEAR(training_curve(run_folder(name), "grad_norm").at(1), alone_norm,
                  1e-5 * alone_norm)
          << name;
      // A weight that so differs in its last bit may be rounded to the other bfloat16 neighbour,
      // 2^-8 of it away, and the model amplifies that: as between GPU and CPU in training_test.
      for (const auto& [step, loss] : alone)
        EXPECT_NEAR(two.at(step), loss, 0.01 * loss) << name << " step " << step;
    }
  }
}

TEST_F(Nccl, MoreRanksThanGpusAreRefused) {
  if (std::string(SIGTRAIN_MPIEXEC).empty()) GTEST_SKIP() << "there is no mpirun";
  const int ranks = CudaOps::count() + 1;
  const ProgramResult result = run_command(
      "OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_ALLOW_RUN_AS_ROOT=1 "
      "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 " SIGTRAIN_MPIEXEC " -np " +
      std::to_string(ranks) + " " SIGTRAIN_BINARY_DIR "/trainer " +
      arguments("many", {"train.global_batch=" + std::to_string(2 * ranks)}));
  EXPECT_EQ(result.exit_code, 2) << result.output;
  EXPECT_THAT(result.output, testing::AnyOf(testing::HasSubstr("have the same GPU"),
                                            testing::HasSubstr("as many processes as GPUs")));
}

}  // namespace
}  // namespace sigtrain
#endif
