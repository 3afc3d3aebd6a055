// A run's YAML file, its bases and its overrides, read into the schema.
#pragma once

#include <string>
#include <vector>

#include "config/problem.h"
#include "config/schema.h"

namespace sigtrain {

/// Reads the config at `path`, inheriting from the file a top-level `base:` names (relative to the
/// naming file; bases may have bases), then applies the overrides "a.b=value" in order. What is not
/// given keeps the schema's default. The result is valid (config/validate.h).
/// Throws one ConfigError with every problem found: "FILE:LINE: model.attention.knd: unknown key
/// (did you mean 'kind'?)".
Config read_config(const std::string& path, const std::vector<std::string>& overrides = {});

}  // namespace sigtrain
