#include "train/schedule.h"

#include <gtest/gtest.h>

#include <cmath>

namespace sigtrain {
namespace {

ScheduleConfig schedule(ScheduleKind kind, int64_t warmup, double final_ratio,
                        double decay_fraction = 0.2) {
  return {kind, warmup, final_ratio, decay_fraction};
}

struct Point {
  int64_t update;
  double factor;
};

void expect_points(const ScheduleConfig& config, int64_t total_steps,
                   const std::vector<Point>& points) {
  for (const Point& point : points) {
    EXPECT_NEAR(schedule_factor(config, total_steps, point.update), point.factor, 1e-12)
        << "update " << point.update << " of " << total_steps;
  }
}

TEST(Schedule, EveryKindWarmsUpLinearly) {
  for (const ScheduleKind kind :
       {ScheduleKind::constant, ScheduleKind::linear, ScheduleKind::cosine, ScheduleKind::wsd}) {
    expect_points(schedule(kind, 4, 0.1), 100, {{1, 0.25}, {2, 0.5}, {3, 0.75}, {4, 1.0}});
  }
}

TEST(Schedule, ConstantStays) {
  expect_points(schedule(ScheduleKind::constant, 4, 0.1), 10, {{5, 1.0}, {10, 1.0}});
  expect_points(schedule(ScheduleKind::constant, 0, 0.1), 10, {{1, 1.0}, {10, 1.0}});
}

TEST(Schedule, LinearFallsToTheFinalRatio) {
  expect_points(schedule(ScheduleKind::linear, 10, 0.2), 50,
                {{10, 1.0}, {20, 0.8}, {30, 0.6}, {40, 0.4}, {50, 0.2}});
  expect_points(schedule(ScheduleKind::linear, 0, 0.0), 4,
                {{1, 0.75}, {2, 0.5}, {3, 0.25}, {4, 0.0}});
}

TEST(Schedule, CosineFallsToTheFinalRatio) {
  // 0.1 + 0.9 (1 + cos(pi x)) / 2 at x = 1/3, 1/2, 2/3, 1, where cos is 1/2, 0, -1/2, -1.
  expect_points(schedule(ScheduleKind::cosine, 10, 0.1), 70,
                {{10, 1.0}, {30, 0.775}, {40, 0.55}, {50, 0.325}, {70, 0.1}});
  expect_points(schedule(ScheduleKind::cosine, 10, 1.0), 70, {{40, 1.0}, {70, 1.0}});
}

TEST(Schedule, WarmupStableDecayFallsAtTheEnd) {
  expect_points(schedule(ScheduleKind::wsd, 10, 0.1, 0.2), 100,
                {{11, 1.0}, {80, 1.0}, {90, 0.55}, {100, 0.1}});
  // The whole way after the warm-up.
  expect_points(schedule(ScheduleKind::wsd, 10, 0.0, 0.9), 100, {{10, 1.0}, {55, 0.5}, {100, 0.0}});
}

TEST(Schedule, MayBeWarmUpAlone) {
  for (const ScheduleKind kind :
       {ScheduleKind::constant, ScheduleKind::linear, ScheduleKind::cosine}) {
    expect_points(schedule(kind, 4, 0.1), 4, {{1, 0.25}, {4, 1.0}});
  }
}

TEST(Schedule, StaysInItsRange) {
  for (const ScheduleKind kind :
       {ScheduleKind::constant, ScheduleKind::linear, ScheduleKind::cosine, ScheduleKind::wsd}) {
    double before = 2.0;
    for (int64_t update = 7; update <= 40; ++update) {
      const double factor = schedule_factor(schedule(kind, 7, 0.05, 0.3), 40, update);
      EXPECT_LE(factor, before) << "rises after the warm-up";
      EXPECT_GE(factor, 0.05 - 1e-12);
      before = factor;
    }
  }
}

}  // namespace
}  // namespace sigtrain
