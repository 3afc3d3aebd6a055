// A config as YAML, and the printed reference of every key.
#pragma once

#include <string>

#include "config/schema.h"

namespace sigtrain {

/// The whole config as YAML: every key, bases and overrides resolved. read_config reads it back to
/// an equal one, doubles to the last bit.
std::string to_yaml(const Config& config);

/// Every key with its default, what it accepts and what it means: two lines a key.
std::string config_reference();

}  // namespace sigtrain
