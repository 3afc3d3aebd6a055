// SpecAugment (Park et al. 2019): stretches of frames and of frequency bins are wiped out.
#pragma once

#include <cstdint>
#include <span>

#include "config/schema.h"
#include "core/philox.h"

namespace sigtrain {

/// Sets the masked elements of normalised features [frames, bins] to 0, their mean. Widths and
/// places are drawn from `random` at `sample`: the same every time.
void spec_augment(const SpeechAugmentConfig& settings, const RandomStream& random, uint64_t sample,
                  std::span<float> features, int64_t bins);

}  // namespace sigtrain
