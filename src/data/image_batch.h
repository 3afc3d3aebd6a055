// Batches of images for a classifier.
#pragma once

#include <cstdint>
#include <vector>

#include "data/damaged_sample.h"
#include "data/kept_memory.h"

namespace sigtrain {

/// `rows` images of one size with their labels; a row whose label is kNoLabel counts for nothing.
struct ImageBatch {
  int64_t rows = 0;
  int64_t counted = 0;           // rows with a label
  KeptBytes images;              // [rows, size, size, channels]
  std::vector<int32_t> labels;   // [rows]
  std::vector<float> targets{};  // [rows, classes], or empty: the labels are what is learned
  std::vector<DamagedSample> damaged{};  // images in whose place others, or none, were taken
  std::vector<std::vector<DamagedSample>> damaged_of_pieces{};  // while the batch is made
};

inline constexpr int32_t kNoLabel = -1;

}  // namespace sigtrain
