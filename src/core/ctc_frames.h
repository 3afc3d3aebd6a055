// How many frames connectionist temporal classification needs (Graves et al. 2006).
#pragma once

#include <cstdint>
#include <span>

namespace sigtrain {

/// The fewest frames that can carry `targets`: one each, and a blank between equal neighbours.
inline int64_t ctc_frames_needed(std::span<const int32_t> targets) {
  auto needed = static_cast<int64_t>(targets.size());
  for (size_t i = 1; i < targets.size(); ++i) needed += targets[i] == targets[i - 1];
  return needed;
}

}  // namespace sigtrain
