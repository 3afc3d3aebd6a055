#include "core/ctc_frames.h"

#include <gtest/gtest.h>

#include <vector>

namespace sigtrain {
namespace {

int64_t needed(const std::vector<int32_t>& targets) { return ctc_frames_needed(targets); }

TEST(CtcFramesNeeded, CountsABlankBetweenEqualNeighbours) {
  EXPECT_EQ(needed({}), 0);
  EXPECT_EQ(needed({1, 2, 1}), 3);
  EXPECT_EQ(needed({1, 1, 1, 2, 2}), 8);
}

}  // namespace
}  // namespace sigtrain
