// Philox4x32-10, the counter-based generator of Salmon et al., "Parallel Random Numbers: As Easy as
// 1, 2, 3" (SC 2011). A number depends on (key, counter) alone, so a mask is replayed in backward
// instead of kept, in any thread order.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>

#if defined(__CUDACC__)
#define SIGTRAIN_HOST_DEVICE __host__ __device__
#else
#define SIGTRAIN_HOST_DEVICE
#endif

namespace sigtrain {

struct Philox {
  uint32_t words[4];
};

/// The keys of the ten rounds: for code that draws many blocks with one key.
struct PhiloxKeys {
  SIGTRAIN_HOST_DEVICE explicit PhiloxKeys(uint64_t key) {
    uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
    for (auto& round : rounds) {
      round[0] = k0, round[1] = k1;
      k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
  }
  uint32_t rounds[10][2];
};

/// Four independent uniform 32-bit words for these keys and a 128-bit counter.
SIGTRAIN_HOST_DEVICE inline Philox philox(const PhiloxKeys& keys, uint64_t counter_low,
                                          uint64_t counter_high) {
  uint32_t c0 = static_cast<uint32_t>(counter_low), c1 = static_cast<uint32_t>(counter_low >> 32);
  uint32_t c2 = static_cast<uint32_t>(counter_high), c3 = static_cast<uint32_t>(counter_high >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53u} * c0, product1 = uint64_t{0xCD9E8D57u} * c2;
    const uint32_t n0 = static_cast<uint32_t>(product1 >> 32) ^ c1 ^ keys.rounds[round][0],
                   n1 = static_cast<uint32_t>(product1);
    const uint32_t n2 = static_cast<uint32_t>(product0 >> 32) ^ c3 ^ keys.rounds[round][1],
                   n3 = static_cast<uint32_t>(product0);
    c0 = n0, c1 = n1, c2 = n2, c3 = n3;
  }
  return {{c0, c1, c2, c3}};
}

SIGTRAIN_HOST_DEVICE inline Philox philox(uint64_t key, uint64_t counter_low,
                                          uint64_t counter_high) {
  return philox(PhiloxKeys(key), counter_low, counter_high);
}

/// Uniform in [0, 1) with 24 bits, the same float on every backend.
SIGTRAIN_HOST_DEVICE inline float uniform_from_bits(uint32_t bits) {
  return static_cast<float>(bits >> 8) * 0x1p-24f;
}

/// Names a sequence of random numbers: one for each use (a layer's dropout, a parameter's initial
/// values). Element i at step s is word i%4 of philox(seed, i/4, stream << 40 | s), so streams <
/// 2^24 and steps < 2^40.
struct RandomStream {
  uint64_t seed = 0;
  uint64_t stream = 0;

  SIGTRAIN_HOST_DEVICE Philox block(uint64_t index, uint64_t step) const {
    return philox(seed, index, counter_high(step));
  }
  SIGTRAIN_HOST_DEVICE uint64_t counter_high(uint64_t step) const { return (stream << 40) | step; }
};

}  // namespace sigtrain
