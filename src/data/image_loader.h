// Batches of images for a classifier. A batch is a pure function of the step, so a run resumes at
// the exact sample with no state but its step, and any thread may make any batch.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <set>

#include "config/schema.h"
#include "data/augment.h"
#include "data/image_batch.h"
#include "data/image_set.h"

namespace sigtrain {

/// Counts the damaged images of a set and names each once. Safe to use from many threads.
class DamageCount {
 public:
  /// More than `largest_share` of the set's `size` images may not be damaged.
  DamageCount(int64_t size, double largest_share) : size_(size), largest_share_(largest_share) {}

  /// Throws Error when they are too many.
  void add(int64_t index, const std::string& name, const std::string& reason);
  int64_t count() const;

 private:
  int64_t size_;
  double largest_share_;
  mutable std::mutex mutex_;
  std::set<int64_t> damaged_;
};

/// Where training batches come from. get is safe to call from many threads.
class ImageSource {
 public:
  virtual ~ImageSource() = default;
  virtual ImageBatch get(int64_t step) const = 0;
};

/// For training, without end: in each epoch every image once (augment.repeats times in a row), in a
/// pseudo-random order. In the place of a damaged image comes the next one of the set.
class ShuffledImages final : public ImageSource {
 public:
  ShuffledImages(std::shared_ptr<const ImageSet> images, const Config& config);

  ImageBatch get(int64_t step) const override;
  int64_t damaged() const { return damage_.count(); }

 private:
  Image view(int64_t index, int64_t sample) const;

  std::shared_ptr<const ImageSet> images_;
  int64_t batch_, channels_, classes_, size_;
  uint64_t seed_;
  AugmentConfig augment_;
  double label_smoothing_;
  TrainingView view_;
  mutable DamageCount damage_;
};

/// For evaluation: each image once, in order. The last batch is filled up with rows without a
/// label; a damaged image is such a row.
class ImageEvaluation {
 public:
  /// config.eval.sequences of the images, evenly spaced, as sets lie class by class (0: all);
  /// config.train.micro_batch at a time.
  ImageEvaluation(std::shared_ptr<const ImageSet> images, const Config& config);

  int64_t steps() const { return (count_ + batch_ - 1) / batch_; }
  ImageBatch get(int64_t step) const;
  int64_t damaged() const { return damage_.count(); }

 private:
  std::shared_ptr<const ImageSet> images_;
  int64_t batch_, channels_, size_, count_;
  EvaluationView view_;
  mutable DamageCount damage_;
};

/// Random pixels and labels, without files: to measure speed, and to test.
class SyntheticImages final : public ImageSource {
 public:
  explicit SyntheticImages(const Config& config);
  ImageBatch get(int64_t step) const override;

 private:
  int64_t batch_, bytes_, classes_;
  uint64_t seed_;
};

}  // namespace sigtrain
