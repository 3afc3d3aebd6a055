// How many threads make batches, and how many batches ahead.
#pragma once

#include <algorithm>
#include <cstdint>
#include <thread>

#include "config/schema.h"

namespace sigtrain {

/// data.workers, or one a processor, at most 16: each holds a batch, and 16 outrun a GPU.
inline int loader_threads(const DataConfig& data) {
  if (data.workers > 0) return static_cast<int>(data.workers);
  return static_cast<int>(std::clamp(std::thread::hardware_concurrency(), 1U, 16U));
}

/// data.prefetch steps of `batches` each, and as many batches as there are threads to make them.
inline int64_t prefetch_depth(const DataConfig& data, int64_t batches) {
  return std::max<int64_t>(data.prefetch * batches, loader_threads(data));
}

}  // namespace sigtrain
