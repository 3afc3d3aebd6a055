#include "train/snapshot.h"

#include <fmt/format.h>

#include <deque>
#include <optional>
#include <utility>
#include <vector>

#include "config/enum_names.h"
#include "config/fields.h"
#include "config/reader.h"
#include "config/value_text.h"
#include "config/writer.h"

#ifndef SIGTRAIN_VERSION
#error "SIGTRAIN_VERSION comes from CMake"
#endif

namespace sigtrain {
namespace {

Config config_of(const CheckpointReader& checkpoint) {
  return read_config((checkpoint.path() / "config.yaml").string(), {});
}

/// Host memory for the parameters' parts of one flat buffer, under their names in the checkpoint:
/// PREFIX + name.
class HostTensors {
 public:
  HostTensors(const ParameterStore& parameters, const Tensor& buffer, const std::string& prefix)
      : parameters_(parameters) {
    for (const Parameter& parameter : parameters.table().parameters()) {
      memory_.emplace_back(static_cast<size_t>(parameter.shape.numel()) * size_of(buffer.dtype));
      named_.push_back(
          {prefix + parameter.name, {memory_.back().data(), buffer.dtype, parameter.shape}});
    }
  }
  const std::vector<NamedTensor>& named() const { return named_; }
  void download(Ops& ops, const Tensor& whole) const {
    for (size_t id = 0; id < named_.size(); ++id)
      ops.download(named_[id].tensor.data, view(whole, id));
  }
  void upload(Ops& ops, const Tensor& whole) const {
    for (size_t id = 0; id < named_.size(); ++id)
      ops.upload(view(whole, id), named_[id].tensor.data);
  }

 private:
  Tensor view(const Tensor& whole, size_t id) const {
    return parameters_.view(whole, static_cast<ParameterId>(id));
  }

