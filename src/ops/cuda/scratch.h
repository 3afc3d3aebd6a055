// Cuts the shared workspace into the pieces that an operation needs. One function lays the pieces
// out, both to tell their size and to use them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/arena.h"
#include "core/tensor.h"

namespace sigtrain {

class Scratch {
 public:
  /// Counts only; take() returns null.
  Scratch() = default;
  /// From the start of `workspace`; `operation` is for the error of a workspace that is too small.
  Scratch(const Tensor& workspace, const char* operation)
      : base_(static_cast<std::byte*>(workspace.data)),
        capacity_(workspace.data ? workspace.bytes() : 0),
        operation_(operation) {}

  /// `count` elements, aligned to Arena::alignment.
  template <typename T>
  T* take(int64_t count) {
    const size_t start = bytes_;
    bytes_ += (static_cast<size_t>(count) * sizeof(T) + Arena::alignment - 1) / Arena::alignment *
              Arena::alignment;
    if (!operation_) return nullptr;
    if (bytes_ > capacity_) {
      throw Error(
          "{} needs {} bytes of workspace and was given {}: set_workspace with the largest "
          "*_workspace of the run",
          operation_, bytes_, capacity_);
    }
    return reinterpret_cast<T*>(base_ + start);
  }

  size_t bytes() const { return bytes_; }

 private:
  std::byte* base_ = nullptr;
  size_t capacity_ = 0;
  const char* operation_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace sigtrain
