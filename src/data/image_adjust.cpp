#include "data/image_adjust.h"

#include <algorithm>
#include <cmath>

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

void look_up(Image& image, int64_t channel, const std::array<uint8_t, 256>& table) {
  for_each_pixel(image, [&](uint8_t* pixel) { pixel[channel] = table[pixel[channel]]; });
}

constexpr double kRadians = 3.14159265358979323846 / 180.0;

}  // namespace

void adjust_brightness(Image& image, double factor) {
  const auto f = static_cast<float>(factor);
  for (uint8_t& value : image.pixels) value = clamped(f * static_cast<float>(value));
}

void adjust_saturation(Image& image, double factor) {
  const auto f = static_cast<float>(factor), rest = static_cast<float>(1.0 - factor);
  for_each_pixel(image, [=](uint8_t* pixel) {
    const auto other = static_cast<float>(grey(pixel));
    for (int c = 0; c < 3; ++c) pixel[c] = blend(pixel[c], other, f, rest);
  });
}

void adjust_contrast(Image& image, double factor) {
  double sum = 0.0;
  for_each_pixel(image,
                 [&](const uint8_t* pixel) { sum += image.channels == 3 ? grey(pixel) : *pixel; });
  const auto mean = static_cast<float>(sum / static_cast<double>(image.height * image.width));
  const auto f = static_cast<float>(factor), rest = static_cast<float>(1.0 - factor);
  for (uint8_t& value : image.pixels) value = blend(value, mean, f, rest);
}

void adjust_sharpness(Image& image, double factor) {
  if (image.height <= 2 || image.width <= 2) return;
  const auto f = static_cast<float>(factor), rest = static_cast<float>(1.0 - factor);
  const Image before = image;
  for (int64_t y = 0; y < image.height; ++y) {
    for (int64_t x = 0; x < image.width; ++x) {
      const bool at_edge = y == 0 || x == 0 || y == image.height - 1 || x == image.width - 1;
      for (int64_t c = 0; c < image.channels; ++c) {
        const int64_t at = x * image.channels + c;
        int sum = 4 * before.row(y)[at];
        // Pixels at the edge have no neighbours to be blurred with.
        for (int64_t i = y - 1; !at_edge && i <= y + 1; ++i)
          for (int64_t j = -image.channels; j <= image.channels; j += image.channels)
            sum += before.row(i)[at + j];
        const float blurred = at_edge ? static_cast<float>(before.row(y)[at])
                                      : std::nearbyint(static_cast<float>(sum) / 13.0F);
        image.row(y)[at] = blend(before.row(y)[at], blurred, f, rest);
      }
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
  for (uint8_t& value : image.pixels)
    if (value >= threshold) value = static_cast<uint8_t>(255 - value);
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
  const double middle_x = 0.5 * static_cast<double>(image.width),
               middle_y = 0.5 * static_cast<double>(image.height);
  for (int64_t y = 0; y < image.height; ++y) {
    uint8_t* out = image.row(y);
    const double from_y = static_cast<double>(y) + 0.5 - middle_y;
    for (int64_t x = 0; x < image.width; ++x, out += image.channels) {
      const double from_x = static_cast<double>(x) + 0.5 - middle_x;
      const double source_x = std::nearbyint(m[0] * from_x + m[1] * from_y + m[2] + middle_x - 0.5);
      const double source_y = std::nearbyint(m[3] * from_x + m[4] * from_y + m[5] + middle_y - 0.5);
      const bool inside = source_x >= 0.0 && source_y >= 0.0 &&
                          source_x < static_cast<double>(image.width) &&
                          source_y < static_cast<double>(image.height);
      if (inside) {
        const uint8_t* pixel = before.row(static_cast<int64_t>(source_y)) +
                               static_cast<int64_t>(source_x) * image.channels;
        std::copy_n(pixel, image.channels, out);
      } else {
        std::fill_n(out, image.channels, uint8_t{0});
      }
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
  warp(image, {1.0, 0.0, -static_cast<double>(right), 0.0, 1.0, -static_cast<double>(down)});
}

}  // namespace sigtrain
