#include "data/image_adjust.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "data/image_resize.h"

namespace sigtrain {
namespace {

uint8_t clamped(float value) { return static_cast<uint8_t>(std::clamp(value, 0.0F, 255.0F)); }

/// factor own + (1 - factor) other, cut off, as torchvision's _blend.
uint8_t blend(uint8_t own, float other, float factor, float rest) {
  return clamped(factor * static_cast<float>(own) + rest * other);
}

uint8_t grey(const uint8_t* pixel) {
  return static_cast<uint8_t>(0.2989F * static_cast<float>(pixel[0]) +
                              0.587F * static_cast<float>(pixel[1]) +
                              0.114F * static_cast<float>(pixel[2]));
}

template <typename Change>
void for_each_pixel(Image& image, const Change& change) {
  for (size_t i = 0; i < image.pixels.size(); i += static_cast<size_t>(image.channels))
    change(image.pixels.data() + i);
}

/// The grey of each pixel. In loops of their own the conversions take vectors.
std::vector<uint8_t> greys_of(const Image& image) {
  std::vector<uint8_t> greys(static_cast<size_t>(image.height * image.width));
  const uint8_t* pixels = image.pixels.data();
  uint8_t* out = greys.data();
  const auto count = static_cast<int64_t>(greys.size());
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) out[i] = grey(pixels + 3 * i);
  return greys;
}

void look_up(Image& image, int64_t channel, const std::array<uint8_t, 256>& table) {
  for_each_pixel(image, [&](uint8_t* pixel) { pixel[channel] = table[pixel[channel]]; });
}

/// sources: of each pixel of a row, the one it is of `pixels`; negative: black.
template <int64_t kChannels>
void gather_pixels(const uint8_t* pixels, const std::vector<int32_t>& sources, uint8_t* row) {
  for (const int64_t source : sources)
    for (int64_t c = 0; c < kChannels; ++c)
      *row++ = source < 0 ? uint8_t{0} : pixels[source * kChannels + c];
}

constexpr double kRadians = 3.14159265358979323846 / 180.0;

}  // namespace

void adjust_brightness(Image& image, double factor) {
  const auto f = static_cast<float>(factor);
  for (uint8_t& value : image.pixels) value = clamped(f * static_cast<float>(value));
}

void adjust_saturation(Image& image, double factor) {
  const auto f = static_cast<float>(factor), rest = static_cast<float>(1.0 - factor);
  const std::vector<uint8_t> greys = greys_of(image);
  const uint8_t* others = greys.data();
  uint8_t* pixels = image.pixels.data();
  const auto count = static_cast<int64_t>(greys.size());
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    const auto other = static_cast<float>(others[i]);
    for (int c = 0; c < 3; ++c) pixels[3 * i + c] = blend(pixels[3 * i + c], other, f, rest);
  }
}

void adjust_contrast(Image& image, double factor) {
  const std::vector<uint8_t> greys = image.channels == 3 ? greys_of(image) : image.pixels;
  const auto sum = std::accumulate(greys.begin(), greys.end(), int64_t{0});
  const auto mean =
      static_cast<float>(static_cast<double>(sum) / static_cast<double>(greys.size()));
  const auto f = static_cast<float>(factor), rest = static_cast<float>(1.0 - factor);
  for (uint8_t& value : image.pixels) value = blend(value, mean, f, rest);
}

void adjust_sharpness(Image& image, double factor) {
  if (image.height <= 2 || image.width <= 2) return;
  const auto f = static_cast<float>(factor), rest = static_cast<float>(1.0 - factor);
  const Image before = image;
  const int64_t channels = image.channels, row_bytes = image.width * channels;
  for (int64_t y = 0; y < image.height; ++y) {
    const uint8_t* own = before.row(y);
    uint8_t* out = image.row(y);
    // Pixels at the edge have no neighbours to be blurred with.
    const auto keep = [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        out[i] = blend(own[i], static_cast<float>(own[i]), f, rest);
    };
    if (y == 0 || y == image.height - 1) {
      keep(0, row_bytes);
      continue;
    }
    keep(0, channels);
    keep(row_bytes - channels, row_bytes);
    const uint8_t *above = before.row(y - 1), *below = before.row(y + 1);
    for (int64_t i = channels; i < row_bytes - channels; ++i) {
      int sum = 4 * own[i];
      for (const uint8_t* row : {above, own, below})
        sum += row[i - channels] + row[i] + row[i + channels];
      // A thirteenth of the sum, rounded: no thirteenths lie in the middle between two integers.
      out[i] = blend(own[i], static_cast<float>((2 * sum + 13) / 26), f, rest);
    }
  }
}

