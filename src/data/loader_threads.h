// How many threads make batches, and how many batches ahead.
#pragma once

#include <algorithm>
#include <cstdint>

#include "config/schema.h"

namespace sigtrain {

/// data.workers, or one for each of the `cores` there are for them, at most 16: each may
/// hold a batch, and 16 outrun a GPU.
inline int loader_threads(const DataConfig& data, int cores) {
  return data.workers > 0 ? static_cast<int>(data.workers) : std::clamp(cores, 1, 16);
}

/// data.prefetch steps of `batches` each, and as many batches, each made by up to
/// `threads_a_batch`, as the threads make at once, and one more: else those that are done would
/// wait for the slowest.
inline int64_t prefetch_depth(const DataConfig& data, int cores, int64_t batches,
                              int64_t threads_a_batch = 1) {
  const int64_t threads = loader_threads(data, cores);
  const int64_t at_once = (threads + threads_a_batch - 1) / threads_a_batch;
  return std::max<int64_t>(data.prefetch * batches, at_once + 1);
}

}  // namespace sigtrain
