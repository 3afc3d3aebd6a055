#include "data/image_resize.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

namespace sigtrain {
namespace {

/// Weights are integers over 2^22, as in Pillow: 8 bits of pixel, 22 of weight and 2 to spare.
constexpr int kPrecisionBits = 32 - 8 - 2;

/// For each pixel of a line, the `count` pixels of the input from `first` on and what each adds.
struct Taps {
  int64_t count = 0;
  std::vector<int64_t> first;
  std::vector<int32_t> weights;  // [pixels, count]
};

/// Triangles as wide as an output pixel or, where that is less, an input pixel. `start` and
/// `length` say which part of the line is wanted; pixels outside of [low, high) do not count.
Taps make_taps(double start, double length, int64_t low, int64_t high, int64_t out) {
  const double scale = length / static_cast<double>(out), support = std::max(scale, 1.0);
  Taps taps;
  // As many for all, so that loops over them have a known length: windows are moved inside and
  // filled up with zeros.
  taps.count = std::min(high - low, static_cast<int64_t>(std::ceil(2.0 * support)) + 1);
  taps.weights.assign(static_cast<size_t>(out * taps.count), 0);
  std::vector<double> weights;
  for (int64_t i = 0; i < out; ++i) {
    const double center = start + (static_cast<double>(i) + 0.5) * scale;
    const auto begin = std::max(low, static_cast<int64_t>(std::floor(center - support + 0.5)));
    const auto end = std::min(high, static_cast<int64_t>(std::floor(center + support + 0.5)));
    weights.clear();
    double sum = 0.0;
    for (int64_t x = begin; x < end; ++x) {
      const double distance = std::abs((static_cast<double>(x) - center + 0.5) / support);
      weights.push_back(std::max(0.0, 1.0 - distance));
      sum += weights.back();
    }
    const int64_t first = std::min(begin, high - taps.count);
    taps.first.push_back(first);
    int32_t* own = taps.weights.data() + i * taps.count + (begin - first);
    for (const double weight : weights)
      *own++ = static_cast<int32_t>(std::floor(weight / sum * (1 << kPrecisionBits) + 0.5));
  }
  return taps;
}

uint8_t rounded(int32_t sum) {
  return static_cast<uint8_t>(std::clamp(sum >> kPrecisionBits, 0, 255));
}

constexpr int32_t kHalf = 1 << (kPrecisionBits - 1);

// Four sums at a time, in vectors of the compiler's, which left to itself multiplies a pixel's
// channels one by one: three channels and a lane that is thrown away.
constexpr int64_t kLanes = 4;
using Lanes = int32_t __attribute__((vector_size(16)));
using Words = uint32_t __attribute__((vector_size(16)));
using Bytes = uint8_t __attribute__((vector_size(16)));
static_assert(std::endian::native == std::endian::little);

/// The four bytes from `bytes` on.
Lanes load_lanes(const uint8_t* bytes) {
  uint32_t word;
  std::memcpy(&word, bytes, sizeof(word));
  constexpr Bytes spread = {0, 4, 4, 4, 1, 4, 4, 4, 2, 4, 4, 4, 3, 4, 4, 4};  // 4 is a zero
  return reinterpret_cast<Lanes>(__builtin_shuffle(reinterpret_cast<Bytes>(Words{word}), spread));
}

void store_rounded(const Lanes& sums, uint8_t* bytes) {
  Lanes values = sums >> kPrecisionBits;
  values = values < 0 ? Lanes{} : values;
  values = values > 255 ? Lanes{} + 255 : values;
  constexpr Bytes gather = {0, 4, 8, 12};
  const auto gathered =
      reinterpret_cast<Words>(__builtin_shuffle(reinterpret_cast<Bytes>(values), gather));
  const uint32_t word = gathered[0];
  std::memcpy(bytes, &word, sizeof(word));
}

/// kCount: taps.count, or 0 for any. Reads and writes kLanes - kChannels bytes behind the ends of
/// the rows.
template <int64_t kChannels, int64_t kCount>
void resize_row(const uint8_t* row, const Taps& taps, uint8_t* out) {
  const int64_t count = kCount > 0 ? kCount : taps.count;
  const int32_t* weights = taps.weights.data();
  for (const int64_t first : taps.first) {
    const uint8_t* pixel = row + first * kChannels;
    Lanes sums = Lanes{} + kHalf;
    for (int64_t k = 0; k < count; ++k) sums += weights[k] * load_lanes(pixel + k * kChannels);
    store_rounded(sums, out);
    out += kChannels;
    weights += count;
  }
}

template <int64_t kChannels>
void resize_row(const uint8_t* row, const Taps& taps, uint8_t* out) {
  switch (taps.count) {
    case 3:
      return resize_row<kChannels, 3>(row, taps, out);
    case 4:
      return resize_row<kChannels, 4>(row, taps, out);
    case 5:
      return resize_row<kChannels, 5>(row, taps, out);
    default:
      return resize_row<kChannels, 0>(row, taps, out);
  }
}

}  // namespace

Image resize(const Image& image, const Box& box, ImageSize out) {
  const auto floor_of = [](double x) { return std::max<int64_t>(0, static_cast<int64_t>(x)); };
  const int64_t top = floor_of(box.top), left = floor_of(box.left);
  // A millionth of a pixel is rounding, not a pixel.
  const auto ceil_of = [](double x) { return static_cast<int64_t>(std::ceil(x - 1e-6)); };
  const int64_t bottom = std::min(image.height, ceil_of(box.top + box.height));
  const int64_t right = std::min(image.width, ceil_of(box.left + box.width));
  const Taps across = make_taps(box.left, box.width, left, right, out.width);
  const Taps down = make_taps(box.top, box.height, top, bottom, out.height);
  // Rows first: they are fewer than columns where a part is cut out.
  const int64_t row_bytes = image.width * image.channels, columns = out.width * image.channels;
  const int64_t behind = kLanes - image.channels;
  std::vector<uint8_t> row(static_cast<size_t>(row_bytes + behind));
  std::vector<uint8_t> narrow(static_cast<size_t>((bottom - top) * columns + behind));
  for (int64_t y = top; y < bottom; ++y) {
    std::copy_n(image.row(y), row_bytes, row.begin());
    uint8_t* narrowed = narrow.data() + (y - top) * columns;
    if (image.channels == 3) {
      resize_row<3>(row.data(), across, narrowed);
    } else {
      resize_row<1>(row.data(), across, narrowed);
    }
  }
  Image result(out.height, out.width, image.channels);
  std::vector<int32_t> sums(static_cast<size_t>(columns));
  for (int64_t y = 0; y < out.height; ++y) {
    std::fill(sums.begin(), sums.end(), kHalf);
    for (int64_t k = 0; k < down.count; ++k) {
      const int64_t from = down.first[static_cast<size_t>(y)] - top + k;
      const uint8_t* narrowed = narrow.data() + from * columns;
      const int32_t weight = down.weights[static_cast<size_t>(y * down.count + k)];
      if (weight == 0) continue;
#pragma omp simd
      for (int64_t i = 0; i < columns; ++i) sums[static_cast<size_t>(i)] += weight * narrowed[i];
    }
    uint8_t* line = result.row(y);
    for (int64_t i = 0; i < columns; ++i) line[i] = rounded(sums[static_cast<size_t>(i)]);
  }
  return result;
}

Image crop(const Image& image, int64_t top, int64_t left, ImageSize out) {
  Image result(out.height, out.width, image.channels);
  const int64_t first = std::max<int64_t>(0, -left);
  const int64_t end = std::min(out.width, image.width - left);
  for (int64_t y = std::max<int64_t>(0, -top); y < std::min(out.height, image.height - top); ++y) {
    if (first >= end) break;
    std::copy_n(image.row(top + y) + (left + first) * image.channels,
                (end - first) * image.channels, result.row(y) + first * image.channels);
  }
  return result;
}

namespace {

template <int64_t kChannels>
void flip_row(uint8_t* row, int64_t width) {
  for (int64_t a = 0, b = width - 1; a < b; ++a, --b)
    for (int64_t c = 0; c < kChannels; ++c)
      std::swap(row[a * kChannels + c], row[b * kChannels + c]);
}

}  // namespace

void flip_horizontally(Image& image) {
  for (int64_t y = 0; y < image.height; ++y) {
    if (image.channels == 3) {
      flip_row<3>(image.row(y), image.width);
    } else {
      flip_row<1>(image.row(y), image.width);
    }
  }
}

}  // namespace sigtrain
