// What the tests of whole models share, whichever model it is: its memory, on any backend, and what
// they look at.
#pragma once

#include <algorithm>
#include <cmath>
#include <optional>
#include <span>
#include <vector>

#include "nn/context.h"
#include "nn/diagnostics.h"
#include "ops/host_values.h"
#include "ops/op_testing.h"
#include "ops/planning_ops.h"
#include "train/optimizer.h"

namespace sigtrain {

/// One thread as long as it lives: models so small lose by more, most of all on a busy machine.
class OneThread {
 public:
  OneThread() { omp_set_num_threads(1); }
  ~OneThread() { omp_set_num_threads(before_); }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int before_ = omp_get_max_threads();
};

struct ModelMemory {
  size_t arena = 0, workspace = 0;
  size_t total() const { return arena + workspace; }
};

/// What a training pass over `batch` sequences, an evaluation and an optimizer step need. `make`
/// gives the model whose parameters it adds to a table; `pass(model, context)` trains or, where the
/// context says so, evaluates.
template <typename Make, typename Pass>
ModelMemory plan_model(const ModelConfig& config, int64_t batch, const Ops& backend,
                       Recompute recompute, const Make& make, const Pass& pass) {
  ParameterTable table;
  auto model = make(table);
  PlanningOps ops(backend);
  model.make_tables(ops);
  const ParameterStore parameters = ParameterStore::planning(table, ops, {true, true, false});
  Diagnostics diagnostics = Diagnostics::planning(ops, config.layers);
  Arena arena = Arena::planning();
  Context context{ops, arena, parameters, batch, config.seq_len, 0, true, &diagnostics, recompute};
  pass(model, context);
  Optimizer(parameters, ops, {}, config.width).step(ops);
  context.training = false;
  pass(model, context);
  return {arena.peak(), ops.workspace_bytes()};
}

/// The base of SmallLm, SmallVit and SmallSpeech. Real is the type of gradients and losses.
/// Functions that give spans are for CPU backends.
template <typename Real, typename Backend>
class SmallModel {
 public:
  Ops& ops() { return ops_; }
  const ModelConfig& model() const { return model_; }
  const ParameterTable& table() const { return table_; }
  const ParameterStore& parameters() const { return *parameters_; }
  Diagnostics& diagnostics() { return *diagnostics_; }
  int64_t tensors() const { return static_cast<int64_t>(table_.parameters().size()); }

  /// The weights and gradients of one parameter, where they are.
  std::span<Real> weight(ParameterId id) { return elements(parameters_->weight(id)); }
  std::span<Real> gradient(ParameterId id) { return elements(parameters_->gradient(id)); }
  std::span<Real> gradients() { return elements(parameters_->gradients()); }
  /// A copy of one parameter's gradient, on any backend.
  std::vector<double> gradient_values(ParameterId id) {
    return host_values(ops_, parameters_->gradient(id));
  }
  void zero_gradients() { ops_.fill(parameters_->gradients(), 0.0); }

 protected:
  SmallModel(const ModelConfig& model, uint64_t seed, Recompute recompute)
      : model_(model), seed_(seed), recompute_(recompute) {}
  ~SmallModel() = default;

  /// Allocates what was planned and draws the weights; to be called when the model has added its
  /// parameters to the table.
  template <typename Model>
  void start(Model& model, const ModelMemory& memory) {
    parameters_.emplace(table_, ops_, ParameterBuffers{true, true, false});
    diagnostics_.emplace(ops_, model_.layers);
    arena_memory_ = ops_.allocate(memory.arena);
    arena_.emplace(arena_memory_.get(), memory.arena);
    workspace_ = ops_.allocate(memory.workspace);
    ops_.set_workspace(
        {workspace_.get(), DType::f32, {static_cast<int64_t>(memory.workspace / sizeof(float))}});
    model.make_tables(ops_);
    parameters_->initialize(ops_, seed_);
  }

  /// Diagnostics are taken in evaluation alone.
  Context context(int64_t batch, int64_t seq_len, bool training) {
    return {ops_,      *arena_, *parameters_, batch,
            seq_len,   seed_,   training,     training ? nullptr : &*diagnostics_,
            recompute_};
  }

  /// Before a pass: memory of the last one is free again, and random numbers are the same each
  /// time.
  void begin_pass() {
    device_memory_.clear();
    ops_.set_random_step(7);
  }
  /// A copy where the backend's operations can read it, until the next pass.
  Tensor on_device(const Tensor& host) {
    const Tensor device = allocate(host.dtype, host.shape);
    ops_.upload(device, host.data);
    return device;
  }
  /// Filled with `value`, until the next pass; NaN shows what an operation leaves unwritten.
  Tensor on_device(DType dtype, const Shape& shape, double value) {
    const Tensor device = allocate(dtype, shape);
    ops_.fill(device, value);
    return device;
  }

  ModelConfig model_;
  uint64_t seed_;
  Recompute recompute_;
  Backend ops_;
  ParameterTable table_;

 private:
  std::span<Real> elements(const Tensor& x) {
    return {x.as<Real>(), static_cast<size_t>(x.numel())};
  }
  Tensor allocate(DType dtype, const Shape& shape) {
    Tensor tensor{nullptr, dtype, shape};
    device_memory_.push_back(ops_.allocate(tensor.bytes()));
    tensor.data = device_memory_.back().get();
    return tensor;
  }

  std::optional<ParameterStore> parameters_;
  std::optional<Diagnostics> diagnostics_;
  DeviceMemory arena_memory_, workspace_;
  std::optional<Arena> arena_;
  std::vector<DeviceMemory> device_memory_;
};

/// Away from the initial weights and zeros, which would hide a factor that is left out.
template <typename Model>
void move_weights(Model& model, RandomValues& random) {
  for (ParameterId id = 0; id < model.tensors(); ++id) {
    const Buffer<double> noise = random.normal<double>(model.table()[id].shape, 0.2);
    for (size_t i = 0; i < noise.values.size(); ++i) model.weight(id)[i] += noise.values[i];
  }
}

/// The slope of loss() at the weights, along a direction: (loss(w + h d) - loss(w - h d)) / 2h.
/// They are left as they were.
template <typename Loss>
double slope_along(std::span<double> weight, const std::vector<double>& direction,
                   const Loss& loss) {
  constexpr double h = 1e-5;
  const std::vector<double> start(weight.begin(), weight.end());
  const auto loss_at = [&](double t) {
    for (size_t i = 0; i < start.size(); ++i) weight[i] = start[i] + t * direction[i];
    return loss();
  };
  const double slope = (loss_at(h) - loss_at(-h)) / (2 * h);
  std::copy(start.begin(), start.end(), weight.begin());
  return slope;
}

inline double dot(std::span<const double> a, std::span<const double> b) {
  double sum = 0.0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

}  // namespace sigtrain
