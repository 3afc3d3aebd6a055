// Pinned host memory through which uploads pass, so that the host goes on while they wait for their
// turn on the device.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <deque>
#include <memory>
#include <vector>

namespace sigtrain {

/// A ring: the oldest upload's part is free again once the device has copied it. Not thread-safe.
class Staging {
 public:
  Staging(size_t capacity, cudaStream_t stream);
  ~Staging();
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  /// Copies `bytes` from `host` to `device` in the stream's order; `host` may be changed as soon as
  /// this returns. Waits only while the ring is full. Throws Error while the stream is captured
  /// into a graph, which would replay today's bytes.
  void upload(void* device, const void* host, size_t bytes);

 private:
  struct Span {
    size_t begin, end;
    cudaEvent_t copied;
  };

  /// Start of `bytes` free neighbouring bytes, at most capacity_ / 4.
  size_t reserve(size_t bytes);
  void retire_oldest();

  size_t capacity_;
  cudaStream_t stream_;
  std::byte* memory_ = nullptr;
  std::deque<Span> in_flight_;
  std::vector<cudaEvent_t> free_events_;
  size_t next_ = 0;
};

}  // namespace sigtrain
