// Whole language models on the GPU: their gradients against the CPU's, and the same bits every
// time.
#include "config/enum_names.h"
#include "models/small_lm.h"
#include "needs_gpu.h"
#include "whole_model.h"

namespace sigtrain {
namespace {

constexpr int64_t batch = 2;
constexpr uint64_t seed = 11;

using CpuLm = SmallLm<float>;
using GpuLm = SmallLm<float, CudaOps>;

struct ModelCase {
  std::string name;
  ModelConfig model;
  LossConfig loss = {};
};

/// Every norm structure, attention and kind of position that is learned or not; what else can be
/// set takes turns.
std::vector<ModelCase> all_cases() {
  std::vector<ModelCase> cases;
  for (const auto& structure : kEnumNames<NormStructure>) {
    for (const auto& kind : kEnumNames<AttentionKind>) {
      for (const PositionKind position :
           {PositionKind::rope, PositionKind::alibi, PositionKind::learned}) {
        const size_t n = cases.size();
        ModelConfig model;
        model.seq_len = 96;
        model.vocab_size = 203;
        model.layers = 3;
        model.width = 128;
        model.heads = 4;
        model.kv_heads = n % 2 == 0 ? 2 : 4;
        model.norm.structure = structure.value;
        model.norm.kind = n % 5 == 4 ? NormKind::layernorm : NormKind::rmsnorm;
        model.position.kind = position;
        model.mlp = {n % 3 == 1 ? MlpKind::gelu : MlpKind::swiglu, 192};
        model.attention.kind = kind.value;
        model.attention.qk_norm = n % 4 != 3;
        if (kind.value == AttentionKind::sigmoid) model.attention.bias.minus_log_seq_len = true;
        model.tied_embedding = n % 2 == 0;
        model.linear_bias = n % 4 == 1;
        model.layer_scale = n % 3 == 2 ? 0.5 : 0.0;
        model.dropout = n % 7 == 6 ? 0.1 : 0.0;
        model.stochastic_depth = n % 6 == 5 ? 0.2 : 0.0;
        cases.push_back({std::string(structure.name) + "_" + std::string(kind.name) + "_" +
                             std::string(enum_name(position)),
                         model});
      }
    }
  }
  // A loss with everything, in two chunks of rows and a part: enough of each that the gradients
  // without it are not those of the CPU.
  cases.push_back({"every_loss_option", cases.front().model, {0.2, 0.03, 80}});
  return cases;
}

double counted(const TokenRows& rows) { return static_cast<double>(rows.targets.size()); }

class GpuModels : public NeedsGpu, public ::testing::WithParamInterface<ModelCase> {
 protected:
  TokenRows tokens() const {
    RandomValues random(5);
    return random_tokens(random, GetParam().model, batch);
  }
};

TEST_P(GpuModels, GradientsAreTheCpus) {
  TokenRows rows = tokens();
  CpuLm cpu(GetParam().model, batch, GetParam().loss, seed);
  GpuLm gpu(GetParam().model, batch, GetParam().loss, seed);
  cpu.zero_gradients();
  gpu.zero_gradients();
  const std::vector<double> cpu_sums = cpu.train(rows, 0, batch, counted(rows));
  const std::vector<double> gpu_sums = gpu.train(rows, 0, batch, counted(rows));
  for (const int slot : {int{loss_sum_objective}, int{loss_sum_nll}})
    EXPECT_NEAR(gpu_sums[slot] / cpu_sums[slot], 1.0, 0.005) << "slot " << slot;
  EXPECT_EQ(gpu_sums[loss_sum_count], cpu_sums[loss_sum_count]);
  expect_gradients_of_cpu(cpu, gpu);
}

TEST_P(GpuModels, GiveTheSameBitsTwiceAndWithRecomputation) {
  TokenRows rows = tokens();
  expect_same_bits_with_recomputation(
      [](Recompute recompute) {
        return GpuLm(GetParam().model, batch, GetParam().loss, seed, recompute);
      },
      [&](GpuLm& lm) { return lm.train(rows, 0, batch, counted(rows)); });
}

INSTANTIATE_TEST_SUITE_P(, GpuModels, ::testing::ValuesIn(all_cases()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace sigtrain
