// How the small programs of this folder end.
#pragma once

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <exception>
#include <string>

#include "core/error.h"
#include "core/log.h"

namespace sigtrain {

/// Numbers from `least` on, or only those above it.
inline CLI::Validator at_least(double least, bool or_equal) {
  return CLI::Validator(
      [=](const std::string& text) {
        double value = 0.0;
        const bool good =
            CLI::detail::lexical_cast(text, value) && (or_equal ? value >= least : value > least);
        return good ? std::string()
                    : fmt::format("must be a number {} {}, is '{}'",
                                  or_equal ? "of at least" : "greater than", least, text);
      },
      "");
}
inline CLI::Validator positive_number() { return at_least(0.0, false); }
inline CLI::Validator non_negative_number() { return at_least(0.0, true); }

/// Reads the command line into what `app` was told of and calls body(), whose value is the exit
/// status. A mistake of the user's is printed on stderr and ends with 2, any other error with 1.
template <typename Body>
int run_tool(CLI::App& app, int argc, char** argv, const Body& body) {
  try {
    app.parse(argc, argv);
    init_log({.level = "warning"});
    return body();
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  } catch (const UsageError& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 2;
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}

}  // namespace sigtrain
