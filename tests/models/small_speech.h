// A SpeechEncoder for tests, on any backend, and batches for it.
#pragma once

#include <algorithm>
#include <vector>

#include "config/derived.h"
#include "models/small_model.h"
#include "models/speech_encoder.h"

namespace sigtrain {

/// A batch on the host; see SpokenBatch.
struct SpokenRows {
  Buffer<float> features;
  Buffer<int32_t> feature_lengths, frame_lengths;
  Buffer<float> positions;
  Buffer<int32_t> targets, target_lengths;

  int64_t rows() const { return feature_lengths.size(); }
  int64_t seq_len() const { return positions.shape[1]; }
  double letters() const {
    double sum = 0.0;
    for (const int32_t length : target_lengths.values) sum += length;
    return sum;
  }
};

/// Utterances of these many feature frames, padded to the longest and `padding` frames more; all
/// padding is random, as nothing may depend on it.
inline SpokenRows random_speech(RandomValues& random, const ModelConfig& model,
                                const std::vector<int32_t>& lengths, int64_t padding = 0) {
  const auto rows = static_cast<int64_t>(lengths.size());
  const int64_t frames = *std::max_element(lengths.begin(), lengths.end()) + padding;
  const int64_t seq_len = speech_frames(model.speech, frames);
  SpokenRows batch;
  batch.features = random.normal<float>({rows, frames, model.speech.mel_bins});
  batch.feature_lengths = Buffer<int32_t>({rows});
  batch.feature_lengths.values = lengths;
  batch.frame_lengths = Buffer<int32_t>({rows});
  batch.target_lengths = Buffer<int32_t>({rows});
  batch.positions = random.normal<float>({rows, seq_len}, 6.0);
  batch.targets = random.integers({rows, seq_len}, 1, model.vocab_size);
  for (int64_t row = 0; row < rows; ++row) {
    batch.frame_lengths[row] =
        static_cast<int32_t>(speech_frames(model.speech, lengths[static_cast<size_t>(row)]));
    batch.target_lengths[row] = batch.frame_lengths[row] / 2;
  }
  return batch;
}

/// A SpeechEncoder with its memory.
template <typename Real, typename Backend = CpuOps<Real>>
class SmallSpeech : public SmallModel<Real, Backend> {
  using Base = SmallModel<Real, Backend>;

 public:
  /// For batches of at most the rows and frames of `largest`. Weights are drawn from `seed`.
  SmallSpeech(const ModelConfig& model, const SpokenRows& largest, uint64_t seed = 1,
              Recompute recompute = Recompute::none)
      : Base(with_length(model, largest), seed, recompute), encoder_(this->table_, this->model_) {
    this->start(encoder_, plan(largest));
  }

  /// Forward and backward: adds to the gradients those of the loss of a letter, and returns the
  /// sums [ctc_sum_slots]. Random numbers are the same each time.
  std::vector<double> train(SpokenRows& rows) {
    return pass(rows, [&](const SpokenBatch& batch, const Tensor& sums) {
      encoder_.train(context(rows, true), batch, 1.0 / rows.letters(), sums);
    });
  }
  /// Forward alone; leaves the model's diagnostics and logits().
  std::vector<double> evaluate(SpokenRows& rows) {
    return pass(rows, [&](const SpokenBatch& batch, const Tensor& sums) {
      Ops& ops = this->ops_;
      const Shape shape{rows.rows() * rows.seq_len(), this->model_.vocab_size};
      const Tensor logits = this->on_device(ops.compute_dtype(), shape, std::nan(""));
      encoder_.evaluate(context(rows, false), batch, logits, sums);
      const Tensor wide = this->on_device(ops.accumulate_dtype(), shape, std::nan(""));
      ops.copy(logits, wide);
      logits_ = host_values(ops, wide);
    });
  }
  /// [rows * seq_len, vocab_size] and [rows] of the pass run last.
  const std::vector<double>& logits() const { return logits_; }
  const std::vector<double>& losses() const { return losses_; }

 private:
  static ModelConfig with_length(ModelConfig model, const SpokenRows& largest) {
    model.seq_len = largest.seq_len();
    return model;
  }
  Context context(const SpokenRows& rows, bool training) {
    return Base::context(rows.rows(), rows.seq_len(), training);
  }

  ModelMemory plan(const SpokenRows& rows) const {
    return plan_model(
        this->model_, rows.rows(), this->ops_, this->recompute_,
        [&](ParameterTable& table) { return SpeechEncoder(table, this->model_); },
        [&](SpeechEncoder& encoder, Context& context) {
          const int64_t count = rows.rows(), frames = count * rows.seq_len();
          const DType real = context.ops.accumulate_dtype();
          const SpokenBatch batch{{nullptr, DType::f32, rows.features.shape},
                                  {nullptr, DType::i32, {count}},
                                  {nullptr, DType::i32, {count}},
                                  {nullptr, DType::f32, {frames}},
                                  {nullptr, DType::i32, rows.targets.shape},
                                  {nullptr, DType::i32, {count}},
                                  {nullptr, real, {count}}};
          const Tensor sums{nullptr, real, {ctc_sum_slots}};
          const Tensor logits{
              nullptr, context.ops.compute_dtype(), {frames, this->model_.vocab_size}};
          context.training ? encoder.train(context, batch, 1.0, sums)
                           : encoder.evaluate(context, batch, logits, sums);
        });
  }

  template <typename Run>
  std::vector<double> pass(SpokenRows& rows, const Run& run) {
    this->begin_pass();
    const Tensor sums = this->on_device(this->ops_.accumulate_dtype(), {ctc_sum_slots}, 0.0);
    const SpokenBatch batch{
        this->on_device(rows.features),
        this->on_device(rows.feature_lengths),
        this->on_device(rows.frame_lengths),
        this->on_device(Tensor(rows.positions).reshape({rows.positions.size()})),
        this->on_device(rows.targets),
        this->on_device(rows.target_lengths),
        this->on_device(this->ops_.accumulate_dtype(), {rows.rows()}, std::nan(""))};
    run(batch, sums);
    losses_ = host_values(this->ops_, batch.losses);
    return host_values(this->ops_, sums);
  }

  SpeechEncoder encoder_;
  std::vector<double> logits_, losses_;
};

}  // namespace sigtrain
