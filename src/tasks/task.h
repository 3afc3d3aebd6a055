// What joins data, model, loss and metric. The training loop knows a run only through this.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "dist/process_group.h"
#include "nn/context.h"

namespace sigtrain {

/// Means over the counted targets of a step or an evaluation.
struct LossReport {
  double loss = 0.0;                 // cross-entropy in nats, without smoothing and z-loss
  double objective = 0.0;            // what is differentiated
  std::optional<double> accuracy{};  // share of targets with the largest logit
  int64_t targets = 0;
  std::optional<double> top5{};  // share of targets among the five largest logits
  std::optional<double> letter_error_rate{};
  std::vector<std::pair<std::string, double>> more{};  // what else metrics.jsonl gets, in order
};

class Task {
 public:
  virtual ~Task() = default;

  /// Takes this rank's part of every global batch from now on, and reports what all ranks measured.
  /// Before prepare(); `group` must outlive the task. Without it the task works alone.
  void join(ProcessGroup& group) { group_ = &group; }

  /// Opens what config.data names; call once, before begin_step and evaluate.
  virtual void open_data() = 0;

  virtual const ParameterTable& parameters() const = 0;
  /// Layers that write diagnostics.
  virtual int64_t layers() const = 0;
  virtual int64_t seq_len() const = 0;
  /// Tokens (or what the task counts its speed in) of one optimizer step over all ranks, and their
  /// name.
  virtual int64_t units_per_step() const = 0;
  virtual std::string_view unit() const = 0;

  /// Units that micro_step(context, 0) stands for in a planning pass; absent: its part of a step.
  virtual std::optional<double> planned_units() const { return std::nullopt; }

  /// Makes tables and batch memory; call once, also with a planning backend, before any pass. What
  /// is planned with the data open is what they need, without them a bound of it.
  virtual void prepare(Ops& ops) = 0;
  /// Bytes of batches held on the device.
  virtual size_t batch_bytes() const = 0;

  /// Brings this rank's data of optimizer step `step` (0-based) to the device, clears the step's
  /// loss sums and sets its random step.
  virtual void begin_step(Ops& ops, int64_t step) = 0;
  /// Targets that the step begun last counts, on all ranks. Steps with the same number of them do
  /// the same work, on other values in the same memory.
  virtual int64_t step_targets() const = 0;
  /// Micro-batches in a step on this rank.
  virtual int64_t micro_steps() const = 0;
  /// Forward and backward of one of them, to be called in order 0, 1, ...; gradients are of the
  /// mean loss over the whole global batch.
  virtual void micro_step(Context& context, int64_t micro_step) = 0;
  /// The loss of the step begun last, over all ranks, which all ask for it; waits for the device.
  virtual LossReport step_report(Ops& ops) const = 0;

  /// Forward over the validation data, each rank over its part.
  virtual LossReport evaluate(Context& context) = 0;
  virtual bool has_validation() const = 0;

  /// What checkpoints and other ranks must agree on with the data at hand, e.g. the vocabulary's
  /// hash.
  virtual nlohmann::json data_state(int64_t step) const = 0;
  /// Of the validation data, which all ranks must have alike; 0: there is none.
  virtual uint64_t validation_hash() const = 0;
  /// Throws Error if a checkpoint was made with other data than this task's.
  virtual void check_data_state(const nlohmann::json& state) const = 0;
  /// Takes over what a checkpoint's data_state knows of the same data. Called on all ranks.
  virtual void restore_data_state(const nlohmann::json& state) {}

 protected:
  ProcessGroup& group() const { return *group_; }
  /// The micro-batch of the whole run that is number `own` of this rank's. They are numbered over
  /// all ranks, a step's of rank 0 first: what goes by this number does not depend on how many
  /// ranks there are.
  int64_t global_number(int64_t own) const {
    const int64_t step = own / micro_steps(), micro = own % micro_steps();
    return (step * group().size() + group().rank()) * micro_steps() + micro;
  }

 private:
  SingleProcess alone_;
  ProcessGroup* group_ = &alone_;
};

}  // namespace sigtrain