void adjust_hue(Image& image, double turns) {
  for_each_pixel(image, [=](uint8_t* pixel) {
    const float r = static_cast<float>(pixel[0]) / 255.0F,
                g = static_cast<float>(pixel[1]) / 255.0F,
                b = static_cast<float>(pixel[2]) / 255.0F;
    const float high = std::max({r, g, b}), low = std::min({r, g, b}), range = high - low;
    if (range == 0.0F) return;  // grey has no hue
    const float saturation = range / high;
    const float rc = (high - r) / range, gc = (high - g) / range, bc = (high - b) / range;
    float hue = high == r ? bc - gc : high == g ? 2.0F + rc - bc : 4.0F + gc - rc;
    hue = std::fmod(hue / 6.0F + 1.0F, 1.0F);
    hue += static_cast<float>(turns);
    hue -= std::floor(hue);
    const float sector = std::floor(hue * 6.0F), f = hue * 6.0F - sector;
    const auto in_range = [](float x) { return std::clamp(x, 0.0F, 1.0F); };
    const float p = in_range(high * (1.0F - saturation)),
                q = in_range(high * (1.0F - saturation * f)),
                t = in_range(high * (1.0F - saturation * (1.0F - f)));
    const float colours[6][3] = {{high, t, p}, {q, high, p}, {p, high, t},
                                 {p, q, high}, {t, p, high}, {high, p, q}};
    // Just below 256, so that 1 becomes 255 and every byte has an interval of the same length.
    for (int c = 0; c < 3; ++c)
      pixel[c] = static_cast<uint8_t>(colours[static_cast<int>(sector) % 6][c] * (256.0F - 1e-3F));
  });
}

void posterize(Image& image, int bits) {
  const auto mask = static_cast<uint8_t>(0xFF << (8 - bits));
  for (uint8_t& value : image.pixels) value &= mask;
}

void solarize(Image& image, double threshold) {
  const auto least = static_cast<int>(std::ceil(threshold));
  for (uint8_t& value : image.pixels)
    value = static_cast<uint8_t>(value >= least ? 255 - value : value);
}

void autocontrast(Image& image) {
  for (int64_t c = 0; c < image.channels; ++c) {
    uint8_t low = 255, high = 0;
    for_each_pixel(image, [&](const uint8_t* pixel) {
      low = std::min(low, pixel[c]), high = std::max(high, pixel[c]);
    });
    if (low >= high) continue;
    const float scale = 255.0F / static_cast<float>(high - low);
    std::array<uint8_t, 256> table;
    for (int i = 0; i < 256; ++i)
      table[static_cast<size_t>(i)] = clamped(static_cast<float>(i - low) * scale);
    look_up(image, c, table);
  }
}

void equalize(Image& image) {
  for (int64_t c = 0; c < image.channels; ++c) {
    std::array<int64_t, 256> histogram{};
    for_each_pixel(image, [&](const uint8_t* pixel) { ++histogram[pixel[c]]; });
    int64_t last = 0;
    for (const int64_t count : histogram)
      if (count > 0) last = count;
    const int64_t step = (image.height * image.width - last) / 255;
    if (step == 0) continue;
    std::array<uint8_t, 256> table;
    int64_t below = 0;
    for (size_t i = 0; i < 256; ++i) {
      table[i] = i == 0 ? uint8_t{0}
                        : static_cast<uint8_t>(std::min<int64_t>(255, (below + step / 2) / step));
      below += histogram[i];
    }
    look_up(image, c, table);
  }
}

void warp(Image& image, const std::array<double, 6>& m) {
  const Image before = image;
  const int64_t width = image.width, height = image.height;
  const double middle_x = 0.5 * static_cast<double>(width),
               middle_y = 0.5 * static_cast<double>(height);
  std::vector<int32_t> sources(static_cast<size_t>(width));
  int32_t* source = sources.data();
  for (int64_t y = 0; y < height; ++y) {
    const double from_y = static_cast<double>(y) + 0.5 - middle_y;
#pragma omp simd
    for (int64_t x = 0; x < width; ++x) {
      const double from_x = static_cast<double>(x) + 0.5 - middle_x;
      const double source_x = std::nearbyint(m[0] * from_x + m[1] * from_y + m[2] + middle_x - 0.5);
      const double source_y = std::nearbyint(m[3] * from_x + m[4] * from_y + m[5] + middle_y - 0.5);
      const bool inside = source_x >= 0.0 && source_y >= 0.0 &&
                          source_x < static_cast<double>(width) &&
                          source_y < static_cast<double>(height);
      source[x] =
          inside ? static_cast<int32_t>(source_y * static_cast<double>(width) + source_x) : -1;
    }
    if (image.channels == 3) {
      gather_pixels<3>(before.pixels.data(), sources, image.row(y));
    } else {
      gather_pixels<1>(before.pixels.data(), sources, image.row(y));
    }
  }
}

void rotate(Image& image, double degrees) {
  const double cosine = std::cos(degrees * kRadians), sine = std::sin(degrees * kRadians);
  warp(image, {cosine, -sine, 0.0, sine, cosine, 0.0});
}

void shear_x(Image& image, double shear) {
  warp(image, {1.0, shear, 0.5 * shear * static_cast<double>(image.height), 0.0, 1.0, 0.0});
}

void shear_y(Image& image, double shear) {
  warp(image, {1.0, 0.0, 0.0, shear, 1.0, 0.5 * shear * static_cast<double>(image.width)});
}

void translate(Image& image, int64_t right, int64_t down) {
  image = crop(image, -down, -right, {image.height, image.width});
}

}  // namespace sigtrain
