// Planning for a GPU that is not here gives the plan that one that is here would give.
#include "config/reader.h"
#include "needs_gpu.h"
#include "ops/backend.h"
#include "ops/planning_ops.h"
#include "tasks/language_modeling.h"
#include "train/memory_plan.h"

namespace sigtrain {
namespace {

class GpuPlanning : public NeedsGpu {};

TEST_F(GpuPlanning, WithoutTheGpuDiffersInTheWorkspaceAlone) {
  const Config config = read_config(SIGTRAIN_SOURCE_DIR "/configs/lm_1b_sigmoid.yaml", {});
  const auto plan_for = [&](const Ops& backend) {
    LanguageModeling task(config);
    PlanningOps planning(backend);
    task.prepare(planning);
    return plan_run(config, task, backend, true);
  };
  const CudaOps gpu;
  const std::unique_ptr<Ops> stand_in = make_stand_in_for_cuda();
  const MemoryPlan with = plan_for(gpu), without = plan_for(*stand_in);
  EXPECT_EQ(stand_in->is_synchronous(), gpu.is_synchronous());
  EXPECT_EQ(without.device, with.device);
  EXPECT_EQ(without.parameters(), with.parameters());
  EXPECT_EQ(without.batches, with.batches);
  EXPECT_EQ(without.arena, with.arena);
  EXPECT_EQ(without.arena_by_purpose, with.arena_by_purpose);
  EXPECT_EQ(without.flops_per_unit, with.flops_per_unit);
  EXPECT_FALSE(without.workspace);
  ASSERT_TRUE(with.workspace);
  EXPECT_GT(*with.workspace, 0u);
}

}  // namespace
}  // namespace sigtrain
