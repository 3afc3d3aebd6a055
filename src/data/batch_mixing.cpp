#include "data/batch_mixing.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace sigtrain {
namespace {

/// Calls change(own, other) for each row of `values` and what was `distance` rows before it; from
/// the last row on, so that the last rows are kept and not all.
template <typename Values, typename Change>
void for_each_pair(Values& values, int64_t rows, int64_t distance, const Change& change) {
  const auto length = static_cast<std::ptrdiff_t>(values.size()) / std::max<int64_t>(1, rows);
  const int64_t apart = std::clamp<int64_t>(distance, 0, rows);
  // (Not of the batch's own kind of vector, whose memory is kept for batches.)
  const std::vector<typename Values::value_type> last(values.end() - apart * length, values.end());
  for (int64_t row = rows - 1; row >= 0; --row) {
    auto* own = values.data() + row * length;
    change(own, row >= apart ? own - apart * length : last.data() + row * length, length);
  }
}

void mix_targets(ImageBatch& batch, int64_t distance, double share) {
  const auto own_share = static_cast<float>(share), rest = static_cast<float>(1.0 - share);
  for_each_pair(batch.targets, batch.rows, distance,
                [=](float* own, const float* other, std::ptrdiff_t length) {
                  for (std::ptrdiff_t i = 0; i < length; ++i)
                    own[i] = own_share * own[i] + rest * other[i];
                });
}

}  // namespace

void make_targets(ImageBatch& batch, int64_t classes, double smoothing) {
  const double spread = smoothing / static_cast<double>(classes);
  batch.targets.assign(static_cast<size_t>(batch.rows * classes), static_cast<float>(spread));
  for (int64_t row = 0; row < batch.rows; ++row) {
    const int32_t label = batch.labels[static_cast<size_t>(row)];
    if (label != kNoLabel)
      batch.targets[static_cast<size_t>(row * classes + label)] =
          static_cast<float>(1.0 - smoothing + spread);
  }
}

void mix(ImageBatch& batch, int64_t distance, double share) {
  const auto own_share = static_cast<float>(share), rest = static_cast<float>(1.0 - share);
  for_each_pair(batch.images, batch.rows, distance,
                [=](uint8_t* own, const uint8_t* other, std::ptrdiff_t length) {
                  for (std::ptrdiff_t i = 0; i < length; ++i) {
                    const float value = own_share * static_cast<float>(own[i]) +
                                        rest * static_cast<float>(other[i]);
                    own[i] = static_cast<uint8_t>(value + 0.5F);
                  }
                });
  mix_targets(batch, distance, share);
}

void cut_and_mix(ImageBatch& batch, int64_t distance, ImageSize size, const Box& box) {
  const auto top = static_cast<int64_t>(box.top), left = static_cast<int64_t>(box.left);
  const auto height = static_cast<int64_t>(box.height), width = static_cast<int64_t>(box.width);
  for_each_pair(batch.images, batch.rows, distance,
                [=](uint8_t* own, const uint8_t* other, std::ptrdiff_t length) {
                  const int64_t channels = length / (size.height * size.width);
                  for (int64_t y = top; y < top + height; ++y) {
                    const int64_t at = (y * size.width + left) * channels;
                    std::copy_n(other + at, width * channels, own + at);
                  }
                });
  mix_targets(
      batch, distance,
      1.0 - static_cast<double>(height * width) / static_cast<double>(size.height * size.width));
}

Box cut_around(ImageSize size, double share, int64_t x, int64_t y) {
  const double half = 0.5 * std::sqrt(1.0 - share);
  const auto side = [&](int64_t length, int64_t middle) {
    const auto reach = static_cast<int64_t>(half * static_cast<double>(length));
    return std::pair{std::max<int64_t>(0, middle - reach), std::min(length, middle + reach)};
  };
  const auto [left, right] = side(size.width, x);
  const auto [top, bottom] = side(size.height, y);
  return {static_cast<double>(top), static_cast<double>(left), static_cast<double>(bottom - top),
          static_cast<double>(right - left)};
}

Box random_cut(ImageSize size, double share, SampleRandom& random) {
  const int64_t x = random.integer(size.width);
  return cut_around(size, share, x, random.integer(size.height));
}

void mix_batch(const AugmentConfig& config, ImageSize size, SampleRandom& random,
               ImageBatch& batch) {
  const bool both = config.mixup > 0.0 && config.cutmix > 0.0;
  if (config.mixup > 0.0 && (!both || random.coin(0.5))) {
    mix(batch, config.repeats, random.beta(config.mixup));
  } else if (config.cutmix > 0.0) {
    cut_and_mix(batch, config.repeats, size, random_cut(size, random.beta(config.cutmix), random));
  }
}

}  // namespace sigtrain
