// A SpeechEncoder with its memory, on any backend: what the tests of whole models share.
#pragma once

#include <algorithm>
#include <optional>
#include <span>
#include <vector>

#include "config/derived.h"
#include "models/speech_encoder.h"
#include "ops/host_values.h"
#include "ops/op_testing.h"
#include "ops/planning_ops.h"

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

/// Real is the type of gradients and losses. Functions that give spans are for CPU backends.
template <typename Real, typename Backend = CpuOps<Real>>
class SmallSpeech {
 public:
  /// For batches of at most the rows and frames of `largest`. Weights are drawn from `seed`.
  SmallSpeech(ModelConfig model, const SpokenRows& largest, uint64_t seed = 1,
              Recompute recompute = Recompute::none)
      : model_(with_length(model, largest)),
        seed_(seed),
        recompute_(recompute),
        encoder_(table_, model_),
        parameters_(table_, ops_, {true, true, false}),
        diagnostics_(ops_, model.layers) {
    plan(largest);
    encoder_.make_tables(ops_);
    parameters_.initialize(ops_, seed);
  }

  Ops& ops() { return ops_; }
  const ParameterTable& table() const { return table_; }
  const ParameterStore& parameters() const { return parameters_; }
  Diagnostics& diagnostics() { return diagnostics_; }
  int64_t tensors() const { return static_cast<int64_t>(table_.parameters().size()); }
  std::span<Real> weight(ParameterId id) { return elements(parameters_.weight(id)); }
  std::span<Real> gradients() { return elements(parameters_.gradients()); }
  std::vector<double> gradient_values(ParameterId id) {
    return host_values(ops_, parameters_.gradient(id));
  }
  void zero_gradients() { ops_.fill(parameters_.gradients(), 0.0); }

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
      const Shape shape{rows.rows() * rows.seq_len(), model_.vocab_size};
      const DeviceMemory memory =
          ops_.allocate(static_cast<size_t>(shape.numel()) * sizeof(double));
      const Tensor logits{memory.get(), ops_.compute_dtype(), shape};
      encoder_.evaluate(context(rows, false), batch, logits, sums);
      const DeviceMemory wide_memory =
          ops_.allocate(static_cast<size_t>(shape.numel()) * sizeof(double));
      const Tensor wide{wide_memory.get(), ops_.accumulate_dtype(), shape};
      ops_.copy(logits, wide);
      logits_ = host_values(ops_, wide);
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
  std::span<Real> elements(const Tensor& x) {
    return {x.as<Real>(), static_cast<size_t>(x.numel())};
  }
  Context context(const SpokenRows& rows, bool training) {
    return {ops_,           *arena_, parameters_, rows.rows(),
            rows.seq_len(), seed_,   training,    training ? nullptr : &diagnostics_,
            recompute_};
  }

  void plan(const SpokenRows& rows) {
    ParameterTable table;
    SpeechEncoder encoder(table, model_);
    PlanningOps ops(ops_);
    encoder.make_tables(ops);
    const ParameterStore parameters = ParameterStore::planning(table, ops, {true, true, false});
    Diagnostics diagnostics = Diagnostics::planning(ops, model_.layers);
    Arena arena = Arena::planning();
    Context context{ops, arena, parameters,   rows.rows(), rows.seq_len(),
                    0,   true,  &diagnostics, recompute_};
    const SpokenBatch batch{{nullptr, DType::f32, rows.features.shape},
                            {nullptr, DType::i32, {rows.rows()}},
                            {nullptr, DType::i32, {rows.rows()}},
                            {nullptr, DType::f32, {rows.rows() * rows.seq_len()}},
                            {nullptr, DType::i32, rows.targets.shape},
                            {nullptr, DType::i32, {rows.rows()}},
                            {nullptr, ops.accumulate_dtype(), {rows.rows()}}};
    const Tensor sums{nullptr, ops.accumulate_dtype(), {ctc_sum_slots}};
    const Tensor logits{
        nullptr, ops.compute_dtype(), {rows.rows() * rows.seq_len(), model_.vocab_size}};
    encoder.train(context, batch, 1.0, sums);
    context.training = false;
    encoder.evaluate(context, batch, logits, sums);
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
  std::vector<double> pass(SpokenRows& rows, const Run& run) {
    device_memory_.clear();
    Buffer<Real> zeros({ctc_sum_slots}), losses({rows.rows()});
    std::fill(zeros.values.begin(), zeros.values.end(), Real(0));
    const Tensor sums = on_device(zeros);
    const SpokenBatch batch{on_device(rows.features),
                            on_device(rows.feature_lengths),
                            on_device(rows.frame_lengths),
                            on_device(Tensor(rows.positions).reshape({rows.positions.size()})),
                            on_device(rows.targets),
                            on_device(rows.target_lengths),
                            on_device(losses)};
    ops_.set_random_step(7);
    run(batch, sums);
    losses_ = host_values(ops_, batch.losses);
    return host_values(ops_, sums);
  }

  ModelConfig model_;
  uint64_t seed_;
  Recompute recompute_;
  Backend ops_;
  ParameterTable table_;
  SpeechEncoder encoder_;
  ParameterStore parameters_;
  Diagnostics diagnostics_;
  DeviceMemory arena_memory_, workspace_;
  std::optional<Arena> arena_;
  std::vector<DeviceMemory> device_memory_;
  std::vector<double> logits_, losses_;
};

}  // namespace sigtrain
