// Logging through spdlog, with one live line at the bottom of a terminal.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace sigtrain {

struct LogOptions {
  std::string level = "info";  // trace, debug, info, warning, error, off
  int rank = 0;
  int ranks = 1;
  bool live = true;              // the live line is shown where standard output is a terminal
  std::filesystem::path file{};  // also written there, appended; empty: none
};

/// Makes spdlog's default logger write to standard output (and `file`), with the time and, among
/// several ranks, the rank. Ranks other than 0 write warnings and errors only. Call it again once
/// the rank or the run's folder is known. Throws UsageError for an unknown level, Error if the
/// file cannot be written.
void init_log(const LogOptions& options);

/// Whether the live line is shown: standard output is a terminal and this is rank 0.
bool has_live_line();
/// Columns of the terminal on standard output; 80 if there is none.
int terminal_columns();

/// Shows `text` on the live line, cut to the terminal's width. Log lines are printed above it.
/// Nothing happens where has_live_line() is false.
void set_live_line(std::string_view text);
/// Takes the live line away.
void clear_live_line();

/// Logs a line that the live line makes superfluous on a terminal: it goes to a redirected standard
/// output and to the file.
void log_progress(std::string_view text);

}  // namespace sigtrain
