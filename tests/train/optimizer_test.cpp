// Which parameters are updated how, and that the optimizer walks all of them.
#include "train/optimizer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/philox.h"
#include "models/decoder_lm.h"
#include "ops/cpu/cpu_ops.h"
#include "ops/host_values.h"

namespace sigtrain {
namespace {

// One parameter of each kind.
struct Model {
  Model() {
    table.begin_group("embedding");
    embedding = table.add("embedding.weight", {5, 3}, ParameterKind::embedding, {0.0, 1.0});
    table.begin_group("layer");
    linear = table.add("linear.weight", {7, 3}, ParameterKind::linear_weight, {0.0, 1.0});
    bias = table.add("linear.bias", {7}, ParameterKind::bias, {0.5, 0.0});
    norm = table.add("norm.weight", {3}, ParameterKind::norm_weight, {1.0, 0.0});
    gamma = table.add("scale.gamma", {3}, ParameterKind::layer_scale, {0.1, 0.0});
  }
  ParameterTable table;
  ParameterId embedding, linear, bias, norm, gamma;
};

// The settings that apply to a parameter; a failure unless exactly one range covers all of it.
AdamWDesc desc_of(const std::vector<OptimizerRange>& ranges, const Parameter& parameter) {
  const int64_t begin = parameter.offset, end = begin + parameter.shape.numel();
  AdamWDesc desc;
  int covering = 0;
  for (const OptimizerRange& range : ranges) {
    if (range.end <= begin || range.begin >= end) continue;
    EXPECT_TRUE(range.begin <= begin && range.end >= end) << parameter.name << " is cut";
    desc = range.desc;
    ++covering;
  }
  EXPECT_EQ(covering, 1) << parameter.name;
  return desc;
}

OptimizerConfig plain_config() {
  OptimizerConfig config;
  config.weight_decay = 0.25;
  return config;
}

TEST(OptimizerRanges, NormsBiasesAndLayerScaleDoNotDecayByDefault) {
  const Model model;
  const auto ranges = optimizer_ranges(model.table, plain_config(), 64);
  EXPECT_EQ(desc_of(ranges, model.table[model.embedding]).weight_decay, 0.25);
  EXPECT_EQ(desc_of(ranges, model.table[model.linear]).weight_decay, 0.25);
  for (const ParameterId id : {model.bias, model.norm, model.gamma}) {
    EXPECT_EQ(desc_of(ranges, model.table[id]).weight_decay, 0.0) << model.table[id].name;
  }
}

TEST(OptimizerRanges, EverythingDecaysWhereAskedTo) {
  const Model model;
  OptimizerConfig config = plain_config();
  config.decay_norms_and_biases = true;
  for (const Parameter& parameter : model.table.parameters()) {
    EXPECT_EQ(desc_of(optimizer_ranges(model.table, config, 64), parameter).weight_decay, 0.25);
  }
}

// The last group learns at the full rate, each one in front of it at layer_decay of the next.
TEST(OptimizerRanges, RatesFallTowardsTheFirstLayer) {
  ParameterTable table;
  for (const char* name : {"embedding", "layers.0", "layers.1", "head"}) {
    table.begin_group(name);
    table.add(std::string(name) + ".weight", {3, 3}, ParameterKind::linear_weight, {});
    table.add(std::string(name) + ".bias", {3}, ParameterKind::bias, {});
  }
  OptimizerConfig config = plain_config();
  config.layer_decay = 0.5;
  const auto ranges = optimizer_ranges(table, config, 64);
  for (const Parameter& parameter : table.parameters()) {
    EXPECT_EQ(desc_of(ranges, parameter).rate_scale, std::pow(0.5, 3 - parameter.group))
        << parameter.name;
  }
  config.layer_decay = 1.0;
  for (const OptimizerRange& range : optimizer_ranges(table, config, 64))
    EXPECT_EQ(range.desc.rate_scale, 1.0);
}

TEST(OptimizerRanges, FrozenParametersNeitherMoveNorDecay) {
  ParameterTable table;
  table.begin_group("embedding");
  table.set_frozen(true);
  const ParameterId frozen = table.add("a.weight", {2, 2}, ParameterKind::linear_weight, {});
  table.set_frozen(false);
  const ParameterId free = table.add("b.weight", {2, 2}, ParameterKind::linear_weight, {});
  const auto ranges = optimizer_ranges(table, plain_config(), 64);
  EXPECT_EQ(desc_of(ranges, table[frozen]).rate_scale, 0.0);
  EXPECT_EQ(desc_of(ranges, table[frozen]).weight_decay, 0.0);
  EXPECT_EQ(desc_of(ranges, table[free]).rate_scale, 1.0);
  EXPECT_EQ(desc_of(ranges, table[free]).weight_decay, 0.25);
}

TEST(OptimizerRanges, MupSimpleScalesLinearWeightsAlone) {
  const Model model;
  OptimizerConfig config = plain_config();
  config.rate_scale = RateScale::mup_simple;
  const struct {
    int64_t width;
    double scale;
  } cases[] = {{256, 1.0}, {768, 1.0}, {2048, 0.375}, {4096, 0.1875}};
  for (const auto& c : cases) {
    const auto ranges = optimizer_ranges(model.table, config, c.width);
    for (const Parameter& parameter : model.table.parameters()) {
      const bool is_linear = parameter.kind == ParameterKind::linear_weight;
      EXPECT_EQ(desc_of(ranges, parameter).rate_scale, is_linear ? c.scale : 1.0)
          << parameter.name << " at width " << c.width;
    }
  }
  config.rate_scale = RateScale::none;
  EXPECT_EQ(
      desc_of(optimizer_ranges(model.table, config, 4096), model.table[model.linear]).rate_scale,
      1.0);
}

TEST(OptimizerRanges, CarryTheRestOfTheConfig) {
  const Model model;
  OptimizerConfig config = plain_config();
  config.beta1 = 0.8, config.beta2 = 0.7, config.eps = 1e-3;
  config.decay_mode = DecayMode::decoupled;
  for (const OptimizerRange& range : optimizer_ranges(model.table, config, 64)) {
    EXPECT_EQ(range.desc.beta1, 0.8);
    EXPECT_EQ(range.desc.beta2, 0.7);
    EXPECT_EQ(range.desc.eps, 1e-3);
    EXPECT_EQ(range.desc.decay_mode, DecayMode::decoupled);
  }
}

TEST(OptimizerRanges, CoverAModelWithoutGapsOrOverlaps) {
  for (const bool mup : {false, true}) {
    ParameterTable table;
    ModelConfig config;
    config.vocab_size = 11, config.width = 24, config.heads = 3, config.layers = 2;
    config.attention.qk_norm = config.attention.learned_bias = config.linear_bias = true;
    config.tied_embedding = false;
    config.layer_scale = 0.1;
    const DecoderLm model(table, config);
    OptimizerConfig optimizer = plain_config();
    if (mup) optimizer.rate_scale = RateScale::mup_simple;
    const auto ranges = optimizer_ranges(table, optimizer, config.width);
    int64_t next = 0;
    for (const OptimizerRange& range : ranges) {
      EXPECT_EQ(range.begin, next);
      EXPECT_GT(range.end, range.begin);
      next = range.end;
    }
    EXPECT_EQ(next, table.flat_size());
    for (const Parameter& parameter : table.parameters()) desc_of(ranges, parameter);
  }
}

// A store over the small model with given gradients, and an optimizer.
class OptimizerStep : public testing::Test {
 protected:
  static constexpr double kFactor = 0.5;

