#include "train/memory_plan.h"

#include <fmt/format.h>

#include "config/enum_names.h"
#include "core/bytes_text.h"
#include "nn/parameters.h"
#include "ops/planning_ops.h"
#include "train/data_parallel.h"
#include "train/optimizer.h"

namespace sigtrain {
namespace {

std::string plan_line(std::string_view purpose, size_t bytes) {
  return fmt::format("  {:<32} {:>14}\n", purpose, bytes_text(bytes));
}

/// FLOPs of a micro-batch; what recomputation adds is no work of the model.
double model_flops(const Config& config, Task& task, const Ops& backend,
                   const ParameterStore& parameters) {
  PlanningOps ops(backend);
  Arena arena = Arena::planning();
  Context context{ops, arena, parameters, config.train.micro_batch, task.seq_len(),
                  0,   true,  nullptr};
  task.micro_step(context, 0);
  return ops.flops();
}

}  // namespace

ParameterBuffers parameter_buffers(const Config& config, bool training, const Ops& ops,
                                   const ProcessGroup& group) {
  ParameterBuffers buffers{training, training, config.optimizer.ema_decay > 0.0};
  buffers.sharding = sharding_of(config, group.rank(), group.size(), ops.accumulate_dtype());
  // Without training there is no state to share, nor gradients' memory to gather it in.
  buffers.sharding.is_sharded = buffers.sharding.is_sharded && training;
  return buffers;
}

MemoryPlan plan_run(const Config& config, Task& task, const Ops& backend, bool training,
                    const ProcessGroup& group) {
  PlanningOps ops(backend);
  Arena arena = Arena::planning();
  const ParameterStore parameters = ParameterStore::planning(
      task.parameters(), ops, parameter_buffers(config, training, ops, group));
  Diagnostics diagnostics = Diagnostics::planning(ops, task.layers());
  Context context{ops,
                  arena,
                  parameters,
                  config.train.micro_batch,
                  task.seq_len(),
                  config.train.seed,
                  true,
                  config.log.diagnostics ? &diagnostics : nullptr,
                  config.train.recompute};
  MemoryPlan plan;
  plan.device = fmt::format("{}, {}", ops.name(), name_of(ops.compute_dtype()));
  if (training) {
    task.micro_step(context, 0);
    const double units = task.planned_units().value_or(
        static_cast<double>(config.train.micro_batch * task.units_per_step()) /
        static_cast<double>(config.train.global_batch));
    plan.flops_per_unit = model_flops(config, task, backend, parameters) / units;
    Optimizer optimizer(parameters, ops, config.optimizer, config.model.width);
    optimizer.step(ops);
  }
  context.training = false;
  context.diagnostics = nullptr;
  if (task.has_validation()) task.evaluate(context);

  plan.weights = parameters.master().bytes();
  plan.compute_weights = parameters.has_separate_master() ? parameters.compute().bytes() : 0;
  plan.gradients = parameters.gradients().bytes();
  plan.moments = parameters.first_moment().bytes() + parameters.second_moment().bytes();
  plan.average = parameters.average().bytes();
  plan.batches = task.batch_bytes();
  plan.arena = arena.peak();
  plan.arena_by_purpose = arena.by_purpose_at_peak();
  if (!backend.is_planning()) plan.workspace = ops.workspace_bytes();
  return plan;
}

std::string describe_plan(const MemoryPlan& plan, const Config& config, const Task& task) {
  std::string text = fmt::format("device\n  {}{}\n\nparameters\n", plan.device,
                                 plan.workspace ? "" : ", which is not here");
  const ParameterTable& table = task.parameters();
  for (int group = 0; group < static_cast<int>(table.groups().size()); ++group) {
    int64_t in_group = 0;
    for (const Parameter& parameter : table.parameters())
      in_group += parameter.group == group ? parameter.shape.numel() : 0;
    text += fmt::format("  {:<32} {:>14}\n", table.groups()[static_cast<size_t>(group)], in_group);
    for (const Parameter& parameter : table.parameters()) {
      if (parameter.group == group) {
        text += fmt::format("    {:<40} {:>16} {:>14}\n", parameter.name,
                            parameter.shape.to_string(), parameter.shape.numel());
      }
    }
  }
  text += fmt::format("  {:<32} {:>14}  ({:.3f}e9)\n\nmemory\n", "total", table.count(),
                      static_cast<double>(table.count()) * 1e-9);
  text +=
      fmt::format("  {:<32} {:>14}\n", "recomputed in backward", enum_name(config.train.recompute));
  text += plan_line("weights", plan.weights);
  if (plan.compute_weights) text += plan_line("weights in compute precision", plan.compute_weights);
  text += plan_line("gradients", plan.gradients) + plan_line("optimizer moments", plan.moments);
  if (plan.average) text += plan_line("averaged weights", plan.average);
  for (int purpose = 0; purpose < kPurposeCount; ++purpose) {
    const size_t bytes = plan.arena_by_purpose[static_cast<size_t>(purpose)];
    if (bytes) text += plan_line(name_of(static_cast<Purpose>(purpose)), bytes);
  }
  text +=
      plan.workspace
          ? plan_line("workspace", *plan.workspace)
          : fmt::format("  {:<32} {:>14}  (its size goes by the device; the total is without it)\n",
                        "workspace", "left out");
  text += plan_line("batches", plan.batches) + plan_line("total", plan.total());
  text += fmt::format("\ncompute\n  {:<32} {:>14.4g}  (matrix products, forward and backward)\n",
                      task.unit() == "audio_second" ? "FLOPs a second of audio"
                      : task.unit() == "image"      ? "FLOPs an image"
                                                    : fmt::format("FLOPs a {}", task.unit()),
                      plan.flops_per_unit);
  return text;
}

}  // namespace sigtrain
