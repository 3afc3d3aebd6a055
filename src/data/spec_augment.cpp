#include "data/spec_augment.h"

#include <algorithm>

namespace sigtrain {
namespace {

/// Uniform in [0, bound].
int64_t up_to(int64_t bound, uint32_t bits) {
  return static_cast<int64_t>(uint64_t{bits} * static_cast<uint64_t>(bound + 1) >> 32);
}

struct Stretch {
  int64_t begin, end;
};

/// At most `most` of [0, size), anywhere in it.
Stretch draw(int64_t size, int64_t most, const Philox& random) {
  const int64_t width = up_to(std::min(most, size), random.words[0]);
  const int64_t begin = up_to(size - width, random.words[1]);
  return {begin, begin + width};
}

}  // namespace

void spec_augment(const SpeechAugmentConfig& settings, const RandomStream& random, uint64_t sample,
                  std::span<float> features, int64_t bins) {
  const int64_t frames = static_cast<int64_t>(features.size()) / bins;
  uint64_t block = 0;
  for (int64_t mask = 0; mask < settings.frequency_masks; ++mask) {
    const Stretch masked = draw(bins, settings.frequency_width, random.block(block++, sample));
    for (int64_t t = 0; t < frames; ++t) {
      std::fill(features.begin() + t * bins + masked.begin,
                features.begin() + t * bins + masked.end, 0.0F);
    }
  }
  const auto most = static_cast<int64_t>(settings.time_share * static_cast<double>(frames));
  for (int64_t mask = 0; mask < settings.time_masks; ++mask) {
    const Stretch masked =
        draw(frames, std::min(settings.time_width, most), random.block(block++, sample));
    std::fill(features.begin() + masked.begin * bins, features.begin() + masked.end * bins, 0.0F);
  }
}

}  // namespace sigtrain
