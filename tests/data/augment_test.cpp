// What one training image goes through, choice by choice.
#include "data/augment.h"

#include <gtest/gtest.h>

#include <set>

#include "data/image_adjust.h"
#include "data/image_resize.h"
#include "image_testing.h"

namespace sigtrain {
namespace {

constexpr int64_t kSize = 16;
const std::vector<double> kMean = {0.5, 0.25, 1.0};

/// The view of a square image that sample `sample` gets.
Image view_of(const AugmentConfig& config, const Image& image, int64_t sample) {
  const TrainingView view(config, kSize, kMean);
  SampleRandom random({5, 6}, sample);
  const Part part = view.choose({image.height, image.width}, random);
  return view.make({image, part.box, part.out}, random);
}

TEST(TrainingView, LeavesTheImageAloneUnlessToldOtherwise) {
  const Image image = smooth_image(kSize, kSize, 3);
  for (int64_t sample = 0; sample < 5; ++sample)
    EXPECT_EQ(view_of({}, image, sample).pixels, image.pixels);
}

TEST(TrainingView, FlipsHalfOfTheImages) {
  AugmentConfig config;
  config.flip = true;
  const Image image = smooth_image(kSize, kSize, 3);
  Image flipped = image;
  flip_horizontally(flipped);
  int flips = 0;
  for (int64_t sample = 0; sample < 400; ++sample) {
    const Image view = view_of(config, image, sample);
    if (view.pixels != image.pixels) {
      EXPECT_EQ(view.pixels, flipped.pixels);
      ++flips;
    }
  }
  EXPECT_NEAR(flips, 200, 60);  // six standard deviations
}

TEST(TrainingView, TakesEveryWindowOfThePaddedImage) {
  AugmentConfig config;
  config.crop = CropKind::pad;
  config.padding = 1;
  const Image image = smooth_image(kSize, kSize, 3);
  std::set<std::vector<uint8_t>> windows;
  for (int64_t top = -1; top <= 1; ++top)
    for (int64_t left = -1; left <= 1; ++left)
      windows.insert(crop(image, top, left, {kSize, kSize}).pixels);
  std::set<std::vector<uint8_t>> seen;
  for (int64_t sample = 0; sample < 200; ++sample)
    seen.insert(view_of(config, image, sample).pixels);
  EXPECT_EQ(seen, windows);
}

// torchvision's erase() puts a value over a rectangle; ours is the mean, zero once normalised.
TEST(TrainingView, WipesOutARectangleWithTheMean) {
  AugmentConfig config;
  config.erasing = 0.5;
  Image image(kSize, kSize, 3);
  std::fill(image.pixels.begin(), image.pixels.end(), uint8_t{7});
  int wiped = 0;
  for (int64_t sample = 0; sample < 400; ++sample) {
    const Image view = view_of(config, image, sample);
    int64_t top = kSize, left = kSize, bottom = -1, right = -1, count = 0;
    for (int64_t y = 0; y < kSize; ++y) {
      for (int64_t x = 0; x < kSize; ++x) {
        const uint8_t* pixel = view.row(y) + 3 * x;
        if (pixel[0] == 7) {
          EXPECT_EQ(pixel[1], 7);
          continue;
        }
        EXPECT_EQ(pixel[0], 128);
        EXPECT_EQ(pixel[1], 64);
        EXPECT_EQ(pixel[2], 255);
        top = std::min(top, y), bottom = std::max(bottom, y);
        left = std::min(left, x), right = std::max(right, x);
        ++count;
      }
    }
    if (count == 0) continue;
    ++wiped;
    EXPECT_EQ(count, (bottom - top + 1) * (right - left + 1)) << "no rectangle";
    EXPECT_LE(count, 0.33 * kSize * kSize + kSize);
  }
  EXPECT_NEAR(wiped, 200, 60);
}

TEST(TrainingView, JittersWithinTheRangeGiven) {
  AugmentConfig config;
  config.brightness = 0.5;
  Image image(kSize, kSize, 3);
  std::fill(image.pixels.begin(), image.pixels.end(), uint8_t{100});
  int darkest = 255, brightest = 0;
  for (int64_t sample = 0; sample < 300; ++sample) {
    const int value = view_of(config, image, sample).pixels[0];
    darkest = std::min(darkest, value), brightest = std::max(brightest, value);
  }
  EXPECT_GE(darkest, 50);
  EXPECT_LE(darkest, 55);
  EXPECT_LE(brightest, 150);
  EXPECT_GE(brightest, 145);
  // The order changes too: brightness before contrast is not contrast before brightness.
  config.contrast = 0.5;
  const Image picture = smooth_image(kSize, kSize, 3);
  std::set<std::vector<uint8_t>> seen;
  for (int64_t sample = 0; sample < 50; ++sample)
    seen.insert(view_of(config, picture, sample).pixels);
  EXPECT_EQ(seen.size(), 50u);
}

TEST(TrainingView, CropsToTheModelsSizeFromAnySize) {
  AugmentConfig config;
  config.crop = CropKind::resized;
  for (const ImageSize size : {ImageSize{5, 5}, {16, 16}, {100, 30}, {1, 1}}) {
    const Image view = view_of(config, smooth_image(size.height, size.width, 3), 3);
    EXPECT_EQ(view.height, kSize);
    EXPECT_EQ(view.width, kSize);
  }
}

}  // namespace
}  // namespace sigtrain
