// SpecAugment (Park et al. 2019): stretches of frames and of frequency bins are wiped out.
#pragma once

#include <cstdint>
#include <span>

#include "core/philox.h"

namespace sigtrain {

struct SpecAugment {
  int64_t frequency_masks = 0, frequency_width = 0;  // bins; each mask has 0 ... width of them
  int64_t time_masks = 0, time_width = 0;            // frames, likewise
  double time_share = 1.0;  // a time mask is at most this share of the utterance

  bool is_off() const { return frequency_masks == 0 && time_masks == 0; }
};

/// Sets the masked elements of normalised features [frames, bins] to 0, their mean. Widths and
/// places are drawn from `random` at `sample`: the same every time.
void spec_augment(const SpecAugment& settings, const RandomStream& random, uint64_t sample,
                  std::span<float> features, int64_t bins);

}  // namespace sigtrain
