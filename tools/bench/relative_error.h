// How far one vector lies from another, as one number.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace sigtrain {

/// || got - exact || / max(|| exact ||, size): 0 if both are empty, infinite if any number is NaN
/// or an infinity is not the other's.
inline double relative_error_by_norm(const std::vector<double>& got,
                                     const std::vector<double>& exact, double size = 0.0) {
  double difference = 0.0, norm = 0.0;
  for (size_t i = 0; i < exact.size(); ++i) {
    if (got[i] == exact[i] && std::isinf(exact[i])) continue;
    difference += (got[i] - exact[i]) * (got[i] - exact[i]);
    norm += exact[i] * exact[i];
  }
  if (!std::isfinite(difference) || got.size() != exact.size())
    return std::numeric_limits<double>::infinity();
  if (difference == 0.0) return 0.0;
  return std::sqrt(difference) / std::max({std::sqrt(norm), size, 1e-30});
}

}  // namespace sigtrain
