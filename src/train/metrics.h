// The numbers of a run, one JSON object a line: metrics.jsonl.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "core/file_io.h"

namespace sigtrain {

/// An integer count, a number, or one number for each layer.
using MetricValue = std::variant<int64_t, double, std::vector<double>>;

/// What is known after one step or one evaluation. The usual names of the values are `loss`, `lr`,
/// `grad_norm`, `tokens` (seen so far; of other tasks `images`), `tokens_per_second`, `tflops`,
/// `mfu` and `seconds` (since the run began); among several ranks `exchange_seconds` and
/// `exchange_waited_seconds` (ExchangeTimes); by layer `attention_out_rms`, `attention_branch_rms`,
/// `attention_row_sum`, `layer_grad_norm`.
struct MetricsRecord {
  int64_t step = 0;
  std::string split;  // "train" or "validation"
  std::vector<std::pair<std::string, MetricValue>> values;

  void add(std::string name, MetricValue value) {
    values.emplace_back(std::move(name), std::move(value));
  }
};

/// The line of a record, without its line end: step, split, then the values in their order. A
/// number that is not finite becomes null, since JSON has no other word for it.
std::string to_json_line(const MetricsRecord& record);

/// Appends records to a file, each written through at once.
class MetricsWriter {
 public:
  /// Without `resume_step` the file is started anew. With it, the lines after that step and those
  /// that are not whole (a killed run's last) are dropped first, atomically; so a resumed run has
  /// every step once. Throws Error if the file cannot be written.
  MetricsWriter(const std::filesystem::path& path, std::optional<int64_t> resume_step);

  void write(const MetricsRecord& record);

  int64_t kept_lines() const { return kept_lines_; }
  int64_t dropped_lines() const { return dropped_lines_; }

 private:
  std::filesystem::path keep_earlier_lines(const std::filesystem::path& path,
                                           std::optional<int64_t> resume_step);

  int64_t kept_lines_ = 0, dropped_lines_ = 0;
  AppendFile file_;  // last: opened when the earlier lines have been sorted out
};

}  // namespace sigtrain
