#include "data/rand_augment.h"

#include <cmath>

#include "data/image_adjust.h"

namespace sigtrain {

namespace {

/// The share magnitude / kLargestMagnitude of `most`, with the bits of torch.linspace in float: a
/// pixel more or less hangs on them.
double strength(double most, int64_t magnitude) {
  const auto last = static_cast<float>(most);
  const double step = last / static_cast<float>(kLargestMagnitude);
  const int64_t below = kLargestMagnitude - magnitude;
  const double exact = magnitude < below ? step * static_cast<double>(magnitude)
                                         : last - step * static_cast<double>(below);
  return static_cast<float>(exact);
}

}  // namespace

void apply(RandAugmentOp op, int64_t magnitude, bool negative, Image& image) {
  const double sign = negative ? -1.0 : 1.0;
  // Of an image of 331 pixels at most 150: the paper's numbers for ImageNet.
  const auto shift = [&](int64_t pixels) {
    return static_cast<int64_t>(sign *
                                strength(150.0 / 331.0 * static_cast<double>(pixels), magnitude));
  };
  const double shear = sign * strength(0.3, magnitude);
  const double factor = 1.0 + sign * strength(0.9, magnitude);
  switch (op) {
    case RandAugmentOp::identity:
      return;
    case RandAugmentOp::shear_x:
      return shear_x(image, shear);
    case RandAugmentOp::shear_y:
      return shear_y(image, shear);
    case RandAugmentOp::translate_x:
      return translate(image, shift(image.width), 0);
    case RandAugmentOp::translate_y:
      return translate(image, 0, shift(image.height));
    case RandAugmentOp::rotate:
      return rotate(image, sign * strength(30.0, magnitude));
    case RandAugmentOp::brightness:
      return adjust_brightness(image, factor);
    case RandAugmentOp::color:
      return adjust_saturation(image, factor);
    case RandAugmentOp::contrast:
      return adjust_contrast(image, factor);
    case RandAugmentOp::sharpness:
      return adjust_sharpness(image, factor);
    case RandAugmentOp::posterize:
      return posterize(image, 8 - static_cast<int>(std::nearbyint(strength(4.0, magnitude))));
    case RandAugmentOp::solarize:
      return solarize(image, 255.0 - strength(255.0, magnitude));
    case RandAugmentOp::autocontrast:
      return autocontrast(image);
    case RandAugmentOp::equalize:
      return equalize(image);
  }
}

void rand_augment(int64_t count, int64_t magnitude, SampleRandom& random, Image& image) {
  for (int64_t i = 0; i < count; ++i) {
    const auto op = static_cast<RandAugmentOp>(random.integer(kRandAugmentOps));
    apply(op, magnitude, random.coin(0.5), image);
  }
}

}  // namespace sigtrain
