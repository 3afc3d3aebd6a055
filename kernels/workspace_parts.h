// Cuts the workspace of a call into parts.
#pragma once

#include <cstddef>

#include "launch.h"

namespace sigtrain::kernels {

/// Parts one behind the other, each aligned to 256 bytes. With null for memory, only their size.
class WorkspaceParts {
 public:
  explicit WorkspaceParts(void* workspace) : begin_(static_cast<unsigned char*>(workspace)) {}

  template <typename T>
  T* take(size_t count) {
    T* part = begin_ ? reinterpret_cast<T*>(begin_ + bytes_) : nullptr;
    bytes_ += round_up(count * sizeof(T), 256);
    return part;
  }
  /// Of all parts taken so far.
  size_t bytes() const { return bytes_; }

 private:
  unsigned char* begin_;
  size_t bytes_ = 0;
};

}  // namespace sigtrain::kernels
