#include "ops/cuda/staging.h"

#include <algorithm>
#include <cstring>

#include "core/arena.h"
#include "ops/cuda/check.h"

namespace sigtrain {
namespace {

// Of single numbers and of batches alike; each holds an event.
constexpr size_t most_in_flight = 1024;

}  // namespace

Staging::Staging(size_t capacity, cudaStream_t stream) : capacity_(capacity), stream_(stream) {
  void* memory = nullptr;
  check_cuda(cudaMallocHost(&memory, capacity), "allocating pinned host memory for uploads");
  memory_ = static_cast<std::byte*>(memory);
}

Staging::~Staging() {
  for (const Span& span : in_flight_) {
    cudaEventSynchronize(span.copied);
    cudaEventDestroy(span.copied);
  }
  for (cudaEvent_t event : free_events_) cudaEventDestroy(event);
  cudaFreeHost(memory_);
}

void Staging::retire_oldest() {
  check_cuda(cudaEventSynchronize(in_flight_.front().copied), "waiting for an upload");
  free_events_.push_back(in_flight_.front().copied);
  in_flight_.pop_front();
}

size_t Staging::reserve(size_t bytes) {
  const size_t begin = next_ + bytes <= capacity_ ? next_ : 0;
  // Spans lie in the ring in the order of their uploads: those that this one overlaps, or that the
  // step back to the start skips, are the oldest.
  const bool wraps = begin != next_;
  while (!in_flight_.empty()) {
    const Span& oldest = in_flight_.front();
    const bool overlaps = oldest.begin < begin + bytes && begin < oldest.end;
    const bool is_skipped = wraps && oldest.begin >= next_;
    if (!overlaps && !is_skipped) break;
    retire_oldest();
  }
  next_ = begin + (bytes + Arena::alignment - 1) / Arena::alignment * Arena::alignment;
  return begin;
}

void Staging::upload(void* device, const void* host, size_t bytes) {
  cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
  check_cuda(cudaStreamIsCapturing(stream_, &capture), "uploading");
  if (capture != cudaStreamCaptureStatusNone)
    throw Error("an upload inside a captured step would be replayed with the same values");
  const size_t largest = capacity_ / 4;
  auto* to = static_cast<std::byte*>(device);
  const auto* from = static_cast<const std::byte*>(host);
  while (bytes > 0) {
    const size_t part = std::min(bytes, largest);
    if (in_flight_.size() >= most_in_flight) retire_oldest();
    const size_t at = reserve(part);
    std::memcpy(memory_ + at, from, part);
    check_cuda(cudaMemcpyAsync(to, memory_ + at, part, cudaMemcpyHostToDevice, stream_),
               "uploading");
    cudaEvent_t copied = nullptr;
    if (free_events_.empty()) {
      check_cuda(cudaEventCreateWithFlags(&copied, cudaEventDisableTiming), "uploading");
    } else {
      copied = free_events_.back();
      free_events_.pop_back();
    }
    check_cuda(cudaEventRecord(copied, stream_), "uploading");
    in_flight_.push_back({at, at + part, copied});
    to += part;
    from += part;
    bytes -= part;
  }
}

}  // namespace sigtrain
