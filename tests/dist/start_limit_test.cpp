#include "dist/start_limit.h"

#include <gtest/gtest.h>

namespace sigtrain {
namespace {

TEST(StartLimit, EndsAProcessThatWaitsTooLong) {
  EXPECT_EXIT(
      {
        const StartLimit limit(std::chrono::milliseconds(100), "a rank is missing");
        std::this_thread::sleep_for(std::chrono::seconds(30));
      },
      testing::ExitedWithCode(1), "");
}

TEST(StartLimit, LeavesOneAloneThatGotTogether) {
  { const StartLimit limit(std::chrono::milliseconds(100), "a rank is missing"); }
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
}

}  // namespace
}  // namespace sigtrain
