// Values and combinations no run can have.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "config/schema.h"

namespace sigtrain {

/// A value out of range, or values that exclude each other.
struct Impossible {
  std::vector<std::string> keys;  // paths; the first is the one to blame, the others play a part
  std::string message;
};

/// Everything impossible in `config`: fields outside their range (config/fields.h) and impossible
/// combinations. What involves a path in `unusable`, or one below it, is not judged: its value is
/// known to be wrong already.
std::vector<Impossible> impossible_values(const Config& config,
                                          const std::set<std::string>& unusable = {});

/// Throws one ConfigError with all of impossible_values(config): for configs made in code.
void validate(const Config& config);

}  // namespace sigtrain
