#include "data/kept_memory.h"

#include <mutex>

namespace sigtrain {
namespace {

/// Smaller ones the allocator keeps itself.
constexpr size_t kLarge = size_t{1} << 20;

struct Kept {
  std::mutex mutex;
  size_t bytes = 0;  // of each
  std::vector<void*> buffers;
};

/// Never destroyed: threads and statics may give memory back until the process ends.
Kept& kept() {
  static auto* const all = new Kept;
  return *all;
}

}  // namespace

void* take_memory(size_t bytes) {
  if (bytes >= kLarge) {
    Kept& all = kept();
    const std::lock_guard lock(all.mutex);
    if (bytes == all.bytes && !all.buffers.empty()) {
      void* const memory = all.buffers.back();
      all.buffers.pop_back();
      return memory;
    }
  }
  return ::operator new(bytes);
}

void give_memory_back(void* memory, size_t bytes) noexcept {
  if (bytes >= kLarge) {
    Kept& all = kept();
    const std::lock_guard lock(all.mutex);
    if (bytes != all.bytes) {
      for (void* other : all.buffers) ::operator delete(other);
      all.buffers.clear();
      all.bytes = bytes;
    }
    try {
      all.buffers.push_back(memory);
      return;
    } catch (const std::bad_alloc&) {  // then it is not kept
    }
  }
  ::operator delete(memory);
}

}  // namespace sigtrain
