// How the small programs of this folder end.
#pragma once

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <exception>

#include "core/error.h"
#include "core/log.h"

namespace sigtrain {

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