  const ParameterStore& parameters_;
  std::deque<std::vector<std::byte>> memory_;
  std::vector<NamedTensor> named_;
};

/// A flat buffer that a checkpoint holds, and what its names begin with.
using SavedBuffers = std::vector<std::pair<Tensor, std::string>>;

SavedBuffers optimizer_buffers(const ParameterStore& parameters) {
  SavedBuffers buffers{{parameters.first_moment(), "adam.m."},
                       {parameters.second_moment(), "adam.v."}};
  if (parameters.average()) buffers.emplace_back(parameters.average(), "ema.");
  return buffers;
}

/// Brings buffers of all ranks to rank 0's host memory. Empty on the other ranks.
std::deque<HostTensors> collect(Ops& ops, DataParallel& ranks, const SavedBuffers& buffers) {
  std::deque<HostTensors> collected;
  for (const auto& [buffer, prefix] : buffers) {
    const Tensor whole = ranks.whole(ops, buffer);
    if (!ranks.group().is_root()) continue;
    collected.emplace_back(ranks.parameters(), buffer, prefix).download(ops, whole);
  }
  return collected;
}

std::vector<NamedTensor> all_named(const std::deque<HostTensors>& tensors) {
  std::vector<NamedTensor> all;
  for (const HostTensors& some : tensors)
    all.insert(all.end(), some.named().begin(), some.named().end());
  return all;
}

/// Throws Error if only one of the two keeps averaged weights.
void check_same_averages(const CheckpointReader& checkpoint, const Config& config) {
  const double theirs = config_of(checkpoint).optimizer.ema_decay;
  if ((theirs > 0.0) == (config.optimizer.ema_decay > 0.0)) return;
  throw Error(
      "{} was trained with{} averaged weights (optimizer.ema_decay {}), this config says {}; to go "
      "on with it, set it back",
      checkpoint.path().string(), theirs > 0.0 ? "" : "out", theirs, config.optimizer.ema_decay);
}

/// Fills buffers on all ranks from a file that rank 0 reads.
void distribute(const SafetensorsReader* file, Ops& ops, DataParallel& ranks,
                const SavedBuffers& buffers) {
  std::deque<HostTensors> read;
  together(ranks.group(), [&] {
    if (!ranks.group().is_root()) return;
    for (const auto& [buffer, prefix] : buffers)
      read.emplace_back(ranks.parameters(), buffer, prefix);
    load_tensors(*file, all_named(read));
  });
  for (size_t i = 0; i < buffers.size(); ++i) {
    const Tensor& buffer = buffers[i].first;
    if (ranks.group().is_root()) read[i].upload(ops, ranks.whole_memory(buffer));
    ranks.spread(ops, buffer);
  }
}

struct Difference {
  std::string key, before, now;
};

/// The keys of a section that have other values in two configs.
template <typename Section>
std::vector<Difference> differences(const Section& before, const Section& now,
                                    const std::string& name) {
  std::vector<Difference> result;
  for_each_value(
      before,
      [&](const std::string& key, const auto&, const auto& value) {
        result.push_back({key, value_text(value), {}});
      },
      name);
  size_t next = 0;
  for_each_value(
      now,
      [&](const std::string&, const auto&, const auto& value) {
        result[next++].now = value_text(value);
      },
      name);
  std::erase_if(result, [](const Difference& both) { return both.before == both.now; });
  return result;
}

}  // namespace

std::filesystem::path save_snapshot(const std::filesystem::path& folder, const Config& config,
                                    Ops& ops, const Task& task, DataParallel& ranks,
                                    const Optimizer& optimizer, const RunProgress& progress) {
  const ParameterStore& parameters = ranks.parameters();
  const auto model = collect(ops, ranks, {{parameters.master(), ""}});
  const auto moments = collect(ops, ranks, optimizer_buffers(parameters));
  const OptimizerReport report = optimizer.report(ops);
  // What was under way when a rank failed is worth nothing.
  ranks.group().check();
  if (!ranks.group().is_root()) return {};
  CheckpointContents contents;
  contents.model = all_named(model);
  contents.optimizer = all_named(moments);
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

RunProgress load_snapshot(const CheckpointReader* checkpoint, const Config& config, Ops& ops,
                          Task& task, DataParallel& ranks, Optimizer& optimizer) {
  const bool is_root = ranks.group().is_root();
  nlohmann::json state;
  together(ranks.group(), [&] {
    if (!is_root) return;
    check_same_model(*checkpoint, config);
    const TrainingState& saved = checkpoint->state();
    if (saved.seed != config.train.seed) {
      throw Error(
          "{} was trained with train.seed {}, this config says {}; to go on with it, set it back",
          checkpoint->path().string(), saved.seed, config.train.seed);
    }
    check_same_averages(*checkpoint, config);
    task.check_data_state(saved.data_position);
    state = {{"step", saved.step},
             {"data", saved.data_position},
             {"seconds", saved.extra.at("seconds").get<double>()},
             {"applied_steps", saved.extra.at("applied_steps").get<int64_t>()},
             {"skipped_steps", saved.skipped_steps},
             {"skipped_in_a_row", saved.skipped_in_a_row}};
  });
  state = nlohmann::json::parse(ranks.group().broadcast(state.dump()));
  together(ranks.group(), [&] { task.restore_data_state(state.at("data")); });
  distribute(is_root ? &checkpoint->optimizer() : nullptr, ops, ranks,
             optimizer_buffers(ranks.parameters()));
  load_weights(checkpoint, ops, ranks, false);
  optimizer.restore(ops, {.applied_steps = state.at("applied_steps").get<int64_t>(),
                          .skipped_steps = state.at("skipped_steps").get<int64_t>(),
                          .skipped_in_a_row = state.at("skipped_in_a_row").get<int64_t>()});
  return {state.at("step").get<int64_t>(), state.at("seconds").get<double>()};
}

void load_weights(const CheckpointReader* checkpoint, Ops& ops, DataParallel& ranks, bool average) {
  ParameterStore& parameters = ranks.parameters();
  const Tensor whole = ranks.whole_memory(parameters.master());
  if (average) {
    std::optional<HostTensors> read;
    together(ranks.group(), [&] {
      if (!ranks.group().is_root()) return;
      if (!(config_of(*checkpoint).optimizer.ema_decay > 0.0)) {
        throw Error("{} has no averaged weights: its run had optimizer.ema_decay 0",
                    checkpoint->path().string());
      }
      read.emplace(parameters, parameters.master(), "ema.");
      for (const NamedTensor& weight : read->named())
        checkpoint->optimizer().read(weight.name, weight.tensor);
    });
    if (read) read->upload(ops, whole);
    ranks.spread(ops, parameters.master());
  } else {
    distribute(ranks.group().is_root() ? &checkpoint->model() : nullptr, ops, ranks,
               {{parameters.master(), ""}});
  }
  // spread() left the weights in `whole` on every rank.
  if (parameters.has_separate_master()) ops.copy(whole, parameters.compute());
}

void check_same_model(const CheckpointReader& checkpoint, const Config& config) {
  const Config saved = config_of(checkpoint);
  if (saved.task != config.task) {
    throw Error(
        "{} is of a run of task {}, this config's task is {}; to go on with it, use its own "
        "config",
        checkpoint.path().string(), enum_name(saved.task), enum_name(config.task));
  }
  for (const Difference& difference : differences(saved.model, config.model, "model")) {
    throw Error("{} was trained with {} {}, this config says {}; to go on with it, set it back",
                checkpoint.path().string(), difference.key, difference.before, difference.now);
  }
}

std::string describe_other_schedule(const CheckpointReader& checkpoint, const Config& config) {
  const Config saved = config_of(checkpoint);
  std::vector<Difference> found = differences(saved.schedule, config.schedule, "schedule");
  for (const Difference& difference : differences(saved.train, config.train, "train"))
    if (difference.key == "train.steps") found.push_back(difference);
  for (const Difference& difference : differences(saved.optimizer, config.optimizer, "optimizer"))
    if (difference.key == "optimizer.learning_rate") found.push_back(difference);
  std::string text;
  for (const Difference& difference : found)
    text += fmt::format("{}{} is {}, was {}", text.empty() ? "" : "; ", difference.key,
                        difference.now, difference.before);
  return text;
}

}  // namespace sigtrain
