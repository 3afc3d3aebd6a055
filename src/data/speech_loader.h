// Batches of speech of about equal total duration. A batch is a pure function of its number, so a
// run resumes at the exact utterance with no state but its step, and any thread may make any batch.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "data/fbank.h"
#include "data/spec_augment.h"
#include "data/speech_corpus.h"

namespace sigtrain {

/// CAPE (Likhomanenko et al. 2021): positions (t + global + local[t]) * scale, in the model's
/// frames, global and local uniform in [-max, max], log scale in [-log max, log max].
struct PositionAugment {
  double global_shift = 0.0, local_shift = 0.0, scale = 1.0;
};

struct SpeechLoaderSettings {
  int64_t sample_rate = 16000;
  int64_t bins = 80;
  int64_t frame_stride = 3;            // feature frames to one of the model's
  std::vector<double> bucket_seconds;  // rising: utterances up to each are batched together
  double batch_seconds = 120.0;        // of a batch, padding included
  uint64_t seed = 1;
  // In training alone:
  double speed_perturbation = 0.0;  // speeds 1 - p, 1 and 1 + p (Ko et al. 2015)
  SpecAugment spec_augment;
  PositionAugment positions;
};

/// What every batch of a bucket is padded to.
struct SpeechShape {
  int64_t rows = 0;
  int64_t feature_frames = 0;
  int64_t frames = 0;  // the model's; also the most targets of a row
};

/// The largest shape of each bucket.
std::vector<SpeechShape> speech_shapes(const SpeechLoaderSettings& settings);

/// Rows that hold no utterance, at the end of a bucket or where a recording turned out damaged,
/// have no frames and no targets.
struct SpeechBatch {
  SpeechShape shape;
  std::vector<float> features;           // [rows, feature_frames, bins], normalised; padding is 0
  std::vector<int32_t> feature_lengths;  // [rows]
  std::vector<int32_t> frame_lengths;    // [rows], of the model
  std::vector<float> positions;          // [rows, frames]
  std::vector<int32_t> targets;          // [rows, frames]
  std::vector<int32_t> target_lengths;   // [rows]
  std::vector<int64_t> entries;          // [rows] of the corpus; -1: none
  int64_t counted_targets = 0;           // of rows with frames enough for them
  double seconds = 0.0;                  // of speech, as heard by the model
  std::vector<std::string> damaged;      // what went wrong with recordings of this batch
};

class SpeechLoader {
 public:
  /// With `training`, each pass visits every utterance once, in an order of its own, augmented
  /// afresh; without, in order of bucket and as they are.
  SpeechLoader(std::shared_ptr<const SpeechCorpus> corpus, SpeechLoaderSettings settings,
               bool training);

  /// Batch `number` of an endless run of passes. Safe to call from many threads.
  SpeechBatch get(int64_t number) const;
  int64_t batches_per_pass() const { return batches_per_pass_; }
  const SpeechCorpus& corpus() const { return *corpus_; }

 private:
  struct Bucket {
    SpeechShape shape;
    std::vector<int64_t> entries;
    int64_t batches() const {
      return (static_cast<int64_t>(entries.size()) + shape.rows - 1) / shape.rows;
    }
  };

  void fill_row(SpeechBatch& batch, int64_t row, int64_t entry, uint64_t sample) const;
  void fill_positions(SpeechBatch& batch, int64_t row, uint64_t sample) const;

  std::shared_ptr<const SpeechCorpus> corpus_;
  SpeechLoaderSettings settings_;
  bool training_;
  FilterBank filter_bank_;
  std::vector<Bucket> buckets_;
  int64_t batches_per_pass_ = 0;
};

/// Normalised features [frames, bins] of an utterance at a speed. Throws what read_audio throws.
std::vector<float> speech_features(const Utterance& utterance, double speed,
                                   const SpeechLoaderSettings& settings,
                                   const FilterBank& filter_bank);

}  // namespace sigtrain
