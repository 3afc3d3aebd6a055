// The random numbers of one sample or one batch: they depend on the seed and its place in the run
// alone, so that any thread may make it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>

#include "core/philox.h"

namespace sigtrain {

class SampleRandom {
 public:
  /// `place` (below 2^40) is the sample's or the batch's index in the run.
  SampleRandom(RandomStream stream, int64_t place)
      : stream_(stream), place_(static_cast<uint64_t>(place)) {}

  uint32_t bits() {
    if (used_ == 4) block_ = stream_.block(next_block_++, place_), used_ = 0;
    return block_.words[used_++];
  }
  /// In [0, 1), with 53 bits.
  double uniform() {
    const uint64_t high = bits() >> 5, low = bits() >> 6;
    return static_cast<double>(high << 26 | low) * 0x1p-53;
  }
  /// In [low, high).
  double uniform(double low, double high) { return low + (high - low) * uniform(); }
  /// In [0, count), count below 2^32.
  int64_t integer(int64_t count) {
    return std::min(count - 1, static_cast<int64_t>(uniform() * static_cast<double>(count)));
  }
  bool coin(double probability) { return uniform() < probability; }
  /// Box and Muller (1958).
  double normal() {
    const double radius = std::sqrt(-2.0 * std::log(1.0 - uniform()));
    return radius * std::cos(6.283185307179586 * uniform());
  }
  /// Of shape `alpha` > 0 and scale 1 (Marsaglia and Tsang 2000).
  double gamma(double alpha) {
    if (alpha < 1.0) return gamma(alpha + 1.0) * std::pow(1.0 - uniform(), 1.0 / alpha);
    const double d = alpha - 1.0 / 3.0, c = 1.0 / std::sqrt(9.0 * d);
    while (true) {
      const double x = normal(), root = 1.0 + c * x, v = root * root * root;
      if (root <= 0.0) continue;
      if (std::log(1.0 - uniform()) < 0.5 * x * x + d - d * v + d * std::log(v)) return d * v;
    }
  }
  /// Of shape (alpha, alpha).
  double beta(double alpha) {
    const double a = gamma(alpha), b = gamma(alpha);
    // For a tiny alpha both may vanish; then either end is as likely as the other.
    return a + b > 0.0 ? a / (a + b) : (coin(0.5) ? 1.0 : 0.0);
  }

 private:
  RandomStream stream_;
  uint64_t place_;
  uint64_t next_block_ = 0;
  Philox block_{};
  int used_ = 4;
};

}  // namespace sigtrain
