// Batches of speech of about equal total duration. A batch is a pure function of its number, so a
// run resumes at the exact utterance with no state but its step, and any thread may make any batch.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "config/schema.h"
#include "data/damaged_sample.h"
#include "data/fbank.h"
#include "data/speech_corpus.h"

namespace sigtrain {

/// What every batch of a bucket is padded to.
struct SpeechShape {
  int64_t rows = 0;
  int64_t feature_frames = 0;
  int64_t frames = 0;   // the model's
  int64_t targets = 0;  // the most of a row, at least 1
};

/// The largest shape of each bucket that holds utterances of up to `longest` seconds. Their targets
/// are those of `corpus`'s longest transcript in the bucket; without a corpus as many as CTC can
/// find in the frames, one in each, or those of synthetic data.
std::vector<SpeechShape> speech_shapes(const Config& config, double longest,
                                       const SpeechCorpus* corpus);
/// In seconds: the longest utterances that are trained with, and that are evaluated.
double longest_in_training(const Config& config);
double longest_in_evaluation(const Config& config);

/// Rows that hold no utterance, at the end of a bucket or where a recording turned out damaged,
/// have no frames and no targets.
struct SpeechBatch {
  SpeechShape shape;
  std::vector<float> features;           // [rows, feature_frames, bins], normalised; padding is 0
  std::vector<int32_t> feature_lengths;  // [rows]
  std::vector<int32_t> frame_lengths;    // [rows], of the model
  std::vector<float> positions;          // [rows, frames], with CAPE as it moved them
  std::vector<int32_t> targets;          // [rows, targets]
  std::vector<int32_t> target_lengths;   // [rows]
  std::vector<int64_t> entries;          // [rows] of the corpus; -1: none
  int64_t counted_targets = 0;           // of rows with frames enough for them
  std::vector<DamagedSample> damaged;    // recordings of this batch that cannot be heard
};

class SpeechLoader {
 public:
  /// With `training`, each pass visits every utterance once, in an order of its own, augmented
  /// afresh; without, in order of bucket and as they are.
  SpeechLoader(std::shared_ptr<const SpeechCorpus> corpus, const Config& config, bool training);

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
  Config config_;
  bool training_;
  FilterBank filter_bank_;
  std::vector<Bucket> buckets_;
  int64_t batches_per_pass_ = 0;
};

/// Normalised features [frames, bins] of an utterance at a speed. Throws Error naming the recording
/// where it cannot be read or resampled, or is shorter than a frame.
std::vector<float> speech_features(const Utterance& utterance, double speed, int64_t sample_rate,
                                   const FilterBank& filter_bank);

/// Full batches of the last bucket, of random features and letters: to measure speed. A function of
/// the number.
SpeechBatch synthetic_speech(const Config& config, int64_t number);

}  // namespace sigtrain
