#include "data/kept_memory.h"

#include <gtest/gtest.h>

#include <thread>

namespace sigtrain {
namespace {

constexpr size_t kBytes = size_t{3} << 20;

TEST(KeptMemory, HandsOutWhatWasGivenBack) {
  const uint8_t* place = nullptr;
  {
    KeptBytes buffer(kBytes, uint8_t{7});
    place = buffer.data();
    EXPECT_EQ(buffer[kBytes - 1], 7);
  }
  KeptBytes again;
  again.resize(kBytes);
  EXPECT_EQ(again.data(), place);
  EXPECT_EQ(again[kBytes - 1], 7);  // as it was left
  // One that is in use is nobody else's, and one of another size is a new one.
  KeptBytes other(kBytes, uint8_t{1}), longer(2 * kBytes, uint8_t{2});
  EXPECT_NE(other.data(), place);
  EXPECT_EQ(again[0], 7);
  EXPECT_EQ(longer[2 * kBytes - 1], 2);
}

TEST(KeptMemory, IsNoTwoBuffersAtATime) {
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([i] {
      for (int round = 0; round < 200; ++round) {
        KeptBytes buffer;
        buffer.resize(kBytes + (round % 8 == 0 ? 1 : 0));
        const auto own = static_cast<uint8_t>(i);
        for (size_t at = 0; at < buffer.size(); at += 4096) buffer[at] = own;
        for (size_t at = 0; at < buffer.size(); at += 4096) ASSERT_EQ(buffer[at], own);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace sigtrain