  void make(const OptimizerConfig& config, int64_t width = 64) {
    store_.emplace(model_.table, ops_, ParameterBuffers{true, true, config.ema_decay > 0.0});
    workspace_.resize(1 << 12);
    ops_.set_workspace({workspace_.data(), DType::f32, {1 << 12}});
    store_->initialize(ops_, 3);
    optimizer_.emplace(*store_, ops_, config, width);
    optimizer_->zero_gradients(ops_);
  }
  double* weights(ParameterId id) { return store_->view(store_->master(), id).as<double>(); }
  double* gradients(ParameterId id) { return store_->gradient(id).as<double>(); }

  Model model_;
  CpuOps<double> ops_;
  std::vector<float> workspace_;
  std::optional<ParameterStore> store_;
  std::optional<Optimizer> optimizer_;
};

TEST_F(OptimizerStep, FirstUpdateIsTheSignOfTheGradientAndTheDecay) {
  for (const DecayMode mode : {DecayMode::coupled, DecayMode::decoupled}) {
    OptimizerConfig config = plain_config();
    config.learning_rate = 0.01;
    config.decay_mode = mode;
    config.clip_norm = 0.0;
    config.eps = 1e-12;
    config.rate_scale = RateScale::mup_simple;
    make(config, 1536);
    const double linear = weights(model_.linear)[4], embedding = weights(model_.embedding)[2];
    gradients(model_.linear)[4] = -3.0;
    gradients(model_.embedding)[2] = 2.0;
    gradients(model_.norm)[0] = 5.0;
    optimizer_->set_rate(ops_, kFactor);
    optimizer_->step(ops_);
    // The corrected moments' quotient is the gradient's sign at the first step.
    const double rate = 0.01 * kFactor, half = 768.0 / 1536.0;
    const bool coupled = mode == DecayMode::coupled;
    const double linear_decay = coupled ? rate * half * 0.25 : kFactor * 0.25;
    const double embedding_decay = coupled ? rate * 0.25 : kFactor * 0.25;
    EXPECT_NEAR(weights(model_.linear)[4], linear + rate * half - linear_decay * linear, 1e-9);
    EXPECT_NEAR(weights(model_.embedding)[2], embedding - rate - embedding_decay * embedding, 1e-9);
    EXPECT_NEAR(weights(model_.norm)[0], 1.0 - rate, 1e-9);
    EXPECT_EQ(weights(model_.norm)[1], 1.0) << "no gradient, no decay";
  }
}

TEST_F(OptimizerStep, ReportsNormsByGroupAndClips) {
  OptimizerConfig config = plain_config();
  config.clip_norm = 1.0;
  make(config);
  gradients(model_.embedding)[0] = 3.0;
  gradients(model_.linear)[0] = 4.0;
  gradients(model_.gamma)[2] = 12.0;
  optimizer_->set_rate(ops_, 1.0);
  optimizer_->step(ops_);
  const OptimizerReport report = optimizer_->report(ops_);
  EXPECT_DOUBLE_EQ(report.grad_norm, 13.0);
  EXPECT_TRUE(report.finite);
  EXPECT_EQ(report.applied_steps, 1);
  const auto norms = optimizer_->group_grad_norms(ops_);
  ASSERT_EQ(norms.size(), 2u);
  EXPECT_DOUBLE_EQ(norms[0], 3.0);
  EXPECT_DOUBLE_EQ(norms[1], std::sqrt(160.0));
  const double moment = store_->view(store_->first_moment(), model_.gamma).as<double>()[2];
  EXPECT_NEAR(moment, 0.1 * 12.0 / 13.0, 1e-12) << "of the clipped gradient";
}

TEST_F(OptimizerStep, ChangesNothingWhereAGradientIsNotFinite) {
  OptimizerConfig config = plain_config();
  config.ema_decay = 0.5;
  for (const double bad : {std::nan(""), std::numeric_limits<double>::infinity()}) {
    make(config);
    gradients(model_.linear)[3] = 1.0;
    optimizer_->set_rate(ops_, 1.0);
    optimizer_->step(ops_);
    const auto everything = [&] {
      std::vector<double> values;
      for (const Tensor& flat :
           {store_->master(), store_->first_moment(), store_->second_moment(), store_->average()}) {
        const auto part = host_values(ops_, flat);
        values.insert(values.end(), part.begin(), part.end());
      }
      return values;
    };
    const auto before = everything();
    gradients(model_.norm)[1] = bad;
    for (int i = 1; i <= 3; ++i) {
      optimizer_->set_rate(ops_, 1.0);
      optimizer_->step(ops_);
      const OptimizerReport report = optimizer_->report(ops_);
      EXPECT_FALSE(report.finite);
      EXPECT_EQ(report.applied_steps, 1);
      EXPECT_EQ(report.skipped_steps, i);
      EXPECT_EQ(report.skipped_in_a_row, i);
    }
    EXPECT_EQ(everything(), before);
    optimizer_->zero_gradients(ops_);
    optimizer_->set_rate(ops_, 1.0);
    optimizer_->step(ops_);
    const OptimizerReport report = optimizer_->report(ops_);
    EXPECT_TRUE(report.finite);
    EXPECT_EQ(report.applied_steps, 2);
    EXPECT_EQ(report.skipped_steps, 3);
    EXPECT_EQ(report.skipped_in_a_row, 0);
  }
}

TEST_F(OptimizerStep, RestoresTheCountsOfAReport) {
  make(plain_config());
  optimizer_->restore(ops_, {.applied_steps = 41, .skipped_steps = 7, .skipped_in_a_row = 2});
  optimizer_->set_rate(ops_, 1.0);
  optimizer_->step(ops_);
  const OptimizerReport report = optimizer_->report(ops_);
  EXPECT_EQ(report.applied_steps, 42);
  EXPECT_EQ(report.skipped_steps, 7);
  EXPECT_EQ(report.skipped_in_a_row, 0);
}

TEST_F(OptimizerStep, PaddingStaysZero) {
  OptimizerConfig config = plain_config();
  config.decay_norms_and_biases = true;
  config.ema_decay = 0.9;
  make(config);
  for (int i = 0; i < 3; ++i) {
    for (const Parameter& parameter : model_.table.parameters()) {
      double* gradient = store_->gradients().as<double>() + parameter.offset;
      std::fill(gradient, gradient + parameter.shape.numel(), 0.5);
    }
    optimizer_->set_rate(ops_, 1.0);
    optimizer_->step(ops_);
  }
  std::vector<bool> is_padding(static_cast<size_t>(store_->master().numel()), true);
  for (const Parameter& parameter : model_.table.parameters()) {
    for (int64_t i = 0; i < parameter.shape.numel(); ++i)
      is_padding[static_cast<size_t>(parameter.offset + i)] = false;
  }
  for (const Tensor& flat : {store_->master(), store_->gradients(), store_->first_moment(),
                             store_->second_moment(), store_->average()}) {
    const auto values = host_values(ops_, flat);
    for (size_t i = 0; i < values.size(); ++i) {
      if (is_padding[i]) {
        ASSERT_EQ(values[i], 0.0) << i;
      }
    }
  }
}

}  // namespace
}  // namespace sigtrain
