// A VisionTransformer for tests, on any backend, and batches for it.
#pragma once

#include <vector>

#include "config/derived.h"
#include "models/small_model.h"
#include "models/vision_transformer.h"

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

/// A VisionTransformer with its memory.
template <typename Real, typename Backend = CpuOps<Real>>
class SmallVit : public SmallModel<Real, Backend> {
  using Base = SmallModel<Real, Backend>;

 public:
  /// Batches of `batch` images, in training also with targets. Weights are drawn from `seed`.
  SmallVit(const ModelConfig& model, const ImageDataConfig& image, int64_t batch, uint64_t seed = 1,
           Recompute recompute = Recompute::none)
      : Base(with_tokens(model), seed, recompute), vit_(this->table_, this->model_, image) {
    this->start(vit_, plan(batch, image));
  }

  /// Forward and backward: adds to the gradients those of the mean objective, and returns the sums
  /// of the loss. Random numbers are the same each time.
  std::vector<double> train(ImageRows& rows) {
    return pass(rows, [&](const LabelledImages& batch, const Tensor& sums) {
      vit_.train(context(rows, true), batch, 1.0 / static_cast<double>(rows.rows()), sums);
    });
  }
  std::vector<double> evaluate(ImageRows& rows) {
    return pass(rows, [&](const LabelledImages& batch, const Tensor& sums) {
      vit_.evaluate(context(rows, false), batch, sums);
    });
  }
  /// [rows, classes]
  Buffer<Real> logits(ImageRows& rows) {
    Buffer<Real> result({rows.rows(), this->model_.vision.classes});
    vit_.classify(context(rows, false), rows.images, result);
    return result;
  }

 private:
  static ModelConfig with_tokens(ModelConfig model) {
    model.seq_len = image_tokens(model.vision);
    return model;
  }
  Context context(const ImageRows& rows, bool training) {
    return Base::context(rows.rows(), this->model_.seq_len, training);
  }

  ModelMemory plan(int64_t batch, const ImageDataConfig& image) const {
    return plan_model(
        this->model_, batch, this->ops_, this->recompute_,
        [&](ParameterTable& table) { return VisionTransformer(table, this->model_, image); },
        [&](VisionTransformer& vit, Context& context) {
          const VisionConfig& vision = this->model_.vision;
          const DType real = context.ops.accumulate_dtype();
          const LabelledImages rows{
              {nullptr, DType::u8, {batch, vision.image_size, vision.image_size, vision.channels}},
              {nullptr, DType::i32, {batch}},
              {nullptr, real, {batch, vision.classes}}};
          const Tensor sums{nullptr, real, {class_sum_slots}};
          context.training ? vit.train(context, rows, 1.0, sums)
                           : vit.evaluate(context, rows, sums);
        });
  }

  template <typename Run>
  std::vector<double> pass(ImageRows& rows, const Run& run) {
    this->begin_pass();
    Buffer<Real> targets;
    if (rows.targets.present) {
      targets = Buffer<Real>(rows.targets.shape);
      targets.values.assign(rows.targets.values.begin(), rows.targets.values.end());
    }
    const Tensor sums = this->on_device(this->ops_.accumulate_dtype(), {class_sum_slots}, 0.0);
    const LabelledImages batch{this->on_device(rows.images), this->on_device(rows.labels),
                               targets.present ? this->on_device(targets) : Tensor{}};
    run(batch, sums);
    return host_values(this->ops_, sums);
  }

  VisionTransformer vit_;
};

}  // namespace sigtrain
