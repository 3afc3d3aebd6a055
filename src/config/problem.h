// What is wrong with a config, and where it was written.
#pragma once

#include <climits>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"

namespace sigtrain {

/// Where a value was written: a line of a file or an override of the command line.
struct Place {
  std::string text;      // "FILE:LINE" or "--set KEY=VALUE"; empty when unknown
  std::string shown;     // the key path that `text` itself shows (overrides), else empty
  int source = INT_MAX;  // 0: the config itself, then its bases, then the overrides
  int line = 0;

  bool is_override() const { return !shown.empty(); }
};

/// Everything that is wrong with a config. what() has one line a problem, in the order of the
/// sources and of the lines in each.
class ConfigError : public UsageError {
 public:
  explicit ConfigError(std::vector<std::string> problems);
  const std::vector<std::string>& problems() const { return problems_; }

 private:
  std::vector<std::string> problems_;
};

/// Collects problems so that the user sees all of them at once.
class Problems {
 public:
  /// Notes `message` on the key `path` (empty: on no key). Control characters become '?', so that
  /// a problem is one line whatever the file holds.
  void add(const Place& place, std::string_view path, std::string_view message);
  bool empty() const { return found_.empty(); }
  /// Throws a ConfigError with all of them, if there are any.
  void throw_if_any();

 private:
  struct Found {
    int source;
    int line;
    std::string text;
  };
  std::vector<Found> found_;
};

}  // namespace sigtrain
