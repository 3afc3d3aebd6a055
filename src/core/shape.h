// The extents of a dense row-major tensor of up to four dimensions.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "core/error.h"

namespace sigtrain {

class Shape {
 public:
  static constexpr int max_rank = 4;
  /// So that no sum of the bytes of a run's tensors leaves 64 bits, whatever its config asks for.
  static constexpr int64_t max_numel = int64_t{1} << 44;

  Shape() = default;
  Shape(std::initializer_list<int64_t> dims) {
    if (dims.size() > max_rank)
      throw Error("a shape has {} dimensions; at most 4 are supported", dims.size());
    int64_t product = 1;
    for (int64_t extent : dims) {
      if (extent < 0) throw Error("a shape has a negative extent: {}", extent);
      dims_[rank_++] = extent;
      if (__builtin_mul_overflow(product, extent, &product) || product > max_numel) {
        throw Error(
            "a tensor of {} would have more than 2^44 elements: use a smaller micro-batch, "
            "sequence or model",
            to_string());
      }
    }
  }

  int rank() const { return rank_; }
  int64_t operator[](int axis) const { return dims_[axis < 0 ? axis + rank_ : axis]; }
  /// Product of all extents; 1 for rank 0.
  int64_t numel() const {
    int64_t product = 1;
    for (int axis = 0; axis < rank_; ++axis) product *= dims_[axis];
    return product;
  }
  bool operator==(const Shape& other) const = default;

  std::string to_string() const {
    std::string text = "[";
    for (int axis = 0; axis < rank_; ++axis) {
      if (axis > 0) text += ", ";
      text += std::to_string(dims_[axis]);
    }
    text += "]";
    return text;
  }

 private:
  std::array<int64_t, max_rank> dims_{};
  int rank_ = 0;
};

}  // namespace sigtrain
