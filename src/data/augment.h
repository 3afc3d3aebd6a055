// From an image of any size to the pixels that the model is trained or judged on.
#pragma once

#include "config/schema.h"
#include "data/image_decoder.h"
#include "data/sample_random.h"

namespace sigtrain {

/// A part of random area, from [smallest_area, 1] of the image's, and aspect ratio, from [3/4, 4/3]
/// with uniform logarithm; where none of ten fits, the largest from the middle with such a ratio
/// (Szegedy et al. 2015, as torchvision's RandomResizedCrop).
Box random_part(ImageSize size, double smallest_area, SampleRandom& random);

/// A rectangle to wipe out: area from [0.02, 0.33] of the image's, aspect ratio from [0.3, 3.3]
/// (Zhong et al. 2020, as torchvision's RandomErasing); no pixels where none of ten fits.
Box random_rectangle(ImageSize size, SampleRandom& random);

/// The factor and order of each part of colour jitter are random.
void jitter_colours(const AugmentConfig& config, SampleRandom& random, Image& image);

/// What becomes of one training image: crop, flip, RandAugment, colour jitter, erasing.
class TrainingView {
 public:
  /// Images get `size` pixels a side; wiped out ones that of `mean`.
  TrainingView(const AugmentConfig& config, int64_t size, const std::vector<double>& mean);

  /// Throws Error if the crop needs an image of another size.
  Part choose(ImageSize size, SampleRandom& random) const;
  Image make(const DecodedPart& part, SampleRandom& random) const;

 private:
  AugmentConfig config_;
  ImageSize out_;
  std::vector<uint8_t> mean_;
};

/// What a model is judged on: the shorter side resized to `resize` (0: the image has the model's
/// size), then the middle of `size` pixels a side.
class EvaluationView {
 public:
  EvaluationView(int64_t resize, int64_t size) : resize_(resize), out_{size, size} {}

  /// Throws Error if the image has another size than the model and is not to be resized,
  /// DamagedImage if resized it would be absurdly long.
  Part choose(ImageSize size) const;
  Image make(const DecodedPart& part) const;

 private:
  int64_t resize_;
  ImageSize out_;
};

}  // namespace sigtrain
