#include "train/signals.h"

#include <gtest/gtest.h>

#include "core/error.h"

namespace sigtrain {
namespace {

TEST(StopSignal, RemembersTheSignalAndRestoresTheHandlers) {
  struct sigaction before {
  }, after{};
  sigaction(SIGTERM, nullptr, &before);
  {
    const StopSignal stop;
    EXPECT_FALSE(stop.requested());
    raise(SIGTERM);
    raise(SIGTERM);
    EXPECT_EQ(stop.signal(), SIGTERM);
    EXPECT_THROW(StopSignal(), Error);
  }
  sigaction(SIGTERM, nullptr, &after);
  EXPECT_EQ(before.sa_handler, after.sa_handler);
  const StopSignal again;
  EXPECT_FALSE(again.requested());
  raise(SIGINT);
  EXPECT_EQ(again.signal(), SIGINT);
}

TEST(StopSignal, TakesWhatMpirunPassesOnForSigterm) {
  const StopSignal stop;
  raise(SIGUSR1);
  EXPECT_EQ(stop.signal(), SIGTERM);
}

TEST(StopSignalDeathTest, ASecondInterruptEndsTheProcess) {
  EXPECT_EXIT(
      {
        const StopSignal stop;
        raise(SIGINT);
        if (!stop.requested()) _exit(3);
        raise(SIGINT);
        _exit(4);
      },
      testing::KilledBySignal(SIGINT), "");
}

}  // namespace
}  // namespace sigtrain
