// Ranks that would train different things are refused before they train.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "config/schema.h"
#include "dist/process_group.h"

namespace sigtrain {

/// What ranks must agree on: names and values.
using Facts = std::vector<std::pair<std::string, std::string>>;

/// Version and checksum of the running program, and every key of the config.
Facts program_and_config(const Config& config);

/// Throws AgreedFailure naming a rank and the first fact in which it differs from rank 0.
void check_same_everywhere(ProcessGroup& group, const Facts& facts);

}  // namespace sigtrain
