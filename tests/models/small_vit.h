// A VisionTransformer with its memory, on any backend: what the tests of whole models share.
#pragma once

#include <optional>
#include <span>
#include <utility>

#include "config/derived.h"
#include "models/vision_transformer.h"
#include "ops/host_values.h"
#include "ops/op_testing.h"
#include "ops/planning_ops.h"

namespace sigtrain {

/// A batch on the host: bytes [rows, size, size, channels], labels, and targets or none.
struct ImageRows {
  Buffer<uint8_t> images;
  Buffer<int32_t> labels;
  Buffer<double> targets;
  int64_t rows() const { return labels.size(); }
};

inline ImageRows random_images(RandomValues& random, const ModelConfig& model, int64_t rows,
                               bool targets) {
  const VisionConfig& vision = model.vision;
  ImageRows batch;
  batch.images = Buffer<uint8_t>({rows, vision.image_size, vision.image_size, vision.channels});
  for (uint8_t& pixel : batch.images.values) pixel = static_cast<uint8_t>(random.integer(0, 256));
  batch.labels = random.integers({rows}, 0, vision.classes);
  if (!targets) return batch;
  batch.targets = Buffer<double>({rows, vision.classes});
  for (int64_t row = 0; row < rows; ++row) {
    double sum = 0.0;
    for (int64_t j = 0; j < vision.classes; ++j)
      sum += batch.targets[row * vision.classes + j] = static_cast<double>(random.integer(1, 64));
    for (int64_t j = 0; j < vision.classes; ++j) batch.targets[row * vision.classes + j] /= sum;
  }
  return batch;
}

/// Real is the type of gradients and losses. Functions that give spans are for CPU backends.
template <typename Real, typename Backend = CpuOps<Real>>
class SmallVit {
 public:
  /// Batches of `batch` images, in training also with targets. Weights are drawn from `seed`.
  SmallVit(ModelConfig model, const ImageDataConfig& image, int64_t batch, uint64_t seed = 1,
           Recompute recompute = Recompute::none)
      : model_(with_tokens(model)),
        batch_(batch),
        seed_(seed),
        recompute_(recompute),
        vit_(table_, model_, image),
        parameters_(table_, ops_, {true, true, false}) {
    plan(image);
    vit_.make_tables(ops_);
    parameters_.initialize(ops_, seed);
  }

  Ops& ops() { return ops_; }
  const ParameterTable& table() const { return table_; }
  const ParameterStore& parameters() const { return parameters_; }
  const ModelConfig& model() const { return model_; }
  int64_t tensors() const { return static_cast<int64_t>(table_.parameters().size()); }
  std::span<Real> weight(ParameterId id) { return elements(parameters_.weight(id)); }
  std::span<Real> gradients() { return elements(parameters_.gradients()); }
  std::vector<double> gradient_values(ParameterId id) {
    return host_values(ops_, parameters_.gradient(id));
  }
  void zero_gradients() { ops_.fill(parameters_.gradients(), 0.0); }

  /// Forward and backward: adds to the gradients those of the mean objective, and returns the sums
  /// of the loss. Random numbers are the same each time.
  std::vector<double> train(ImageRows& rows) {
    return pass(rows, [&](const LabelledImages& batch, const Tensor& sums) {
      vit_.train(context(rows.rows(), true), batch, 1.0 / static_cast<double>(rows.rows()), sums);
    });
  }
  std::vector<double> evaluate(ImageRows& rows) {
    return pass(rows, [&](const LabelledImages& batch, const Tensor& sums) {
      vit_.evaluate(context(rows.rows(), false), batch, sums);
    });
  }
  /// [rows, classes]
  Buffer<Real> logits(ImageRows& rows) {
    Buffer<Real> result({rows.rows(), model_.vision.classes});
    vit_.classify(context(rows.rows(), false), rows.images, result);
    return result;
  }

 private:
  static ModelConfig with_tokens(ModelConfig model) {
    model.seq_len = image_tokens(model.vision);
    return model;
  }
  std::span<Real> elements(const Tensor& x) {
    return {x.as<Real>(), static_cast<size_t>(x.numel())};
  }
  Context context(int64_t batch, bool training) {
    return {ops_,  *arena_,  parameters_, batch,     model_.seq_len,
            seed_, training, nullptr,     recompute_};
  }

  void plan(const ImageDataConfig& image) {
    ParameterTable table;
    VisionTransformer vit(table, model_, image);
    PlanningOps ops(ops_);
    vit.make_tables(ops);
    const ParameterStore parameters = ParameterStore::planning(table, ops, {true, true, false});
    Arena arena = Arena::planning();
    Context context{ops, arena, parameters, batch_, model_.seq_len, 0, true, nullptr, recompute_};
    const VisionConfig& vision = model_.vision;
    const LabelledImages rows{
        {nullptr, DType::u8, {batch_, vision.image_size, vision.image_size, vision.channels}},
        {nullptr, DType::i32, {batch_}},
        {nullptr, ops.accumulate_dtype(), {batch_, vision.classes}}};
    const Tensor sums{nullptr, ops.accumulate_dtype(), {class_sum_slots}};
    vit.train(context, rows, 1.0, sums);
    context.training = false;
    vit.evaluate(context, rows, sums);
    arena_memory_ = ops_.allocate(arena.peak());
    arena_.emplace(arena_memory_.get(), arena.peak());
    workspace_ = ops_.allocate(ops.workspace_bytes());
    ops_.set_workspace({workspace_.get(),
                        DType::f32,
                        {static_cast<int64_t>(ops.workspace_bytes() / sizeof(float))}});
  }

  /// A copy where the backend's operations can read it.
  Tensor on_device(const Tensor& host) {
    device_memory_.push_back(ops_.allocate(host.bytes()));
    const Tensor device{device_memory_.back().get(), host.dtype, host.shape};
    ops_.upload(device, host.data);
    return device;
  }

  template <typename Run>
  std::vector<double> pass(ImageRows& rows, const Run& run) {
    device_memory_.clear();
    Buffer<Real> zeros({class_sum_slots}), targets;
    std::fill(zeros.values.begin(), zeros.values.end(), Real(0));
    if (rows.targets.present) {
      targets = Buffer<Real>(rows.targets.shape);
      targets.values.assign(rows.targets.values.begin(), rows.targets.values.end());
    }
    const Tensor sums = on_device(zeros);
    const LabelledImages batch{on_device(rows.images), on_device(rows.labels),
                               targets.present ? on_device(targets) : Tensor{}};
    ops_.set_random_step(7);
    run(batch, sums);
    return host_values(ops_, sums);
  }

  ModelConfig model_;
  int64_t batch_;
  uint64_t seed_;
  Recompute recompute_;
  Backend ops_;
  ParameterTable table_;
  VisionTransformer vit_;
  ParameterStore parameters_;
  DeviceMemory arena_memory_, workspace_;
  std::optional<Arena> arena_;
  std::vector<DeviceMemory> device_memory_;
};

}  // namespace sigtrain
