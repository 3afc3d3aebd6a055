// Drawing a token from logits.
#pragma once

#include <cstdint>
#include <vector>

namespace sigtrain {

struct SamplingConfig {
  double temperature = 1.0;  // 0: always the most likely token
  int64_t top_k = 0;         // only the k most likely; 0: all
  double top_p =
      1.0;  // only the fewest tokens whose probabilities reach this sum (Holtzman et al. 2020)
};

/// A token id, given a uniform number in [0, 1). Top-k cuts before top-p. Throws Error if no logit
/// is finite.
int32_t sample(const std::vector<float>& logits, const SamplingConfig& config, double uniform);

}  // namespace sigtrain
