// An image on the host, and the part of one that is wanted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace sigtrain {

/// Bytes [height, width, channels], row-major; one channel is grey, three are red, green, blue.
struct Image {
  int64_t height = 0, width = 0, channels = 0;
  std::vector<uint8_t> pixels;

  Image() = default;
  /// Black.
  Image(int64_t h, int64_t w, int64_t c)
      : height(h), width(w), channels(c), pixels(static_cast<size_t>(h * w * c)) {}
  uint8_t* row(int64_t y) { return pixels.data() + y * width * channels; }
  const uint8_t* row(int64_t y) const { return pixels.data() + y * width * channels; }
};

struct ImageSize {
  int64_t height = 0, width = 0;
  bool operator==(const ImageSize&) const = default;
};

/// A rectangle in pixels; of a scaled image its edges may lie inside pixels.
struct Box {
  double top = 0.0, left = 0.0, height = 0.0, width = 0.0;
};

}  // namespace sigtrain
