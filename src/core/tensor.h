// A typed view of dense row-major memory, on the host or on a device. It owns nothing and is copied
// freely.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/dtype.h"
#include "core/shape.h"

namespace sigtrain {

/// A default-constructed Tensor is absent: operations take it for an optional argument that is not
/// given. In a planning arena tensors are present but `data` is null (see arena.h).
struct Tensor {
  void* data = nullptr;
  DType dtype = DType::none;
  Shape shape;

  explicit operator bool() const { return dtype != DType::none; }
  int64_t numel() const { return dtype == DType::none ? 0 : shape.numel(); }
  size_t bytes() const { return static_cast<size_t>(numel()) * size_of(dtype); }
  /// Extent of the last axis.
  int64_t columns() const { return shape[-1]; }
  /// Product of every extent but the last.
  int64_t rows() const { return columns() == 0 ? 0 : shape.numel() / columns(); }

  /// The elements as T*; throws if T is not the tensor's element type. Null for an absent tensor.
  template <typename T>
  T* as() const {
    if (dtype == DType::none) return nullptr;
    if (dtype != dtype_of<T>())
      throw Error("tensor of {} read as {}", name_of(dtype), name_of(dtype_of<T>()));
    return static_cast<T*>(data);
  }

  /// The same elements under another shape of equal size.
  Tensor reshape(Shape other) const {
    if (other.numel() != shape.numel()) {
      throw Error("cannot reshape {} to {}", shape.to_string(), other.to_string());
    }
    return {data, dtype, other};
  }

  /// Rows [begin, end) along the first axis.
  Tensor slice(int64_t begin, int64_t end) const;
};

inline Tensor Tensor::slice(int64_t begin, int64_t end) const {
  if (shape.rank() == 0 || begin < 0 || end < begin || end > shape[0]) {
    throw Error("slice [{}, {}) of {}", begin, end, shape.to_string());
  }
  const int64_t stride = shape[0] == 0 ? 0 : shape.numel() / shape[0];
  auto* start =
      data ? static_cast<std::byte*>(data) + static_cast<size_t>(begin * stride) * size_of(dtype)
           : nullptr;
  const int64_t n = end - begin;
  Shape sliced;
  switch (shape.rank()) {
    case 1:
      sliced = {n};
      break;
    case 2:
      sliced = {n, shape[1]};
      break;
    case 3:
      sliced = {n, shape[1], shape[2]};
      break;
    default:
      sliced = {n, shape[1], shape[2], shape[3]};
      break;
  }
  return {start, dtype, sliced};
}

}  // namespace sigtrain
