// The exceptions this project throws. Their text is shown to the user as it is: it says what to
// change.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <utility>

namespace sigtrain {

/// Something went wrong at run time (a file, a device, a number that is not finite). Exit code 1.
class Error : public std::runtime_error {
 public:
  template <typename... Args>
  explicit Error(fmt::format_string<Args...> format, Args&&... args)
      : std::runtime_error(fmt::format(format, std::forward<Args>(args)...)) {}
};

/// The user asked for something impossible (a flag, a config). Reported before any work; exit
/// code 2.
class UsageError : public Error {
 public:
  using Error::Error;
};

}  // namespace sigtrain
