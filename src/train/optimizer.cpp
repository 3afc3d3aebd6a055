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

FlatRange overlap(FlatRange a, FlatRange b) {
  const FlatRange both{std::max(a.begin, b.begin), std::min(a.end, b.end)};
  return both.begin < both.end ? both : FlatRange{};
}

/// The parts of `ranges` that lie within `owned`; both are in order.
std::vector<OptimizerRange> owned_ranges(const std::vector<OptimizerRange>& ranges,
                                         const std::vector<FlatRange>& owned) {
  std::vector<OptimizerRange> parts;
  for (const FlatRange& own : owned) {
    for (const OptimizerRange& range : ranges) {
      const FlatRange part = overlap(own, {range.begin, range.end});
      if (part.begin < part.end) parts.push_back({part.begin, part.end, range.desc});
    }
  }
  return parts;
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

std::vector<Optimizer::NormPart> Optimizer::norm_parts(const ParameterStore& parameters) {
  const ParameterTable& table = parameters.table();
  std::vector<NormPart> parts;
  for (int group = 0; group < static_cast<int>(table.groups().size()); ++group) {
    const auto [begin, end] = table.group_range(group);
    if (!parameters.sharding().is_sharded) {
      parts.push_back({group, {begin, end}});
      continue;
    }
    // The same parts on every rank, of which each has a piece or nothing: they are summed over
    // ranks.
    for (size_t bucket = 0; bucket < parameters.buckets().size(); ++bucket) {
      const FlatRange in_bucket = overlap(parameters.buckets()[bucket], {begin, end});
      if (in_bucket.begin < in_bucket.end)
        parts.push_back({group, overlap(in_bucket, parameters.owned()[bucket])});
    }
  }
  return parts;
}

Optimizer::Optimizer(const ParameterStore& parameters, Ops& ops, const OptimizerConfig& config,
                     int64_t width)
    : parameters_(parameters),
      config_(config),
      ranges_(
          owned_ranges(optimizer_ranges(parameters.table(), config, width), parameters.owned())),
      norm_parts_(norm_parts(parameters)) {
  const auto parts = static_cast<int64_t>(norm_parts_.size());
  const Tensor all{nullptr, ops.accumulate_dtype(), {control_slots + parts}};
  memory_ = ops.allocate(all.bytes());
  const Tensor placed{memory_.get(), all.dtype, all.shape};
  ops.fill(placed, 0.0);
  control_ = placed.slice(0, control_slots);
  rates_ = placed.slice(control_learning_rate, control_slots);
  sums_ = placed.slice(control_slots, control_slots + parts);
}

void Optimizer::zero_gradients(Ops& ops) const { ops.fill(parameters_.gradients(), 0.0); }

void Optimizer::set_rate(Ops& ops, double factor) const {
  set_host_values(ops, rates_, {config_.learning_rate * factor, factor});
}

void Optimizer::step(Ops& ops, Communicator* communicator) const {
  const bool is_sharded = parameters_.sharding().is_sharded;
  if (is_sharded) ops.fill(sums_, 0.0);  // the last step's, in the parts that others own
  for (size_t i = 0; i < norm_parts_.size(); ++i) {
    const FlatRange& range = norm_parts_[i].range;
    const auto slot = static_cast<int64_t>(i);
    if (!is_sharded || range.begin < range.end)
      ops.sum_of_squares(parameters_.gradients().slice(range.begin, range.end),
                         sums_.slice(slot, slot + 1));
  }
  if (is_sharded && communicator) communicator->wait(communicator->all_reduce(sums_));
  ops.clip_factor(sums_, config_.clip_norm, control_);
  const Tensor copy = parameters_.has_separate_master() ? parameters_.compute() : Tensor{};
  for (const OptimizerRange& range : ranges_) {
    const auto part = [&](const Tensor& buffer) {
      return parameters_.part(buffer, {range.begin, range.end});
    };
    ops.adamw(range.desc, control_, part(parameters_.gradients()), part(parameters_.master()),
              part(parameters_.first_moment()), part(parameters_.second_moment()), part(copy));
  }
  if (!parameters_.average()) return;
  for (const FlatRange& own : parameters_.owned()) {
    ops.ema_update(config_.ema_decay, control_, parameters_.part(parameters_.master(), own),
                   parameters_.part(parameters_.average(), own));
  }
}

OptimizerReport Optimizer::report(Ops& ops) const {
  const std::vector<double> values = host_values(ops, control_);
  return {values[control_grad_norm], values[control_finite] != 0.0,
          static_cast<int64_t>(values[control_applied_steps]),
          static_cast<int64_t>(values[control_skipped_steps]),
          static_cast<int64_t>(values[control_consecutive_skipped])};
}

std::vector<double> Optimizer::group_grad_norms(Ops& ops) const {
  const std::vector<double> sums = host_values(ops, sums_);
  std::vector<double> norms(parameters_.table().groups().size(), 0.0);
  for (size_t i = 0; i < sums.size(); ++i)
    norms[static_cast<size_t>(norm_parts_[i].group)] += sums[i];
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
