#include "data/spec_augment.h"

#include <gtest/gtest.h>

#include <set>
#include <vector>

namespace sigtrain {
namespace {

constexpr int64_t frames = 40, bins = 16;

std::vector<float> masked(const SpeechAugmentConfig& settings, uint64_t sample, uint64_t seed = 1) {
  std::vector<float> features(frames * bins, 1.0F);
  spec_augment(settings, {seed, 5}, sample, features, bins);
  return features;
}

TEST(SpecAugment, WipesOutWholeBinsAndWholeFramesWithinTheirWidths) {
  std::set<int64_t> widths;
  for (uint64_t sample = 0; sample < 200; ++sample) {
    const std::vector<float> features = masked({0.0, 1, 5, 1, 9, 1.0}, sample);
    int64_t dark_bins = 0, dark_frames = 0;
    std::vector<bool> bin_dark(bins, true), frame_dark(frames, true);
    for (int64_t t = 0; t < frames; ++t) {
      for (int64_t b = 0; b < bins; ++b) {
        if (features[static_cast<size_t>(t * bins + b)] == 0.0F) continue;
        bin_dark[static_cast<size_t>(b)] = frame_dark[static_cast<size_t>(t)] = false;
      }
    }
    for (int64_t t = 0; t < frames; ++t) {
      dark_frames += frame_dark[static_cast<size_t>(t)];
      for (int64_t b = 0; b < bins; ++b) {
        EXPECT_EQ(features[static_cast<size_t>(t * bins + b)] == 0.0F,
                  bin_dark[static_cast<size_t>(b)] || frame_dark[static_cast<size_t>(t)]);
      }
    }
    for (const bool dark : bin_dark) dark_bins += dark;
    EXPECT_LE(dark_bins, 5);
    EXPECT_LE(dark_frames, 9);
    widths.insert(dark_frames);
  }
  EXPECT_GE(widths.size(), 8u) << "widths are drawn from 0 ... 9";
}

TEST(SpecAugment, MasksAtMostItsShareOfTheTime) {
  for (uint64_t sample = 0; sample < 100; ++sample) {
    const std::vector<float> features = masked({0.0, 0, 0, 1, 30, 0.1}, sample);
    EXPECT_LE(std::count(features.begin(), features.end(), 0.0F), 4 * bins);
  }
}

TEST(SpecAugment, IsTheSameForASampleAndOtherForOthers) {
  const SpeechAugmentConfig settings{0.0, 2, 5, 2, 9, 1.0};
  EXPECT_EQ(masked(settings, 3), masked(settings, 3));
  EXPECT_NE(masked(settings, 3), masked(settings, 4));
  EXPECT_NE(masked(settings, 3), masked(settings, 3, 2));
  EXPECT_EQ(masked({}, 3), std::vector<float>(frames * bins, 1.0F));
}

TEST(SpecAugment, WidthsBeyondTheUtteranceAreItsOwn) {
  for (uint64_t sample = 0; sample < 50; ++sample) masked({0.0, 3, 1000, 3, 1000, 1.0}, sample);
  std::vector<float> nothing;
  spec_augment({0.0, 1, 5, 1, 9, 1.0}, {1, 5}, 0, nothing, bins);
}

}  // namespace
}  // namespace sigtrain
