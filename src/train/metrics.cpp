#include "train/metrics.h"

#include <nlohmann/json.hpp>
#include <system_error>

namespace sigtrain {
namespace {

using nlohmann::ordered_json;

// Whether a line of an earlier run is whole and belongs to a step that is not run again.
bool belongs(std::string_view line, int64_t last_step) {
  const ordered_json record = ordered_json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!record.is_object()) return false;
  const auto step = record.find("step");
  return step != record.end() && step->is_number_integer() && step->get<int64_t>() <= last_step;
}

}  // namespace

std::string to_json_line(const MetricsRecord& record) {
  ordered_json line = {{"step", record.step}, {"split", record.split}};
  for (const auto& [name, value] : record.values) {
    std::visit([&line, &name = name](const auto& held) { line[name] = held; }, value);
  }
  return line.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

MetricsWriter::MetricsWriter(const std::filesystem::path& path, std::optional<int64_t> resume_step)
    : file_(keep_earlier_lines(path, resume_step)) {}

std::filesystem::path MetricsWriter::keep_earlier_lines(const std::filesystem::path& path,
                                                        std::optional<int64_t> resume_step) {
  std::error_code ignored;
  std::string kept;
  if (resume_step && std::filesystem::exists(path, ignored)) {
    const std::string text = read_file(path);
    for (size_t begin = 0; begin < text.size();) {
      const size_t end = text.find('\n', begin);
      const std::string_view line = std::string_view(text).substr(
          begin, end == std::string::npos ? std::string::npos : end - begin);
      if (end != std::string::npos && belongs(line, *resume_step)) {
        kept.append(line).append("\n");
        ++kept_lines_;
      } else {
        ++dropped_lines_;
      }
      if (end == std::string::npos) break;
      begin = end + 1;
    }
  }
  write_file(path, kept);
  return path;
}

void MetricsWriter::write(const MetricsRecord& record) {
  file_.append(to_json_line(record) + "\n");
}

}  // namespace sigtrain
