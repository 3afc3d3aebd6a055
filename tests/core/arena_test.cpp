#include "core/arena.h"

#include <gtest/gtest.h>

#include <vector>

namespace sigtrain {
namespace {

TEST(Arena, ReleasesInStackOrderAndRemembersThePeak) {
  alignas(256) static std::byte memory[2048];
  Arena arena(memory, sizeof(memory));
  const Tensor kept = arena.allocate({4, 8}, DType::f32, Purpose::activation);
  {
    ArenaScope scope(arena);
    arena.allocate({100}, DType::f64, Purpose::temporary);
    EXPECT_EQ(arena.used(), 256u + 1024u);
  }
  EXPECT_EQ(arena.used(), 256u);
  EXPECT_EQ(arena.peak(), 1280u);
  EXPECT_EQ(arena.by_purpose_at_peak()[static_cast<int>(Purpose::temporary)], 1024u);
  EXPECT_EQ(kept.data, memory);
}

TEST(Arena, RefusesMoreThanItHas) {
  alignas(256) static std::byte memory[512];
  Arena arena(memory, sizeof(memory));
  EXPECT_THROW(arena.allocate({1000}, DType::f32, Purpose::activation), Error);
}

TEST(Arena, PlanningCountsWithoutMemory) {
  Arena arena = Arena::planning();
  const Tensor tensor = arena.allocate({int64_t{1} << 40}, DType::bf16, Purpose::activation);
  EXPECT_TRUE(tensor);
  EXPECT_EQ(tensor.data, nullptr);
  EXPECT_EQ(arena.peak(), size_t{1} << 41);
}

}  // namespace
}  // namespace sigtrain
