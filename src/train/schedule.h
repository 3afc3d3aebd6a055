// The learning rate over a run, as a factor of its peak.
#pragma once

#include <cstdint>

#include "config/schema.h"

namespace sigtrain {

/// Factor in [0, 1] for update `update` = 1 ... total_steps: linear warm-up from 1/warmup_steps to
/// 1, then the kind's shape, which ends at final_ratio (constant: 1) with update total_steps.
double schedule_factor(const ScheduleConfig& config, int64_t total_steps, int64_t update);

}  // namespace sigtrain
