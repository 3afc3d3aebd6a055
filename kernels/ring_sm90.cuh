// A ring of buffers between a producer and its consumers.
#pragma once

#include <cstdint>

namespace sigtrain::kernels {

/// A place in a ring of buffers, and the parity of the phase that its barriers are in.
template <int Buffers>
struct RingPlace {
  int index = 0;
  uint32_t parity = 0;
  __device__ void advance() {
    if (++index == Buffers) {
      index = 0;
      parity ^= 1;
    }
  }
};

}  // namespace sigtrain::kernels
