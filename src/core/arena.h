// A stack of tensors in one block of memory, sized by a planning run before step 1.
#pragma once

#include <array>
#include <cstddef>
#include <string_view>

#include "core/tensor.h"

namespace sigtrain {

/// What an allocation is for; the memory plan is printed by these.
enum class Purpose : uint8_t { activation, temporary, gradient, statistic };
constexpr int kPurposeCount = 4;
std::string_view name_of(Purpose purpose);

/// Bump allocator with stack discipline: take a mark, allocate, release back to the mark. It
/// borrows its memory. A planning arena has no memory: its tensors are present with null data, and
/// it records how much would be needed.
class Arena {
 public:
  using ByPurpose = std::array<size_t, kPurposeCount>;
  struct Mark {
    size_t offset = 0;
    ByPurpose by_purpose{};
  };

  /// Every allocation starts on this many bytes: a cache line, and a 128-byte device sector group.
  static constexpr size_t alignment = 256;

  static Arena planning() { return Arena(nullptr, 0, true); }
  /// Uses `capacity` bytes at `base`, which must be aligned to `alignment` and outlive the arena.
  Arena(void* base, size_t capacity) : Arena(base, capacity, false) {}

  /// An uninitialised tensor; throws Error when the block is full, which means the plan was made
  /// for other shapes.
  Tensor allocate(Shape shape, DType dtype, Purpose purpose);

  Mark mark() const { return {offset_, by_purpose_}; }
  void release(const Mark& mark);

  bool is_planning() const { return planning_; }
  size_t used() const { return offset_; }
  size_t capacity() const { return capacity_; }
  /// Most bytes ever in use at once, and what they were for at that moment.
  size_t peak() const { return peak_; }
  const ByPurpose& by_purpose_at_peak() const { return by_purpose_at_peak_; }

 private:
  Arena(void* base, size_t capacity, bool planning)
      : base_(base), capacity_(capacity), planning_(planning) {}

  void* base_;
  size_t capacity_;
  bool planning_;
  size_t offset_ = 0;
  size_t peak_ = 0;
  ByPurpose by_purpose_{};
  ByPurpose by_purpose_at_peak_{};
};

/// Releases everything allocated during its lifetime.
class ArenaScope {
 public:
  explicit ArenaScope(Arena& arena) : arena_(arena), mark_(arena.mark()) {}
  ~ArenaScope() { arena_.release(mark_); }
  ArenaScope(const ArenaScope&) = delete;
  ArenaScope& operator=(const ArenaScope&) = delete;

 private:
  Arena& arena_;
  Arena::Mark mark_;
};

}  // namespace sigtrain
