#include "train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace sigtrain {

double schedule_factor(const ScheduleConfig& config, int64_t total_steps, int64_t update) {
  const auto t = static_cast<double>(update), warmup = static_cast<double>(config.warmup_steps);
  if (t <= warmup) return t / warmup;
  // Share of the way from `begin` to the last update.
  const auto progress = [&](double begin) {
    const double length = static_cast<double>(total_steps) - begin;
    return length <= 0.0 ? 1.0 : std::clamp((t - begin) / length, 0.0, 1.0);
  };
  const double fall = 1.0 - config.final_ratio;
  switch (config.kind) {
    case ScheduleKind::constant:
      return 1.0;
    case ScheduleKind::linear:
      return 1.0 - fall * progress(warmup);
    case ScheduleKind::cosine:
      return config.final_ratio +
             fall * 0.5 * (1.0 + std::cos(std::numbers::pi * progress(warmup)));
    case ScheduleKind::wsd: {
      const double decay_begin =
          std::max(warmup, static_cast<double>(total_steps) * (1.0 - config.decay_fraction));
      return t <= decay_begin ? 1.0 : 1.0 - fall * progress(decay_begin);
    }
  }
  return 1.0;
}

}  // namespace sigtrain
