// Batches of images for a classifier, each a micro-batch of training. A batch is a pure function of
// its number, so a run resumes at the exact sample with no state but its step, any thread may make
// any batch, and what a step sees does not depend on how many ranks share it.
#pragma once

#include <functional>
#include <memory>

#include "config/schema.h"
#include "data/augment.h"
#include "data/image_batch.h"
#include "data/image_set.h"
#include "data/prefetcher.h"

namespace sigtrain {

/// Where batches come from, train.micro_batch images each. Those to train with are numbered over
/// the whole run. Safe to call from many threads.
class ImageSource {
 public:
  virtual ~ImageSource() = default;

  ImageBatch get(int64_t number) const {
    return maker([](int64_t step) { return step; }).make(number);
  }
  /// For a Prefetcher whose step is the batch of `number(step)`. The source must outlive it.
  BatchMaker<ImageBatch> maker(std::function<int64_t(int64_t)> number) const;

 protected:
  /// How BatchMaker has it.
  virtual ImageBatch begin(int64_t number) const = 0;
  virtual int64_t pieces() const { return 0; }
  virtual void make_piece(int64_t number, int64_t piece, ImageBatch& batch) const {}
  virtual void finish(int64_t number, ImageBatch& batch) const {}
};

/// A source whose batches are made a few rows at a time.
class ImageRows : public ImageSource {
 public:
  /// `batch` rows, each `bytes` long.
  ImageRows(int64_t batch, int64_t bytes) : batch_(batch), bytes_(bytes) {}

 protected:
  ImageBatch begin(int64_t number) const final;
  int64_t pieces() const final;
  void make_piece(int64_t number, int64_t piece, ImageBatch& batch) const final;
  void finish(int64_t number, ImageBatch& batch) const final;

  /// Writes the image into `pixels` and returns its label. Adds what it could not read to
  /// `damaged`.
  virtual int32_t make_row(int64_t number, int64_t row, uint8_t* pixels,
                           std::vector<DamagedSample>& damaged) const = 0;
  /// Once all rows are there.
  virtual void mix_rows(int64_t number, ImageBatch& batch) const {}

  int64_t batch_, bytes_;
};

/// For training, without end: in each epoch every image once (augment.repeats times in a row), in a
/// pseudo-random order. In the place of a damaged image comes the next one of the set; where none
/// of the set can be read, it throws Error. Images are mixed with others of their micro-batch.
class ShuffledImages final : public ImageRows {
 public:
  ShuffledImages(std::shared_ptr<const ImageSet> images, const Config& config);

 private:
  int32_t make_row(int64_t number, int64_t row, uint8_t* pixels,
                   std::vector<DamagedSample>& damaged) const override;
  void mix_rows(int64_t number, ImageBatch& batch) const override;
  Image view(int64_t index, int64_t sample) const;

  std::shared_ptr<const ImageSet> images_;
  int64_t channels_, classes_, size_;
  uint64_t seed_;
  AugmentConfig augment_;
  double label_smoothing_;
  TrainingView view_;
};

/// For evaluation: each image once, in order. The last batch is filled up with rows without a
/// label; a damaged image is such a row.
class ImageEvaluation final : public ImageRows {
 public:
  /// config.eval.sequences of the images, evenly spaced, as sets lie class by class (0: all);
  /// config.train.micro_batch at a time.
  ImageEvaluation(std::shared_ptr<const ImageSet> images, const Config& config);

  int64_t batches() const { return (count_ + batch_ - 1) / batch_; }

 private:
  int32_t make_row(int64_t number, int64_t row, uint8_t* pixels,
                   std::vector<DamagedSample>& damaged) const override;

  std::shared_ptr<const ImageSet> images_;
  int64_t channels_, count_;
  EvaluationView view_;
};

/// Random pixels and labels, without files: to measure speed, and to test.
class SyntheticImages final : public ImageSource {
 public:
  explicit SyntheticImages(const Config& config);

 private:
  ImageBatch begin(int64_t number) const override;

  int64_t batch_, bytes_, classes_;
  uint64_t seed_;
};

}  // namespace sigtrain
