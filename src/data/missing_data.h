// What a config names as data and is not there.
#pragma once

#include <string>

#include "config/schema.h"

namespace sigtrain {

/// The paths of data.train, data.validation and data.tokenizer that do not exist, and what makes
/// them, each on a line; empty if all do. Whether the others are what they should be is seen when
/// they are opened.
std::string describe_missing_data(const DataConfig& data);

}  // namespace sigtrain
