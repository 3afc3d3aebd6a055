#include "data/speech_loader.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "config/derived.h"
#include "core/ctc_frames.h"
#include "core/error.h"
#include "core/philox.h"
#include "data/audio_file.h"
#include "data/permutation.h"
#include "data/spec_augment.h"

namespace sigtrain {
namespace {

// Of RandomStream's 2^24 streams: below those of tokens, far from those of parameters and dropout.
constexpr uint64_t kBatchOrderStream = 0xFFFE00;
constexpr uint64_t kSpeedStream = 0xFFFE01;
constexpr uint64_t kMaskStream = 0xFFFE02;
constexpr uint64_t kPositionStream = 0xFFFE03;
constexpr uint64_t kSyntheticStream = 0xFFFE04;
constexpr uint64_t kFirstBucketStream = 0xFFFE10;  // and one for each bucket behind it

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/// Uniform in [-most, most).
double symmetric(uint32_t bits, double most) {
  return (2.0 * static_cast<double>(uniform_from_bits(bits)) - 1.0) * most;
}

}  // namespace

double longest_in_evaluation(const Config& config) {
  return config.data.speech.bucket_seconds.back();
}

double longest_in_training(const Config& config) {
  const double most = config.data.speech.train_max_seconds;
  const double last = longest_in_evaluation(config);
  return most > 0.0 ? std::min(most, last) : last;
}

std::vector<SpeechShape> speech_shapes(const Config& config, double longest,
                                       const SpeechCorpus* corpus) {
  const std::vector<double>& limits = config.data.speech.bucket_seconds;
  std::vector<SpeechShape> shapes;
  double before = 0.0;
  for (const double seconds : limits) {
    if (longest <= before) break;
    before = seconds;
    SpeechShape shape;
    shape.feature_frames = longest_feature_frames(config, seconds);
    shape.frames = speech_frames(config.model.speech, shape.feature_frames);
    shape.rows =
        std::max<int64_t>(1, static_cast<int64_t>(config.data.speech.batch_seconds / seconds));
    // About what English has a second is half a letter a frame.
    const bool is_synthetic = config.data.source == DataSource::synthetic;
    shape.targets = corpus ? 1 : std::max<int64_t>(1, shape.frames / (is_synthetic ? 2 : 1));
    shapes.push_back(shape);
  }
  if (!corpus) return shapes;
  for (const SpeechEntry& entry : corpus->entries()) {
    const auto bucket = std::lower_bound(limits.begin(), limits.end(), entry.seconds);
    const auto i = static_cast<size_t>(bucket - limits.begin());
    if (i >= shapes.size()) continue;
    shapes[i].targets = std::max(shapes[i].targets, static_cast<int64_t>(entry.targets.size()));
  }
  return shapes;
}

namespace {

/// A batch of this shape without utterances.
SpeechBatch empty_batch(const SpeechShape& shape, int64_t bins) {
  SpeechBatch batch;
  batch.shape = shape;
  const auto rows = static_cast<size_t>(shape.rows);
  batch.features.assign(rows * static_cast<size_t>(shape.feature_frames * bins), 0.0F);
  batch.feature_lengths.assign(rows, 0);
  batch.frame_lengths.assign(rows, 0);
  batch.positions.assign(rows * static_cast<size_t>(shape.frames), 0.0F);
  batch.targets.assign(rows * static_cast<size_t>(shape.targets), 0);
  batch.target_lengths.assign(rows, 0);
  batch.entries.assign(rows, -1);
  return batch;
}

}  // namespace

SpeechLoader::SpeechLoader(std::shared_ptr<const SpeechCorpus> corpus, const Config& config,
                           bool training)
    : corpus_(std::move(corpus)),
      config_(config),
      training_(training),
      filter_bank_(config.data.speech.sample_rate, config.model.speech.mel_bins) {
  for (const SpeechShape& shape :
       speech_shapes(config, longest_in_evaluation(config), corpus_.get()))
    buckets_.push_back({shape, {}});
  const std::vector<double>& limits = config_.data.speech.bucket_seconds;
  const auto& entries = corpus_->entries();
  for (size_t i = 0; i < entries.size(); ++i) {
    const auto limit = std::lower_bound(limits.begin(), limits.end(), entries[i].seconds);
    if (limit == limits.end()) {
      throw Error("{}: {:.2f} s are more than the last of data.speech.bucket_seconds, {}",
                  entries[i].utterance.path, entries[i].seconds,
                  limits.empty() ? 0.0 : limits.back());
    }
    buckets_[static_cast<size_t>(limit - limits.begin())].entries.push_back(
        static_cast<int64_t>(i));
  }
  std::erase_if(buckets_, [](const Bucket& bucket) { return bucket.entries.empty(); });
  for (Bucket& bucket : buckets_) {
    // The batches of a bucket are of one shape, and so that the last is nearly as full as the rest.
    bucket.shape.rows = ceil_div(static_cast<int64_t>(bucket.entries.size()), bucket.batches());
    batches_per_pass_ += bucket.batches();
  }
}

std::vector<float> speech_features(const Utterance& utterance, double speed, int64_t sample_rate,
                                   const FilterBank& filter_bank) {
  Audio audio = read_audio(utterance.path, utterance.start, utterance.duration);
  const double ratio =
      static_cast<double>(sample_rate) / (static_cast<double>(audio.sample_rate) * speed);
  try {
    audio.samples = resample(std::move(audio.samples), ratio);
  } catch (const Error& error) {
    throw Error("{}, of {} Hz: {}", utterance.path, audio.sample_rate, error.what());
  }
  std::vector<float> features = filter_bank.compute(audio.samples);
  if (features.empty()) throw Error("{}: shorter than a window of 25 ms", utterance.path);
  normalize_features(features, filter_bank.bins());
  return features;
}

SpeechBatch SpeechLoader::get(int64_t number) const {
  const auto pass = static_cast<uint64_t>(number / batches_per_pass_);
  int64_t index = number % batches_per_pass_;
  if (training_) {
    const Permutation order(static_cast<uint64_t>(batches_per_pass_),
                            {config_.train.seed, kBatchOrderStream}, pass);
    index = static_cast<int64_t>(order(static_cast<uint64_t>(index)));
  }
  size_t chosen = 0;
  while (index >= buckets_[chosen].batches()) index -= buckets_[chosen++].batches();
  const Bucket& bucket = buckets_[chosen];

  SpeechBatch batch = empty_batch(bucket.shape, config_.model.speech.mel_bins);
  const auto in_bucket = static_cast<int64_t>(bucket.entries.size());
  const Permutation order(static_cast<uint64_t>(in_bucket),
                          {config_.train.seed, kFirstBucketStream + chosen}, pass);
  for (int64_t row = 0; row < batch.shape.rows; ++row) {
    int64_t place = index * batch.shape.rows + row;
    if (place >= in_bucket) break;
    if (training_) place = static_cast<int64_t>(order(static_cast<uint64_t>(place)));
    const int64_t entry = bucket.entries[static_cast<size_t>(place)];
    const uint64_t sample = pass * corpus_->entries().size() + static_cast<uint64_t>(entry);
    try {
      fill_row(batch, row, entry, sample);
    } catch (const Error& error) {
      batch.damaged.push_back({entry, error.what()});
    }
  }
  return batch;
}

void SpeechLoader::fill_row(SpeechBatch& batch, int64_t row, int64_t entry_index,
                            uint64_t sample) const {
  const SpeechEntry& entry = corpus_->entries()[static_cast<size_t>(entry_index)];
  double speed = 1.0;
  if (training_ && config_.augment.speech.speed > 0.0) {
    const Philox random = RandomStream{config_.train.seed, kSpeedStream}.block(0, sample);
    const auto choice = static_cast<double>(uint64_t{random.words[0]} * 3 >> 32);
    speed += (choice - 1.0) * config_.augment.speech.speed;
  }
  std::vector<float> features =
      speech_features(entry.utterance, speed, config_.data.speech.sample_rate, filter_bank_);
  const int64_t bins = filter_bank_.bins();
  // Rounding may have made a frame more than the bucket's longest has.
  const int64_t frames_there =
      std::min(static_cast<int64_t>(features.size()) / bins, batch.shape.feature_frames);
  features.resize(static_cast<size_t>(frames_there * bins));
  if (training_)
    spec_augment(config_.augment.speech, {config_.train.seed, kMaskStream}, sample, features, bins);

  const auto at = static_cast<size_t>(row);
  const int64_t frames = speech_frames(config_.model.speech, frames_there);
  std::copy(features.begin(), features.end(),
            batch.features.begin() + row * batch.shape.feature_frames * bins);
  std::copy(entry.targets.begin(), entry.targets.end(),
            batch.targets.begin() + row * batch.shape.targets);
  batch.feature_lengths[at] = static_cast<int32_t>(frames_there);
  batch.frame_lengths[at] = static_cast<int32_t>(frames);
  batch.target_lengths[at] = static_cast<int32_t>(entry.targets.size());
  batch.entries[at] = entry_index;
  fill_positions(batch, row, sample);
  if (ctc_frames_needed(entry.targets) <= frames)
    batch.counted_targets += static_cast<int64_t>(entry.targets.size());
}

void SpeechLoader::fill_positions(SpeechBatch& batch, int64_t row, uint64_t sample) const {
  const PositionConfig& position = config_.model.position;
  const bool moved = training_ && position.kind == PositionKind::cape;
  const RandomStream stream{config_.train.seed, kPositionStream};
  double shift = 0.0, scale = 1.0;
  if (moved) {
    const Philox random = stream.block(0, sample);
    shift = symmetric(random.words[0], position.cape_global_shift);
    scale = std::exp(symmetric(random.words[1], std::log(position.cape_scale)));
  }
  for (int64_t t = 0; t < batch.shape.frames; ++t) {
    double at = static_cast<double>(t) + shift;
    if (moved && position.cape_local_shift > 0.0) {
      const Philox random = stream.block(1 + static_cast<uint64_t>(t / 4), sample);
      at += symmetric(random.words[t % 4], position.cape_local_shift);
    }
    batch.positions[static_cast<size_t>(row * batch.shape.frames + t)] =
        static_cast<float>(at * scale);
  }
}

SpeechBatch synthetic_speech(const Config& config, int64_t number) {
  const SpeechShape shape = speech_shapes(config, longest_in_training(config), nullptr).back();
  const int64_t bins = config.model.speech.mel_bins;
  SpeechBatch batch = empty_batch(shape, bins);
  const RandomStream stream{config.train.seed, kSyntheticStream};
  const auto step = static_cast<uint64_t>(number);
  // Of mean 0 and variance 1, as normalised features are.
  for (size_t i = 0; i < batch.features.size(); ++i) {
    const Philox random = stream.block(i / 4, step);
    batch.features[i] = static_cast<float>(symmetric(random.words[i % 4], std::sqrt(3.0)));
  }
  const auto letters = static_cast<uint64_t>(config.data.speech.letters.size());
  for (int64_t row = 0; row < shape.rows; ++row) {
    const auto at = static_cast<size_t>(row);
    batch.feature_lengths[at] = static_cast<int32_t>(shape.feature_frames);
    batch.frame_lengths[at] = static_cast<int32_t>(shape.frames);
    batch.target_lengths[at] = static_cast<int32_t>(shape.targets);
    for (int64_t t = 0; t < shape.frames; ++t)
      batch.positions[static_cast<size_t>(row * shape.frames + t)] = static_cast<float>(t);
    // Of neighbours, so that none are equal and the frames are always enough.
    for (int64_t i = row * shape.targets; i < (row + 1) * shape.targets; ++i) {
      batch.targets[static_cast<size_t>(i)] =
          1 + static_cast<int32_t>((static_cast<uint64_t>(i) + step) % letters);
    }
  }
  batch.counted_targets = shape.rows * shape.targets;
  return batch;
}

}  // namespace sigtrain
