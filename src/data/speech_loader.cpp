#include "data/speech_loader.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/error.h"
#include "core/philox.h"
#include "data/audio_file.h"
#include "data/permutation.h"

namespace sigtrain {
namespace {

// Of RandomStream's 2^24 streams: below those of tokens, far from those of parameters and dropout.
constexpr uint64_t kBatchOrderStream = 0xFFFE00;
constexpr uint64_t kSpeedStream = 0xFFFE01;
constexpr uint64_t kMaskStream = 0xFFFE02;
constexpr uint64_t kPositionStream = 0xFFFE03;
constexpr uint64_t kFirstBucketStream = 0xFFFE10;  // and one for each bucket behind it

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/// Uniform in [-most, most).
double symmetric(uint32_t bits, double most) {
  return (2.0 * static_cast<double>(uniform_from_bits(bits)) - 1.0) * most;
}

}  // namespace

std::vector<SpeechShape> speech_shapes(const SpeechLoaderSettings& settings) {
  const FilterBank bank(settings.sample_rate, 1);
  std::vector<SpeechShape> shapes;
  for (const double seconds : settings.bucket_seconds) {
    // At its slowest an utterance is longer than it was.
    const double longest = seconds / (1.0 - settings.speed_perturbation);
    SpeechShape shape;
    shape.feature_frames = std::max<int64_t>(
        1, bank.frames(static_cast<int64_t>(longest * static_cast<double>(settings.sample_rate))));
    shape.frames = ceil_div(shape.feature_frames, settings.frame_stride);
    shape.rows = std::max<int64_t>(1, static_cast<int64_t>(settings.batch_seconds / longest));
    shapes.push_back(shape);
  }
  return shapes;
}

SpeechLoader::SpeechLoader(std::shared_ptr<const SpeechCorpus> corpus,
                           SpeechLoaderSettings settings, bool training)
    : corpus_(std::move(corpus)),
      settings_(std::move(settings)),
      training_(training),
      filter_bank_(settings_.sample_rate, settings_.bins) {
  for (const SpeechShape& shape : speech_shapes(settings_)) buckets_.push_back({shape, {}});
  const std::vector<double>& limits = settings_.bucket_seconds;
  const auto& entries = corpus_->entries();
  for (size_t i = 0; i < entries.size(); ++i) {
    const auto limit = std::lower_bound(limits.begin(), limits.end(), entries[i].seconds);
    if (limit == limits.end()) {
      throw Error("{}: {:.2f} s are more than the last of data.audio.bucket_seconds, {}",
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

std::vector<float> speech_features(const Utterance& utterance, double speed,
                                   const SpeechLoaderSettings& settings,
                                   const FilterBank& filter_bank) {
  const auto rate = static_cast<double>(audio_info(utterance.path).sample_rate);
  const std::vector<float> samples =
      resample(read_audio(utterance.path, utterance.start, utterance.duration),
               static_cast<double>(settings.sample_rate) / (rate * speed));
  std::vector<float> features = filter_bank.compute(samples);
  if (features.empty()) throw Error("{}: shorter than a window of 25 ms", utterance.path);
  normalize_features(features, settings.bins);
  return features;
}

SpeechBatch SpeechLoader::get(int64_t number) const {
  const auto pass = static_cast<uint64_t>(number / batches_per_pass_);
  int64_t index = number % batches_per_pass_;
  if (training_) {
    const Permutation order(static_cast<uint64_t>(batches_per_pass_),
                            {settings_.seed, kBatchOrderStream}, pass);
    index = static_cast<int64_t>(order(static_cast<uint64_t>(index)));
  }
  size_t chosen = 0;
  while (index >= buckets_[chosen].batches()) index -= buckets_[chosen++].batches();
  const Bucket& bucket = buckets_[chosen];

  SpeechBatch batch;
  batch.shape = bucket.shape;
  const auto rows = static_cast<size_t>(batch.shape.rows),
             frames = static_cast<size_t>(batch.shape.frames);
  batch.features.assign(rows * static_cast<size_t>(batch.shape.feature_frames * settings_.bins),
                        0.0F);
  batch.feature_lengths.assign(rows, 0);
  batch.frame_lengths.assign(rows, 0);
  batch.positions.assign(rows * frames, 0.0F);
  batch.targets.assign(rows * frames, 0);
  batch.target_lengths.assign(rows, 0);
  batch.entries.assign(rows, -1);
  const auto in_bucket = static_cast<int64_t>(bucket.entries.size());
  const Permutation order(static_cast<uint64_t>(in_bucket),
                          {settings_.seed, kFirstBucketStream + chosen}, pass);
  for (int64_t row = 0; row < batch.shape.rows; ++row) {
    int64_t place = index * batch.shape.rows + row;
    if (place >= in_bucket) break;
    if (training_) place = static_cast<int64_t>(order(static_cast<uint64_t>(place)));
    const int64_t entry = bucket.entries[static_cast<size_t>(place)];
    const uint64_t sample = pass * corpus_->entries().size() + static_cast<uint64_t>(entry);
    try {
      fill_row(batch, row, entry, sample);
    } catch (const Error& error) {
      batch.damaged.emplace_back(error.what());
    }
  }
  return batch;
}

void SpeechLoader::fill_row(SpeechBatch& batch, int64_t row, int64_t entry_index,
                            uint64_t sample) const {
  const SpeechEntry& entry = corpus_->entries()[static_cast<size_t>(entry_index)];
  double speed = 1.0;
  if (training_ && settings_.speed_perturbation > 0.0) {
    const Philox random = RandomStream{settings_.seed, kSpeedStream}.block(0, sample);
    const auto choice = static_cast<double>(uint64_t{random.words[0]} * 3 >> 32);
    speed += (choice - 1.0) * settings_.speed_perturbation;
  }
  std::vector<float> features = speech_features(entry.utterance, speed, settings_, filter_bank_);
  const int64_t bins = settings_.bins;
  // Rounding may have made a frame more than the bucket's longest has.
  const int64_t feature_frames =
      std::min(static_cast<int64_t>(features.size()) / bins, batch.shape.feature_frames);
  features.resize(static_cast<size_t>(feature_frames * bins));
  if (training_ && !settings_.spec_augment.is_off())
    spec_augment(settings_.spec_augment, {settings_.seed, kMaskStream}, sample, features, bins);

  const auto at = static_cast<size_t>(row);
  const int64_t frames = ceil_div(feature_frames, settings_.frame_stride);
  const auto most = static_cast<size_t>(batch.shape.frames);
  if (entry.targets.size() > most)
    throw Error("{}: {} letters in {} frames", entry.utterance.path, entry.targets.size(), most);
  std::copy(features.begin(), features.end(),
            batch.features.begin() + row * batch.shape.feature_frames * bins);
  std::copy(entry.targets.begin(), entry.targets.end(),
            batch.targets.begin() + row * batch.shape.frames);
  batch.feature_lengths[at] = static_cast<int32_t>(feature_frames);
  batch.frame_lengths[at] = static_cast<int32_t>(frames);
  batch.target_lengths[at] = static_cast<int32_t>(entry.targets.size());
  batch.entries[at] = entry_index;
  fill_positions(batch, row, sample);
  batch.seconds += entry.seconds / speed;
  if (ctc_frames_needed(entry.targets) <= frames)
    batch.counted_targets += static_cast<int64_t>(entry.targets.size());
}

void SpeechLoader::fill_positions(SpeechBatch& batch, int64_t row, uint64_t sample) const {
  const PositionAugment& augment = settings_.positions;
  const RandomStream stream{settings_.seed, kPositionStream};
  double shift = 0.0, scale = 1.0;
  if (training_) {
    const Philox random = stream.block(0, sample);
    shift = symmetric(random.words[0], augment.global_shift);
    scale = std::exp(symmetric(random.words[1], std::log(augment.scale)));
  }
  for (int64_t t = 0; t < batch.shape.frames; ++t) {
    double position = static_cast<double>(t) + shift;
    if (training_ && augment.local_shift > 0.0) {
      const Philox random = stream.block(1 + static_cast<uint64_t>(t / 4), sample);
      position += symmetric(random.words[t % 4], augment.local_shift);
    }
    batch.positions[static_cast<size_t>(row * batch.shape.frames + t)] =
        static_cast<float>(position * scale);
  }
}

}  // namespace sigtrain
