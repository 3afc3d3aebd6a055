// Memory of large buffers that come and go: batches of images.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>
#include <vector>

namespace sigtrain {

/// `bytes` of memory, unwritten or as a buffer of that size left it; and back. Large buffers of the
/// size that was given back last are kept for the next one: the system would hand out each page
/// again, zeroed, one fault a page, while the threads of a process wait for each other. Safe to
/// call from many threads. Throws std::bad_alloc.
void* take_memory(size_t bytes);
void give_memory_back(void* memory, size_t bytes) noexcept;

/// For std::vector. Values that no argument is given for are left as the memory was.
template <typename T>
struct KeptMemory {
  using value_type = T;
  KeptMemory() = default;
  template <typename U>
  KeptMemory(const KeptMemory<U>& /*other*/) {}

  T* allocate(size_t count) { return static_cast<T*>(take_memory(count * sizeof(T))); }
  void deallocate(T* memory, size_t count) noexcept { give_memory_back(memory, count * sizeof(T)); }
  template <typename U>
  void construct(U* place) noexcept {
    ::new (static_cast<void*>(place)) U;
  }
  template <typename U, typename... Arguments>
  void construct(U* place, Arguments&&... arguments) {
    ::new (static_cast<void*>(place)) U(std::forward<Arguments>(arguments)...);
  }
  bool operator==(const KeptMemory& /*other*/) const { return true; }
};

using KeptBytes = std::vector<uint8_t, KeptMemory<uint8_t>>;

}  // namespace sigtrain
