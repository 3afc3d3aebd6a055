#include "tasks/speech_recognition.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <numeric>

#include "config/derived.h"
#include "data/fnv.h"
#include "data/loader_threads.h"
#include "ops/host_values.h"
#include "tasks/ctc_decoder.h"
#include "tasks/data_state.h"

namespace sigtrain {
namespace {

/// The loss of a letter that the sums [ctc_sum_slots] of a step or an evaluation stand for.
LossReport mean_of(const std::vector<double>& sums) {
  LossReport report;
  report.targets = static_cast<int64_t>(sums[ctc_sum_targets]);
  report.loss = report.objective = sums[ctc_sum_nll] / std::max(1.0, sums[ctc_sum_targets]);
  if (sums[ctc_sum_infeasible] > 0.0)
    report.more.emplace_back("infeasible", sums[ctc_sum_infeasible]);
  return report;
}

Tensor part_of(const Tensor& flat, Shape shape) {
  return flat.slice(0, shape.numel()).reshape(shape);
}

void add_over_ranks(ErrorCounts& counts, ProcessGroup& group) {
  int64_t* const all[] = {&counts.utterances, &counts.letters, &counts.letter_edits, &counts.words,
                          &counts.word_edits};
  std::vector<double> values;
  for (const int64_t* count : all) values.push_back(static_cast<double>(*count));
  group.sum(values);
  for (size_t i = 0; i < values.size(); ++i) *all[i] = static_cast<int64_t>(values[i]);
}

std::unique_ptr<SpeechLoader> open(const Config& config, const std::vector<std::string>& paths,
                                   bool training, bool is_root) {
  const double longest = training ? longest_in_training(config) : longest_in_evaluation(config);
  const double fastest = training ? 1.0 + config.augment.speech.speed : 1.0;
  auto corpus = std::make_shared<const SpeechCorpus>(paths, config, longest, fastest);
  // Behind the many that may be, the sum of them.
  if (is_root) {
    for (const std::string& text : corpus->left_out()) spdlog::warn("left out: {}", text);
  }
  spdlog::info("{}: {}", training ? "training" : "validation", corpus->describe());
  return std::make_unique<SpeechLoader>(corpus, config, training);
}

DamageCount damage_of(const SpeechLoader& loader, const Config& config) {
  return {static_cast<int64_t>(loader.corpus().entries().size()), loader.corpus().hash(),
          config.data.speech.max_damaged, "recordings", "data.speech.max_damaged"};
}

}  // namespace

SpeechRecognition::SpeechRecognition(const Config& config)
    : config_(config), letters_(config.data.speech.letters), model_(table_, config.model) {}

void SpeechRecognition::open_data() {
  if (config_.data.source == DataSource::synthetic) return;
  train_ = open(config_, config_.data.train, true, group().is_root());
  damage_.train = damage_of(*train_, config_);
  if (!has_validation()) return;
  validation_ = open(config_, config_.data.validation, false, group().is_root());
  damage_.validation = damage_of(*validation_, config_);
}

int64_t SpeechRecognition::units_per_step() const {
  const double batches = static_cast<double>(config_.train.global_batch);
  if (!train_) {
    const SpeechShape largest = shapes(true).back();
    return static_cast<int64_t>(batches * static_cast<double>(largest.rows) *
                                longest_in_training(config_));
  }
  return static_cast<int64_t>(batches * train_->corpus().hours() * 3600.0 /
                              static_cast<double>(train_->batches_per_pass()));
}

std::vector<SpeechShape> SpeechRecognition::shapes(bool training) const {
  const std::unique_ptr<SpeechLoader>& loader = training ? train_ : validation_;
  return speech_shapes(config_,
                       training ? longest_in_training(config_) : longest_in_evaluation(config_),
                       loader ? &loader->corpus() : nullptr);
}

std::optional<double> SpeechRecognition::planned_units() const {
  double seconds = 0.0;
  const std::vector<SpeechShape> planned = shapes(true);
  for (size_t i = 0; i < planned.size(); ++i)
    seconds += static_cast<double>(planned[i].rows) * config_.data.speech.bucket_seconds[i];
  return seconds;
}

void SpeechRecognition::prepare(Ops& ops) {
  model_.make_tables(ops);
  int64_t rows = 0, frames = 0, feature_frames = 0, targets = 0;
  for (const bool training : {true, false}) {
    if (!training && !has_validation()) continue;
    for (const SpeechShape& shape : shapes(training)) {
      rows = std::max(rows, shape.rows);
      frames = std::max(frames, shape.rows * shape.frames);
      feature_frames = std::max(feature_frames, shape.rows * shape.feature_frames);
      targets = std::max(targets, shape.rows * shape.targets);
    }
  }
  const auto integers = [](int64_t count) { return Tensor{nullptr, DType::i32, {count}}; };
  const auto floats = [](int64_t count) { return Tensor{nullptr, DType::f32, {count}}; };
  largest_.features = floats(feature_frames * config_.model.speech.mel_bins);
  largest_.feature_lengths = integers(rows);
  largest_.frame_lengths = integers(rows);
  largest_.positions = floats(frames);
  largest_.targets = integers(targets);
  largest_.target_lengths = integers(rows);
  largest_.losses = {nullptr, ops.accumulate_dtype(), {rows}};
  sums_ = {nullptr, ops.accumulate_dtype(), {ctc_sum_slots}};
  Tensor* const all[] = {
      &largest_.features, &largest_.feature_lengths, &largest_.frame_lengths, &largest_.positions,
      &largest_.targets,  &largest_.target_lengths,  &largest_.losses,        &sums_};
  const auto padded = [](const Tensor* x) {
    return (x->bytes() + Arena::alignment - 1) / Arena::alignment * Arena::alignment;
  };
  batch_bytes_ = 0;
  for (const Tensor* tensor : all) batch_bytes_ += padded(tensor);
  if (ops.is_planning()) return;
  memory_ = ops.allocate(batch_bytes_);
  auto* next = static_cast<std::byte*>(memory_.get());
  for (Tensor* tensor : all) {
    tensor->data = next;
    next += padded(tensor);
  }
}

SpokenBatch SpeechRecognition::view(const SpeechShape& shape) const {
  SpokenBatch batch;
  batch.features =
      part_of(largest_.features, {shape.rows, shape.feature_frames, config_.model.speech.mel_bins});
  batch.feature_lengths = part_of(largest_.feature_lengths, {shape.rows});
  batch.frame_lengths = part_of(largest_.frame_lengths, {shape.rows});
  batch.positions = part_of(largest_.positions, {shape.rows * shape.frames});
  batch.targets = part_of(largest_.targets, {shape.rows, shape.targets});
  batch.target_lengths = part_of(largest_.target_lengths, {shape.rows});
  batch.losses = part_of(largest_.losses, {shape.rows});
  return batch;
}

SpokenBatch SpeechRecognition::upload(Ops& ops, const SpeechBatch& batch) const {
  const SpokenBatch on_device = view(batch.shape);
  ops.upload(on_device.features, batch.features.data());
  ops.upload(on_device.feature_lengths, batch.feature_lengths.data());
  ops.upload(on_device.frame_lengths, batch.frame_lengths.data());
  ops.upload(on_device.positions, batch.positions.data());
  ops.upload(on_device.targets, batch.targets.data());
  ops.upload(on_device.target_lengths, batch.target_lengths.data());
  return on_device;
}

void SpeechRecognition::begin_step(Ops& ops, int64_t step) {
  const int64_t first = step * micro_steps();
  if (!prefetcher_ || prefetcher_->step() != first) {
    prefetcher_.emplace(
        [this](int64_t number) {
          return train_ ? train_->get(global_number(number))
                        : synthetic_speech(config_, global_number(number));
        },
        first, prefetch_depth(config_.data, group().cores(), micro_steps()),
        loader_threads(config_.data, group().cores()));
  }
  step_batches_.clear();
  int64_t targets = 0;
  std::vector<DamagedSample> damaged;
  for (int64_t micro = 0; micro < micro_steps(); ++micro) {
    step_batches_.push_back(*prefetcher_->next());
    const SpeechBatch& batch = step_batches_.back();
    targets += batch.counted_targets;
    damaged.insert(damaged.end(), batch.damaged.begin(), batch.damaged.end());
  }
  if (damage_.train) damage_.train->add(group(), damaged);
  step_targets_ = static_cast<int64_t>(group().sum(static_cast<double>(targets)));
  ops.fill(sums_, 0.0);
  ops.set_random_step(static_cast<uint64_t>(global_number(first)));
}

void SpeechRecognition::micro_step(Context& context, int64_t micro_step) {
  if (context.ops.is_planning()) {
    for (const SpeechShape& shape : shapes(true)) {
      context.batch = shape.rows, context.seq_len = shape.frames;
      model_.train(context, view(shape), 1.0, sums_);
    }
    return;
  }
  if (micro_step > 0) context.ops.next_random_step();
  const SpeechBatch& batch = step_batches_[static_cast<size_t>(micro_step)];
  context.batch = batch.shape.rows;
  context.seq_len = batch.shape.frames;
  if (context.diagnostics) {
    context.diagnostics->weigh(
        std::accumulate(batch.frame_lengths.begin(), batch.frame_lengths.end(), 0.0));
  }
  model_.train(context, upload(context.ops, batch),
               1.0 / static_cast<double>(std::max<int64_t>(1, step_targets_)), sums_);
}

LossReport SpeechRecognition::step_report(Ops& ops) const {
  std::vector<double> sums = host_values(ops, sums_);
  group().sum(sums);
  return mean_of(sums);
}

void SpeechRecognition::count_errors(const SpeechBatch& batch, const std::vector<float>& logits,
                                     std::vector<ErrorCounts>& by_bucket) const {
  const std::vector<double>& limits = config_.data.speech.bucket_seconds;
  const int64_t vocab_size = config_.model.vocab_size;
  std::vector<std::string> texts(batch.entries.size());
#pragma omp parallel for schedule(dynamic, 1)
  for (size_t row = 0; row < batch.entries.size(); ++row) {
    const auto start = static_cast<int64_t>(row) * batch.shape.frames * vocab_size;
    texts[row] = decode_speech(
        letters_,
        std::span(logits).subspan(static_cast<size_t>(start),
                                  static_cast<size_t>(batch.frame_lengths[row] * vocab_size)),
        config_.eval.beam_width);
  }
  for (size_t row = 0; row < batch.entries.size(); ++row) {
    if (batch.entries[row] < 0) continue;
    const SpeechEntry& entry =
        validation_->corpus().entries()[static_cast<size_t>(batch.entries[row])];
    const auto bucket = std::lower_bound(limits.begin(), limits.end(), entry.seconds);
    by_bucket[static_cast<size_t>(bucket - limits.begin())].add(letters_.decode(entry.targets),
                                                                texts[row]);
  }
}

LossReport SpeechRecognition::evaluate(Context& context) {
  Ops& ops = context.ops;
  const int64_t vocab_size = config_.model.vocab_size;
  const auto pass = [&](const SpokenBatch& batch, const SpeechShape& shape) {
    context.batch = shape.rows, context.seq_len = shape.frames;
    ArenaScope scope(context.arena);
    const Tensor logits = context.activation(vocab_size);
    const Tensor wide = context.statistic(logits.shape);
    model_.evaluate(context, batch, logits, sums_);
    ops.copy(logits, wide);
    if (ops.is_planning()) return std::vector<float>();
    const std::vector<double> values = host_values(ops, wide);
    return std::vector<float>(values.begin(), values.end());
  };
  if (ops.is_planning()) {
    for (const SpeechShape& shape : shapes(false)) pass(view(shape), shape);
    return {};
  }
  ops.fill(sums_, 0.0);
  const std::vector<double>& limits = config_.data.speech.bucket_seconds;
  std::vector<ErrorCounts> by_bucket(limits.size());
  // Rank r takes batches r, r + ranks, ...: how many there are need not divide.
  const int64_t ranks = group().size(), rank = group().rank();
  Prefetcher<SpeechBatch> batches(
      [this, ranks, rank](int64_t number) { return validation_->get(number * ranks + rank); }, 0,
      prefetch_depth(config_.data, group().cores(), 1),
      loader_threads(config_.data, group().cores()),
      (validation_->batches_per_pass() - rank + ranks - 1) / ranks);
  std::vector<DamagedSample> damaged;
  while (const std::optional<SpeechBatch> batch = batches.next()) {
    damaged.insert(damaged.end(), batch->damaged.begin(), batch->damaged.end());
    count_errors(*batch, pass(upload(ops, *batch), batch->shape), by_bucket);
  }
  damage_.validation->add(group(), damaged);
  std::vector<double> sums = host_values(ops, sums_);
  group().sum(sums);
  LossReport report = mean_of(sums);
  for (ErrorCounts& counts : by_bucket) add_over_ranks(counts, group());
  ErrorCounts all;
  for (const ErrorCounts& counts : by_bucket) all.add(counts);
  if (all.utterances == 0) throw Error("none of the recordings of data.validation can be read");
  report.letter_error_rate = all.letter_error_rate();
  report.more.emplace_back("word_error_rate", all.word_error_rate());
  for (size_t i = 0; i < limits.size(); ++i) {
    const ErrorCounts& counts = by_bucket[i];
    if (counts.utterances == 0) continue;
    const std::string up_to = fmt::format("_up_to_{:g}s", limits[i]);
    report.more.emplace_back("letter_error_rate" + up_to, counts.letter_error_rate());
    report.more.emplace_back("word_error_rate" + up_to, counts.word_error_rate());
  }
  return report;
}

nlohmann::json SpeechRecognition::data_state(int64_t step) const {
  // The loader is a pure function of the step; the rest says that the steps are of the same data.
  const SpeechDataConfig& speech = config_.data.speech;
  nlohmann::json state{{"step", step},
                       {"global_batch", config_.train.global_batch},
                       {"letters", speech.letters},
                       {"batch_seconds", speech.batch_seconds},
                       {"bucket_seconds", speech.bucket_seconds}};
  if (train_) state["utterances"] = hash_text(train_->corpus().hash());
  damage_.write_to(state);
  return state;
}

void SpeechRecognition::restore_data_state(const nlohmann::json& state) { damage_.restore(state); }

void SpeechRecognition::check_data_state(const nlohmann::json& state) const {
  if (state.value("letters", std::string()) != config_.data.speech.letters) {
    throw Error("the checkpoint was trained with the letters '{}', this config has '{}'",
                state.value("letters", std::string()), config_.data.speech.letters);
  }
  warn_of_other_data(state, data_state(0),
                     {"global_batch", "batch_seconds", "bucket_seconds", "utterances"}, "batches");
}

std::string decode_speech(const Letters& letters, std::span<const float> logits,
                          int64_t beam_width) {
  const int64_t vocab_size = letters.vocab_size();
  return letters.decode(beam_width > 0 ? decode_beam(logits, vocab_size, Letters::blank, beam_width)
                                       : decode_greedy(logits, vocab_size, Letters::blank));
}

}  // namespace sigtrain
