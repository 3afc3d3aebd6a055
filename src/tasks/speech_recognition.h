// Recognition of speech: letters by connectionist temporal classification.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "config/schema.h"
#include "data/letters.h"
#include "data/prefetcher.h"
#include "data/speech_loader.h"
#include "models/speech_encoder.h"
#include "tasks/damage_count.h"
#include "tasks/error_rate.h"
#include "tasks/task.h"

namespace sigtrain {

class SpeechRecognition final : public Task {
 public:
  /// Builds the model of config.model, whose seq_len and vocab_size are set; no data is touched
  /// until open_data().
  explicit SpeechRecognition(const Config& config);

  void open_data() override;

  const ParameterTable& parameters() const override { return table_; }
  int64_t layers() const override { return config_.model.layers; }
  int64_t seq_len() const override { return config_.model.seq_len; }
  /// On average, padding left out; of synthetic data and before open_data what a batch may hold.
  int64_t units_per_step() const override;
  std::string_view unit() const override { return "audio_second"; }
  std::optional<double> planned_units() const override;
  void prepare(Ops& ops) override;
  size_t batch_bytes() const override { return batch_bytes_; }
  void begin_step(Ops& ops, int64_t step) override;
  int64_t step_targets() const override { return step_targets_; }
  int64_t micro_steps() const override { return config_.train.global_batch / group().size(); }
  void micro_step(Context& context, int64_t micro_step) override;
  LossReport step_report(Ops& ops) const override;
  LossReport evaluate(Context& context) override;
  bool has_validation() const override {
    return config_.data.source != DataSource::synthetic && !config_.data.validation.empty();
  }
  nlohmann::json data_state(int64_t step) const override;
  uint64_t validation_hash() const override {
    return validation_ ? validation_->corpus().hash() : 0;
  }
  void check_data_state(const nlohmann::json& state) const override;
  void restore_data_state(const nlohmann::json& state) override;

 private:
  /// The largest of each bucket in training or evaluation. Once the data are open, their targets
  /// are as many as the longest transcripts have.
  std::vector<SpeechShape> shapes(bool training) const;
  /// The memory on the device as a batch of this shape.
  SpokenBatch view(const SpeechShape& shape) const;
  SpokenBatch upload(Ops& ops, const SpeechBatch& batch) const;
  /// Adds the errors of a batch's texts to those of the buckets.
  void count_errors(const SpeechBatch& batch, const std::vector<float>& logits,
                    std::vector<ErrorCounts>& by_bucket) const;

  Config config_;
  Letters letters_;
  ParameterTable table_;
  SpeechEncoder model_;
  std::unique_ptr<SpeechLoader> train_, validation_;
  std::optional<Prefetcher<SpeechBatch>> prefetcher_;
  std::vector<SpeechBatch> step_batches_;  // of the step begun last
  DamageCounts damage_;
  DeviceMemory memory_;
  SpokenBatch largest_;  // flat tensors that every batch is a part of
  Tensor sums_;          // [ctc_sum_slots]
  size_t batch_bytes_ = 0;
  int64_t step_targets_ = 1;
};

/// The letters of one utterance's logits [frames, vocab_size]: by beam search, or with a width of 0
/// frame by frame.
std::string decode_speech(const Letters& letters, std::span<const float> logits,
                          int64_t beam_width);

}  // namespace sigtrain
