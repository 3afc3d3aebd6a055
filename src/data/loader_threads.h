// How many threads make batches, and how many batches ahead.
#pragma once

#include <algorithm>
#include <cstdint>

#include "config/schema.h"

namespace sigtrain {

/// data.workers, or one for each of the `cores` there are for them, at most 16: each holds a batch,
/// and 16 outrun a GPU.
inline int loader_threads(const DataConfig& data, int cores) {
  return data.workers > 0 ? static_cast<int>(data.workers) : std::clamp(cores, 1, 16);
}

/// data.prefetch steps of `batches` each, and as many batches as there are threads to make them.
inline int64_t prefetch_depth(const DataConfig& data, int cores, int64_t batches) {
  return std::max<int64_t>(data.prefetch * batches, loader_threads(data, cores));
}

}  // namespace sigtrain
