#include "config/problem.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <tuple>
#include <utility>

namespace sigtrain {

ConfigError::ConfigError(std::vector<std::string> problems)
    : UsageError("{}", fmt::join(problems, "\n")), problems_(std::move(problems)) {}

void Problems::add(const Place& place, std::string_view path, std::string_view message) {
  std::string text;
  if (!place.text.empty()) text += place.text + ": ";
  if (!path.empty() && path != place.shown) text += fmt::format("{}: ", path);
  text += message;
  for (char& c : text) {
    const auto code = static_cast<unsigned char>(c);
    if (code < 0x20 || code == 0x7f) c = '?';
  }
  found_.push_back({place.source, place.line, std::move(text)});
}

void Problems::throw_if_any() {
  if (found_.empty()) return;
  std::stable_sort(found_.begin(), found_.end(), [](const Found& a, const Found& b) {
    return std::tie(a.source, a.line) < std::tie(b.source, b.line);
  });
  std::vector<std::string> lines;
  for (Found& found : found_) lines.push_back(std::move(found.text));
  found_.clear();
  throw ConfigError(std::move(lines));
}

}  // namespace sigtrain
