// What a model tells of its gradients and weights while it computes: ranks act on it at once.
#include <gtest/gtest.h>

#include <set>

#include "nn/parameter_exchange.h"
#include "small_lm.h"

namespace sigtrain {
namespace {

/// Keeps what the gradients were when they were said to be complete.
class Recorder final : public ParameterExchange {
 public:
  Recorder(Ops& ops, const ParameterStore& parameters) : ops_(ops), parameters_(parameters) {}

  void before_use(const Parameter& parameter) override { used_.insert(parameter.name); }
  void gradients_complete(int group) override {
    const int64_t begin = parameters_.table().group_range(group).first;
    EXPECT_LE(begin, complete_from_) << "told out of order";
    const auto gradients = host_values(ops_, parameters_.gradients());
    if (complete_.empty()) complete_.resize(gradients.size());
    std::copy(gradients.begin() + begin, gradients.begin() + complete_from_,
              complete_.begin() + begin);
    complete_from_ = begin;
    ++calls_;
  }

  int calls() const { return calls_; }
  int64_t complete_from() const { return complete_from_; }
  const std::vector<double>& complete() const { return complete_; }
  const std::set<std::string>& used() const { return used_; }

 private:
  Ops& ops_;
  const ParameterStore& parameters_;
  std::set<std::string> used_;
  std::vector<double> complete_;
  int64_t complete_from_ = parameters_.table().flat_size();
  int calls_ = 0;
};

class Exchange : public testing::TestWithParam<std::tuple<NormStructure, Recompute, bool>> {};

TEST_P(Exchange, GradientsAreFinalWhenToldAndWeightsAskedFor) {
  const auto [structure, recompute, tied] = GetParam();
  ModelConfig model;
  model.vocab_size = 19, model.seq_len = 8, model.width = 16, model.heads = 2, model.layers = 3;
  model.mlp.hidden = 32;
  model.norm.structure = structure;
  model.tied_embedding = tied;
  model.layer_scale = 0.5;
  model.position.kind = PositionKind::learned;
  model.attention.learned_bias = model.attention.qk_norm = model.linear_bias = true;
  SmallLm<double> lm(model, 2, {}, 1, recompute);
  RandomValues random(3);
  TokenRows rows = random_tokens(random, model, 2);
  Recorder recorder(lm.ops(), lm.parameters());
  lm.set_exchange(&recorder);
  lm.train(rows, 0, 2, 16.0);

  EXPECT_EQ(recorder.calls(), 4) << "the head and three blocks";
  EXPECT_EQ(recorder.complete_from(), lm.table().group_range(1).first);
  const auto last = host_values(lm.ops(), lm.parameters().gradients());
  for (auto i = static_cast<size_t>(recorder.complete_from()); i < last.size(); ++i)
    ASSERT_EQ(recorder.complete()[i], last[i]) << "element " << i << " was not complete";
  for (const Parameter& parameter : lm.table().parameters())
    EXPECT_TRUE(recorder.used().contains(parameter.name)) << parameter.name;
}

INSTANTIATE_TEST_SUITE_P(OfEveryStructure, Exchange,
                         testing::Combine(testing::Values(NormStructure::pre, NormStructure::post,
                                                          NormStructure::hybrid),
                                          testing::Values(Recompute::none,
                                                          Recompute::norms_and_activations,
                                                          Recompute::block),
                                          testing::Bool()));

}  // namespace
}  // namespace sigtrain
