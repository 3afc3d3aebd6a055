// Batches of images for a classifier, each a micro-batch of training. A batch is a pure function of
// its number, so a run resumes at the exact sample with no state but its step, any thread may make
// any batch, and what a step sees does not depend on how many ranks share it.
#pragma once

#include <memory>

#include "config/schema.h"
#include "data/augment.h"
#include "data/image_batch.h"
#include "data/image_set.h"

namespace sigtrain {

/// Where training batches come from, train.micro_batch images each. Micro-batches are numbered over
/// the whole run. get is safe to call from many threads.
class ImageSource {
 public:
  virtual ~ImageSource() = default;
  virtual ImageBatch get(int64_t number) const = 0;
};

/// For training, without end: in each epoch every image once (augment.repeats times in a row), in a
/// pseudo-random order. In the place of a damaged image comes the next one of the set. Images are
/// mixed with others of their micro-batch.
class ShuffledImages final : public ImageSource {
 public:
  ShuffledImages(std::shared_ptr<const ImageSet> images, const Config& config);

  /// Throws Error if no image of the set can be read.
  ImageBatch get(int64_t number) const override;

 private:
  Image view(int64_t index, int64_t sample) const;

  std::shared_ptr<const ImageSet> images_;
  int64_t batch_, channels_, classes_, size_;
  uint64_t seed_;
  AugmentConfig augment_;
  double label_smoothing_;
  TrainingView view_;
};

/// For evaluation: each image once, in order. The last batch is filled up with rows without a
/// label; a damaged image is such a row.
class ImageEvaluation {
 public:
  /// config.eval.sequences of the images, evenly spaced, as sets lie class by class (0: all);
  /// config.train.micro_batch at a time.
  ImageEvaluation(std::shared_ptr<const ImageSet> images, const Config& config);

  int64_t batches() const { return (count_ + batch_ - 1) / batch_; }
  ImageBatch get(int64_t number) const;

 private:
  std::shared_ptr<const ImageSet> images_;
  int64_t batch_, channels_, size_, count_;
  EvaluationView view_;
};

/// Random pixels and labels, without files: to measure speed, and to test.
class SyntheticImages final : public ImageSource {
 public:
  explicit SyntheticImages(const Config& config);
  ImageBatch get(int64_t number) const override;

 private:
  int64_t batch_, bytes_, classes_;
  uint64_t seed_;
};

}  // namespace sigtrain
