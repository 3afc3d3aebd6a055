#include "data/prefetcher.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

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

/// Batches of `pieces` numbers, which finish adds up; each piece is to be made once.
BatchMaker<std::vector<int64_t>> sums_of(int64_t pieces) {
  return {[pieces](int64_t) { return std::vector<int64_t>(static_cast<size_t>(pieces)); }, pieces,
          [](int64_t step, int64_t piece, std::vector<int64_t>& batch) {
            if ((step + piece) % 5 == 0) pause_for(1);
            batch[static_cast<size_t>(piece)] += 100 * step + piece;
          },
          [](int64_t, std::vector<int64_t>& batch) {
            int64_t sum = 0;
            for (const int64_t value : batch) sum += value;
            batch.assign(1, sum);
          }};
}

TEST(Prefetcher, MakesEveryPieceOnceAndFinishesWhenAllAreMade) {
  for (const int64_t depth : {0, 1, 3}) {
    for (const int workers : {1, 2, 7}) {
      for (const int64_t pieces : {1, 4, 9}) {
        Prefetcher<std::vector<int64_t>> prefetcher(sums_of(pieces), 2, depth, workers, 30);
        for (int64_t step = 2; step < 30; ++step) {
          const auto batch = prefetcher.next();
          ASSERT_TRUE(batch.has_value());
          EXPECT_EQ(*batch, std::vector{100 * step * pieces + pieces * (pieces - 1) / 2});
        }
        EXPECT_FALSE(prefetcher.next().has_value());
      }
    }
  }
}

TEST(Prefetcher, FinishesNothingThatHasNoPieces) {
  for (const int64_t depth : {0, 2}) {
    BatchMaker<std::vector<int64_t>> maker = sums_of(0);
    maker.begin = [](int64_t step) { return std::vector{step, step}; };
    Prefetcher<std::vector<int64_t>> prefetcher(maker, 5, depth, 3);
    EXPECT_EQ(*prefetcher.next(), (std::vector<int64_t>{5, 5}));
  }
}

// Each piece waits until all of them are being made: with one batch in the making, that takes as
// many threads at work on it.
TEST(Prefetcher, SharesABatchAmongThreads) {
  constexpr int64_t pieces = 4;
  std::atomic<int64_t> started{0};
  Prefetcher<int64_t> prefetcher({[](int64_t) { return int64_t{0}; }, pieces,
                                  [&](int64_t, int64_t, int64_t&) {
                                    ++started;
                                    for (int i = 0; i < 5000 && started < pieces; ++i) pause_for(1);
                                  },
                                  [&](int64_t, int64_t& batch) { batch = started; }},
                                 0, 1, pieces, 1);
  EXPECT_EQ(prefetcher.next(), pieces);
}

TEST(Prefetcher, ThrowsAtTheStepOfWhichAPieceFailed) {
  for (const int64_t depth : {0, 1, 4}) {
    for (const int workers : {1, 3, 8}) {
      for (const int64_t bad : {0, 2, 5, 6}) {  // 6: finish
        BatchMaker<std::vector<int64_t>> maker = sums_of(6);
        maker.make_piece = [make = maker.make_piece, bad](int64_t step, int64_t piece,
                                                          std::vector<int64_t>& batch) {
          if (step == 3 && piece == bad) throw std::runtime_error("a piece");
          make(step, piece, batch);
        };
        maker.finish = [finish = maker.finish, bad](int64_t step, std::vector<int64_t>& batch) {
          if (step == 3 && bad == 6) throw std::runtime_error("the end");
          finish(step, batch);
        };
        Prefetcher<std::vector<int64_t>> prefetcher(maker, 0, depth, workers);
        for (int64_t step = 0; step < 3; ++step)
          EXPECT_EQ(*prefetcher.next(), std::vector{600 * step + 15});
        for (int attempt = 0; attempt < 2; ++attempt)
          EXPECT_THROW(prefetcher.next(), std::runtime_error);
      }
    }
  }
}

}  // namespace
}  // namespace sigtrain
