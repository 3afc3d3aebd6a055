#include "train/snapshot.h"

#include <fmt/format.h>

#include <deque>
#include <vector>

#include "config/fields.h"
#include "config/reader.h"
#include "config/value_text.h"
#include "config/writer.h"

#ifndef SIGTRAIN_VERSION
#error "SIGTRAIN_VERSION comes from CMake"
#endif

namespace sigtrain {
namespace {

/// Host memory for parameters' parts of the flat buffers, under their names in the checkpoint.
class HostTensors {
 public:
  /// Adds PREFIX + name for every parameter's part of `flat`.
  void add(const ParameterStore& parameters, const Tensor& flat, const std::string& prefix) {
    if (!flat) return;
    for (ParameterId id = 0; id < static_cast<ParameterId>(parameters.table().parameters().size());
         ++id) {
      const Tensor device = parameters.view(flat, id);
      memory_.emplace_back(device.bytes());
      named_.push_back({prefix + parameters.table()[id].name,
                        {memory_.back().data(), device.dtype, device.shape}});
      device_.push_back(device);
    }
  }
  void download(Ops& ops) const {
    for (size_t i = 0; i < named_.size(); ++i) ops.download(named_[i].tensor.data, device_[i]);
  }
  void upload(Ops& ops) const {
    for (size_t i = 0; i < named_.size(); ++i) ops.upload(device_[i], named_[i].tensor.data);
  }
  const std::vector<NamedTensor>& named() const { return named_; }

 private:
  std::deque<std::vector<std::byte>> memory_;
  std::vector<NamedTensor> named_;
  std::vector<Tensor> device_;
};

HostTensors model_tensors(const ParameterStore& parameters) {
  HostTensors tensors;
  tensors.add(parameters, parameters.master(), "");
  return tensors;
}

HostTensors optimizer_tensors(const ParameterStore& parameters) {
  HostTensors tensors;
  tensors.add(parameters, parameters.first_moment(), "adam.m.");
  tensors.add(parameters, parameters.second_moment(), "adam.v.");
  tensors.add(parameters, parameters.average(), "ema.");
  return tensors;
}

}  // namespace

std::filesystem::path save_snapshot(const std::filesystem::path& folder, const Config& config,
                                    Ops& ops, const Task& task, const ParameterStore& parameters,
                                    const Optimizer& optimizer, const RunProgress& progress) {
  const HostTensors model = model_tensors(parameters), moments = optimizer_tensors(parameters);
  model.download(ops);
  moments.download(ops);
  const OptimizerReport report = optimizer.report(ops);
  CheckpointContents contents;
  contents.model = model.named();
  contents.optimizer = moments.named();
  contents.state.step = progress.step;
  contents.state.tokens = progress.step * task.units_per_step();
  contents.state.seed = config.train.seed;
  contents.state.data_position = task.data_state(progress.step);
  contents.state.skipped_steps = report.skipped_steps;
  contents.state.skipped_in_a_row = report.skipped_in_a_row;
  contents.state.code_version = SIGTRAIN_VERSION;
  contents.state.extra = {{"applied_steps", report.applied_steps}, {"seconds", progress.seconds}};
  contents.config_yaml = to_yaml(config);
  return write_checkpoint(folder, contents, config.checkpoint.keep);
}

RunProgress load_snapshot(const CheckpointReader& checkpoint, const Config& config, Ops& ops,
                          const Task& task, const ParameterStore& parameters,
                          Optimizer& optimizer) {
  check_same_model(checkpoint, config);
  const TrainingState& state = checkpoint.state();
  if (state.seed != config.train.seed) {
    throw Error("{} was trained with train.seed {}, this config says {}",
                checkpoint.path().string(), state.seed, config.train.seed);
  }
  task.check_data_state(state.data_position);
  const HostTensors moments = optimizer_tensors(parameters);
  load_tensors(checkpoint.optimizer(), moments.named());
  moments.upload(ops);
  load_weights(checkpoint, ops, parameters, false);
  optimizer.restore(ops, {.applied_steps = state.extra.at("applied_steps").get<int64_t>(),
                          .skipped_steps = state.skipped_steps,
                          .skipped_in_a_row = state.skipped_in_a_row});
  return {state.step, state.extra.at("seconds").get<double>()};
}

void load_weights(const CheckpointReader& checkpoint, Ops& ops, const ParameterStore& parameters,
                  bool average) {
  const HostTensors model = model_tensors(parameters);
  if (average) {
    for (const NamedTensor& weight : model.named())
      checkpoint.optimizer().read("ema." + weight.name, weight.tensor);
  } else {
    load_tensors(checkpoint.model(), model.named());
  }
  model.upload(ops);
  if (parameters.has_separate_master()) ops.copy(parameters.master(), parameters.compute());
}

void check_same_model(const CheckpointReader& checkpoint, const Config& config) {
  const ModelConfig theirs = read_config((checkpoint.path() / "config.yaml").string(), {}).model;
  std::vector<std::string> their_values;
  for_each_value(theirs, [&](const std::string&, const auto&, const auto& value) {
    their_values.push_back(value_text(value));
  });
  size_t next = 0;
  for_each_value(
      config.model,
      [&](const std::string& path, const auto&, const auto& value) {
        const std::string their_value = their_values[next++], own_value = value_text(value);
        if (their_value == own_value) return;
        throw Error("{} was trained with {} {}, this config says {}", checkpoint.path().string(),
                    path, their_value, own_value);
      },
      "model");
}

}  // namespace sigtrain
