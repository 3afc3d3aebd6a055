#include "train/optimizer.h"

#include <algorithm>
#include <cmath>

#include "ops/host_values.h"

namespace sigtrain {
namespace {

AdamWDesc describe(const Parameter& parameter, const OptimizerConfig& config, int64_t width,
                   int groups) {
  AdamWDesc desc{config.beta1, config.beta2,        config.eps,
                 1.0,          config.weight_decay, config.decay_mode};
  const bool is_matrix =
      parameter.kind == ParameterKind::linear_weight || parameter.kind == ParameterKind::embedding;
  if (!is_matrix && !config.decay_norms_and_biases) desc.weight_decay = 0.0;
  if (config.rate_scale == RateScale::mup_simple &&
      parameter.kind == ParameterKind::linear_weight) {
    desc.rate_scale =
        std::min(static_cast<double>(config.mup_base_width) / static_cast<double>(width), 1.0);
  }
  desc.rate_scale *= std::pow(config.layer_decay, groups - 1 - parameter.group);
  if (parameter.frozen) desc.rate_scale = desc.weight_decay = 0.0;
  return desc;
}

bool same_settings(const AdamWDesc& a, const AdamWDesc& b) {
  return a.rate_scale == b.rate_scale && a.weight_decay == b.weight_decay;
}

}  // namespace

std::vector<OptimizerRange> optimizer_ranges(const ParameterTable& table,
                                             const OptimizerConfig& config, int64_t width) {
  const auto groups = static_cast<int>(table.groups().size());
  std::vector<OptimizerRange> ranges;
  for (const Parameter& parameter : table.parameters()) {
    const AdamWDesc desc = describe(parameter, config, width, groups);
    if (ranges.empty() || !same_settings(ranges.back().desc, desc)) {
      if (!ranges.empty()) ranges.back().end = parameter.offset;
      ranges.push_back({parameter.offset, table.flat_size(), desc});
    }
  }
  return ranges;
}

Optimizer::Optimizer(const ParameterStore& parameters, Ops& ops, const OptimizerConfig& config,
                     int64_t width)
    : parameters_(parameters),
      config_(config),
      ranges_(optimizer_ranges(parameters.table(), config, width)) {
  const auto groups = static_cast<int64_t>(parameters.table().groups().size());
  const Tensor all{nullptr, ops.accumulate_dtype(), {control_slots + groups}};
  memory_ = ops.allocate(all.bytes());
  const Tensor placed{memory_.get(), all.dtype, all.shape};
  ops.fill(placed, 0.0);
  control_ = placed.slice(0, control_slots);
  rates_ = placed.slice(control_learning_rate, control_slots);
  group_sums_ = placed.slice(control_slots, control_slots + groups);
}

void Optimizer::zero_gradients(Ops& ops) const { ops.fill(parameters_.gradients(), 0.0); }

void Optimizer::set_rate(Ops& ops, double factor) const {
  set_host_values(ops, rates_, {config_.learning_rate * factor, factor});
}

void Optimizer::step(Ops& ops) const {
  const ParameterTable& table = parameters_.table();
  for (int group = 0; group < static_cast<int>(table.groups().size()); ++group) {
    const auto [begin, end] = table.group_range(group);
    ops.sum_of_squares(parameters_.gradients().slice(begin, end),
                       group_sums_.slice(group, group + 1));
  }
  ops.clip_factor(group_sums_, config_.clip_norm, control_);
  const Tensor copy = parameters_.has_separate_master() ? parameters_.compute() : Tensor{};
  for (const OptimizerRange& range : ranges_) {
    const auto part = [&](const Tensor& flat) {
      return flat ? flat.slice(range.begin, range.end) : Tensor{};
    };
    ops.adamw(range.desc, control_, part(parameters_.gradients()), part(parameters_.master()),
              part(parameters_.first_moment()), part(parameters_.second_moment()), part(copy));
  }
  if (parameters_.average())
    ops.ema_update(config_.ema_decay, control_, parameters_.master(), parameters_.average());
}

OptimizerReport Optimizer::report(Ops& ops) const {
  const std::vector<double> values = host_values(ops, control_);
  return {values[control_grad_norm], values[control_finite] != 0.0,
          static_cast<int64_t>(values[control_applied_steps]),
          static_cast<int64_t>(values[control_skipped_steps]),
          static_cast<int64_t>(values[control_consecutive_skipped])};
}

std::vector<double> Optimizer::group_grad_norms(Ops& ops) const {
  std::vector<double> norms = host_values(ops, group_sums_);
  for (double& norm : norms) norm = std::sqrt(norm);
  return norms;
}

void Optimizer::restore(Ops& ops, const OptimizerReport& report) {
  std::vector<double> values(control_slots, 0.0);
  values[control_applied_steps] = static_cast<double>(report.applied_steps);
  values[control_skipped_steps] = static_cast<double>(report.skipped_steps);
  values[control_consecutive_skipped] = static_cast<double>(report.skipped_in_a_row);
  set_host_values(ops, control_, values);
}

}  // namespace sigtrain
