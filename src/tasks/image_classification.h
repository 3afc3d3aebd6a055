// Classification of images by a vision transformer.
#pragma once

#include <memory>
#include <optional>

#include "config/schema.h"
#include "data/image_loader.h"
#include "data/prefetcher.h"
#include "models/vision_transformer.h"
#include "tasks/damage_count.h"
#include "tasks/task.h"

namespace sigtrain {

class ImageClassification final : public Task {
 public:
  /// Builds the model of config.model, whose seq_len and vision.classes are set; no data is touched
  /// until open_data().
  explicit ImageClassification(const Config& config);

  void open_data() override;

  const ParameterTable& parameters() const override { return table_; }
  int64_t layers() const override { return config_.model.layers; }
  int64_t seq_len() const override { return config_.model.seq_len; }
  int64_t units_per_step() const override { return config_.train.global_batch; }
  std::string_view unit() const override { return "image"; }
  void prepare(Ops& ops) override;
  size_t batch_bytes() const override {
    return images_.bytes() + labels_.bytes() + targets_.bytes();
  }
  void begin_step(Ops& ops, int64_t step) override;
  int64_t step_targets() const override { return config_.train.global_batch; }
  int64_t micro_steps() const override { return own_rows() / config_.train.micro_batch; }
  void micro_step(Context& context, int64_t micro_step) override;
  LossReport step_report(Ops& ops) const override;
  LossReport evaluate(Context& context) override;
  bool has_validation() const override {
    return config_.data.source != DataSource::synthetic && !config_.data.validation.empty();
  }
  nlohmann::json data_state(int64_t step) const override;
  uint64_t validation_hash() const override { return validation_fingerprint_; }
  void check_data_state(const nlohmann::json& state) const override;
  void restore_data_state(const nlohmann::json& state) override;

 private:
  /// Rows [begin, end) of the batch on the device.
  LabelledImages rows(int64_t begin, int64_t end, bool with_targets) const;
  /// Images of the global batch that are this rank's.
  int64_t own_rows() const { return config_.train.global_batch / group().size(); }

  Config config_;
  ParameterTable table_;
  VisionTransformer model_;
  std::unique_ptr<ImageSource> train_;
  std::unique_ptr<ImageEvaluation> validation_;
  DamageCounts damage_;
  uint64_t fingerprint_ = 0, validation_fingerprint_ = 0;  // of the images
  std::optional<Prefetcher<ImageBatch>> prefetcher_;
  DeviceMemory memory_;
  Tensor images_;   // u8 [own_rows(), size, size, channels]
  Tensor labels_;   // i32 [own_rows()]
  Tensor targets_;  // [own_rows(), classes], where training has soft ones
  Tensor sums_;     // [class_sum_slots]
};

/// The classes of the data named in config.data.train; for a config that leaves
/// model.vision.classes at 0.
int64_t count_classes(const Config& config);

}  // namespace sigtrain
