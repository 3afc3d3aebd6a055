// A pseudo-random permutation of [0, size) that is computed, not stored.
#pragma once

#include <cstdint>

#include "core/philox.h"

namespace sigtrain {

/// A balanced Feistel network (Luby and Rackoff, 1988) with Philox as its round function, over the
/// smallest even number of bits that holds `size`; images outside [0, size) are walked on until
/// they fall inside (Black and Rogaway, 2002), fewer than four steps on average.
class Permutation {
 public:
  /// `stream` and `epoch` name one of many independent permutations of the seed.
  Permutation(uint64_t size, RandomStream stream, uint64_t epoch)
      : size_(size), stream_(stream), epoch_(epoch) {
    while (size_ > uint64_t{1} << (2 * half_bits_)) ++half_bits_;
  }

  /// The image of `index`, which must be in [0, size).
  uint64_t operator()(uint64_t index) const {
    do {
      index = encrypt(index);
    } while (index >= size_);
    return index;
  }

 private:
  static constexpr uint64_t kRounds = 8;

  uint64_t encrypt(uint64_t value) const {
    const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
    uint64_t left = value >> half_bits_, right = value & mask;
    for (uint64_t round = 0; round < kRounds; ++round) {
      const uint64_t mixed = left ^ (stream_.block(round << 32 | right, epoch_).words[0] & mask);
      left = right, right = mixed;
    }
    return left << half_bits_ | right;
  }

  uint64_t size_;
  RandomStream stream_;
  uint64_t epoch_;
  int half_bits_ = 1;
};

}  // namespace sigtrain
