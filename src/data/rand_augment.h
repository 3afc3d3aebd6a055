// RandAugment (Cubuk et al. 2020), with the operations and strengths of torchvision's.
#pragma once

#include <cstdint>

#include "data/image.h"
#include "data/sample_random.h"

namespace sigtrain {

enum class RandAugmentOp : uint8_t {
  identity,
  shear_x,
  shear_y,
  translate_x,
  translate_y,
  rotate,
  brightness,
  color,
  contrast,
  sharpness,
  posterize,
  solarize,
  autocontrast,
  equalize
};
constexpr int kRandAugmentOps = 14;
constexpr int64_t kLargestMagnitude = 30;

/// One operation at magnitude 0 ... kLargestMagnitude. Those with a direction go the other way if
/// `negative`.
void apply(RandAugmentOp op, int64_t magnitude, bool negative, Image& image);

/// `count` operations drawn with equal probability, each with a random direction.
void rand_augment(int64_t count, int64_t magnitude, SampleRandom& random, Image& image);

}  // namespace sigtrain
