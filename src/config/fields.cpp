#include "config/fields.h"

#include <fmt/format.h>

#include <cmath>

namespace sigtrain {

std::string range_text(const Range& range) {
  const bool has_low = std::isfinite(range.low);
  const bool has_high = std::isfinite(range.high);
  if (has_low && has_high) {
    return fmt::format("in {}{}, {}{}", range.low_included ? '[' : '(', range.low, range.high,
                       range.high_included ? ']' : ')');
  }
  if (has_low)
    return fmt::format("{} {}", range.low_included ? "at least" : "greater than", range.low);
  if (has_high) return fmt::format("{} {}", range.high_included ? "at most" : "below", range.high);
  return {};
}

}  // namespace sigtrain
