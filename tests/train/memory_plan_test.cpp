// The plan of the 1B models: what recomputation saves is what it no longer keeps.
#include "train/memory_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config/derived.h"
#include "config/reader.h"
#include "ops/cpu/cpu_ops.h"
#include "ops/planning_ops.h"
#include "tasks/language_modeling.h"

namespace sigtrain {
namespace {

Config config_of(const std::string& name, Recompute recompute) {
  Config config = read_config(SIGTRAIN_SOURCE_DIR "/configs/" + name + ".yaml", {});
  config.train.recompute = recompute;
  return config;
}

MemoryPlan plan_of(const std::string& name, Recompute recompute) {
  const Config config = config_of(name, recompute);
  const CpuOps<float> backend;
  LanguageModeling task(config);
  PlanningOps planning(backend);
  task.prepare(planning);
  return plan_run(config, task, backend, true);
}

size_t activations(const MemoryPlan& plan) {
  return plan.arena_by_purpose[static_cast<size_t>(Purpose::activation)];
}

class RecomputePlan : public ::testing::TestWithParam<const char*> {};

TEST_P(RecomputePlan, SavesWhatItDoesNotKeep) {
  const Config config = config_of(GetParam(), Recompute::none);
  const ModelConfig& model = config.model;
  const bool hybrid = model.norm.structure == NormStructure::hybrid;
  // Bytes of an activation of one column, of the stream's width and of the MLP's hidden size.
  const size_t column =
      static_cast<size_t>(config.train.micro_batch * model.seq_len) * sizeof(float);
  const size_t width = column * static_cast<size_t>(model.width);
  const size_t hidden = column * static_cast<size_t>(mlp_hidden(model));
  const auto layers = static_cast<size_t>(model.layers);
  // Two sums of the stream, two norms' outputs, qkv, q and k normed, the attention output; with
  // hybrid norm, the outputs of attention and MLP. The first block's first sum is the embedding.
  const size_t block = (2 + 2 + 3 + 2 + 1 + (hybrid ? 2 : 0)) * width + 3 * hidden;
  // The embedding, the final norm's sum and its output.
  const size_t around = 3 * width;

  const MemoryPlan kept = plan_of(GetParam(), Recompute::none);
  EXPECT_EQ(activations(kept), layers * block - width + around);

  const MemoryPlan norms = plan_of(GetParam(), Recompute::norms_and_activations);
  EXPECT_EQ(activations(kept) - activations(norms), layers * (2 * width + hidden));
  EXPECT_LT(norms.arena, kept.arena - layers * (2 * width + hidden) + 2 * width + 2 * hidden);

  // Behind each block its residual and its branch, and all of the one whose backward runs: the last
  // one's, whose first norm adds a branch to the stream.
  const MemoryPlan blocks = plan_of(GetParam(), Recompute::block);
  EXPECT_EQ(activations(blocks), layers * 2 * width + block + around);
  EXPECT_LT(blocks.arena, kept.arena / 3);

  // They are the same model with the same work.
  for (const MemoryPlan& plan : {norms, blocks}) {
    EXPECT_EQ(plan.parameters(), kept.parameters());
    EXPECT_EQ(plan.flops_per_unit, kept.flops_per_unit);
  }
}

INSTANTIATE_TEST_SUITE_P(, RecomputePlan, ::testing::Values("lm_1b_sigmoid", "lm_1b_softmax"),
                         [](const auto& info) { return std::string(info.param); });

TEST(MemoryPlan, SaysWhatIsRecomputed) {
  const Config config = config_of("lm_1b_sigmoid", Recompute::block);
  const CpuOps<float> backend;
  LanguageModeling task(config);
  PlanningOps planning(backend);
  task.prepare(planning);
  EXPECT_THAT(describe_plan(plan_run(config, task, backend, true), config, task),
              testing::ContainsRegex("recomputed in backward +block\n"));
}

}  // namespace
}  // namespace sigtrain
