#include "data/prefetcher.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <stdexcept>
#include <string>

namespace sigtrain {
namespace {

void pause_for(int milliseconds) {
  std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
}

TEST(Prefetcher, HandsOutStepsInOrder) {
  for (const int64_t depth : {0, 1, 3, 8}) {
    for (const int workers : {1, 4}) {
      Prefetcher<int64_t> prefetcher(
          [](int64_t step) {
            if (step % 3 == 0) pause_for(1);
            return step * step;
          },
          5, depth, workers, 40);
      for (int64_t step = 5; step < 40; ++step) {
        EXPECT_EQ(prefetcher.step(), step);
        EXPECT_EQ(prefetcher.next(), step * step);
      }
      EXPECT_EQ(prefetcher.next(), std::nullopt);
      EXPECT_EQ(prefetcher.next(), std::nullopt);
    }
  }
}

TEST(Prefetcher, WorksAheadAndNoFurtherThanItsDepth) {
  std::atomic<int64_t> made{0};
  Prefetcher<int64_t> prefetcher(
      [&](int64_t step) {
        ++made;
        return step;
      },
      0, 3, 2);
  const auto wait_for = [&](int64_t count) {
    for (int i = 0; i < 2000 && made < count; ++i) pause_for(1);
    pause_for(20);
    return made.load();
  };
  EXPECT_EQ(wait_for(3), 3);
  prefetcher.next();
  EXPECT_EQ(wait_for(4), 4);
}

TEST(Prefetcher, ThrowsAtTheStepThatFailed) {
  for (const int64_t depth : {0, 1, 4}) {
    for (const int workers : {1, 3}) {
      Prefetcher<std::string> prefetcher(
          [](int64_t step) -> std::string {
            if (step == 6) throw std::runtime_error("step six");
            return std::to_string(step);
          },
          0, depth, workers);
      for (int64_t step = 0; step < 6; ++step) EXPECT_EQ(prefetcher.next(), std::to_string(step));
      for (int attempt = 0; attempt < 2; ++attempt) {
        try {
          prefetcher.next();
          ADD_FAILURE() << "no exception";
        } catch (const std::runtime_error& error) {
          EXPECT_STREQ(error.what(), "step six");
        }
      }
    }
  }
}

TEST(Prefetcher, StopsCleanlyAtAnyMoment) {
  for (const int pause : {0, 1, 3}) {
    const auto alive = std::make_shared<int>(0);
    {
      Prefetcher<std::shared_ptr<int>> prefetcher(
          [alive](int64_t) {
            pause_for(1);
            return alive;
          },
          0, 4, 2);
      pause_for(pause);
      if (pause == 3) prefetcher.next();
    }
    EXPECT_EQ(alive.use_count(), 1);
  }
}

TEST(Prefetcher, StopsCleanlyWithAFailureNobodyAskedFor) {
  Prefetcher<int> prefetcher([](int64_t) -> int { throw std::runtime_error("unseen"); }, 0, 2, 2);
  pause_for(5);
}

TEST(Prefetcher, MovesBatchesThatCannotBeCopied) {
  Prefetcher<std::unique_ptr<int64_t>> prefetcher(
      [](int64_t step) { return std::make_unique<int64_t>(step); }, 0, 2);
  EXPECT_EQ(**prefetcher.next(), 0);
  EXPECT_EQ(**prefetcher.next(), 1);
}

}  // namespace
}  // namespace sigtrain
