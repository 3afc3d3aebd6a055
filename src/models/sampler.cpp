#include "models/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"

namespace sigtrain {

int32_t sample(const std::vector<float>& logits, const SamplingConfig& config, double uniform) {
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  // NaN compares false with everything: out before sorting.
  std::erase_if(order, [&](int32_t id) { return !std::isfinite(logits[static_cast<size_t>(id)]); });
  if (order.empty())
    throw Error("no logit is finite: the checkpoint's weights are damaged or the model diverged");
  const auto more_likely = [&](int32_t a, int32_t b) {
    const float x = logits[static_cast<size_t>(a)], y = logits[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  };
  std::sort(order.begin(), order.end(), more_likely);
  if (config.temperature <= 0.0) return order.front();
  if (config.top_k > 0 && config.top_k < static_cast<int64_t>(order.size()))
    order.resize(static_cast<size_t>(config.top_k));

  const double largest = logits[static_cast<size_t>(order.front())];
  std::vector<double> weights;
  double total = 0.0;
  for (int32_t id : order) {
    weights.push_back(std::exp((logits[static_cast<size_t>(id)] - largest) / config.temperature));
    total += weights.back();
  }
  double kept = 0.0;
  size_t count = 0;
  while (count < weights.size() && (count == 0 || kept < config.top_p * total))
    kept += weights[count++];

  double remaining = uniform * kept;
  for (size_t i = 0; i + 1 < count; ++i) {
    remaining -= weights[i];
    if (remaining < 0.0) return order[i];
  }
  return order[count - 1];
}

}  // namespace sigtrain
