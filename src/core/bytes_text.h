// Sizes of memory as messages show them.
#pragma once

#include <fmt/format.h>

#include <cstddef>
#include <string>

namespace sigtrain {

/// "512 B", "1.50 GiB".
inline std::string bytes_text(size_t bytes) {
  const char* const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(bytes);
  int unit = 0;
  while (value >= 1024.0 && unit < 4) value /= 1024.0, ++unit;
  return fmt::format("{:.{}f} {}", value, unit == 0 ? 0 : 2, units[unit]);
}

}  // namespace sigtrain
