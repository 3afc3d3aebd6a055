// Images as files: what the tests of image sets and loaders share.
#pragma once

#include <png.h>

#include <cmath>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "data/image.h"
// It needs size_t and FILE.
#include <jpeglib.h>

namespace sigtrain {

/// Smooth colours that a JPEG keeps well; `shift` makes different pictures.
inline Image smooth_image(int64_t height, int64_t width, int64_t channels, double shift = 0.0) {
  Image image(height, width, channels);
  for (int64_t y = 0; y < height; ++y) {
    for (int64_t x = 0; x < width; ++x) {
      for (int64_t c = 0; c < channels; ++c) {
        const double angle = shift + 3.0 * static_cast<double>(y) / static_cast<double>(height) +
                             4.0 * static_cast<double>(x) / static_cast<double>(width) +
                             static_cast<double>(c);
        image.row(y)[x * channels + c] = static_cast<uint8_t>(128.0 + 100.0 * std::sin(angle));
      }
    }
  }
  return image;
}

/// Quality 95; with four channels the image is taken for inks.
inline std::string jpeg_of(const Image& image, int quality = 95) {
  jpeg_compress_struct info{};
  jpeg_error_mgr errors{};
  info.err = jpeg_std_error(&errors);
  jpeg_create_compress(&info);
  unsigned char* buffer = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&info, &buffer, &size);
  info.image_height = static_cast<JDIMENSION>(image.height);
  info.image_width = static_cast<JDIMENSION>(image.width);
  info.input_components = static_cast<int>(image.channels);
  info.in_color_space = image.channels == 1   ? JCS_GRAYSCALE
                        : image.channels == 3 ? JCS_RGB
                                              : JCS_CMYK;
  jpeg_set_defaults(&info);
  jpeg_set_quality(&info, quality, TRUE);
  jpeg_start_compress(&info, TRUE);
  while (info.next_scanline < info.image_height) {
    JSAMPROW row = const_cast<uint8_t*>(image.row(info.next_scanline));
    jpeg_write_scanlines(&info, &row, 1);
  }
  jpeg_finish_compress(&info);
  jpeg_destroy_compress(&info);
  std::string bytes(reinterpret_cast<char*>(buffer), size);
  std::free(buffer);
  return bytes;
}

inline std::string png_of(const Image& image) {
  png_image png{};
  png.version = PNG_IMAGE_VERSION;
  png.height = static_cast<png_uint_32>(image.height);
  png.width = static_cast<png_uint_32>(image.width);
  png.format = image.channels == 1   ? PNG_FORMAT_GRAY
               : image.channels == 3 ? PNG_FORMAT_RGB
                                     : PNG_FORMAT_RGBA;
  png_alloc_size_t size = 0;
  png_image_write_to_memory(&png, nullptr, &size, 0, image.pixels.data(), 0, nullptr);
  std::string bytes(size, '\0');
  png_image_write_to_memory(&png, bytes.data(), &size, 0, image.pixels.data(), 0, nullptr);
  bytes.resize(size);
  return bytes;
}

/// Grey or colours of 8 or 16 bits: level v of the image becomes v, or 256 v + 255 - v. `gamma`
/// above 0 is written into the file (gAMA).
inline std::string png_of_bits(const Image& image, int bits, double gamma) {
  std::string bytes;
  png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, nullptr, nullptr, nullptr);
  png_infop info = png_create_info_struct(png);
  png_set_write_fn(
      png, &bytes,
      [](png_structp file, png_bytep data, size_t count) {
        static_cast<std::string*>(png_get_io_ptr(file))
            ->append(reinterpret_cast<char*>(data), count);
      },
      [](png_structp) {});
  png_set_IHDR(png, info, static_cast<png_uint_32>(image.width),
               static_cast<png_uint_32>(image.height), bits,
               image.channels == 1 ? PNG_COLOR_TYPE_GRAY : PNG_COLOR_TYPE_RGB, PNG_INTERLACE_ADAM7,
               PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
  if (gamma > 0.0) png_set_gAMA(png, info, gamma);
  png_write_info(png, info);
  const int64_t row_bytes = image.width * image.channels * bits / 8;
  std::vector<uint8_t> levels;
  for (const uint8_t level : image.pixels) {
    levels.push_back(level);
    if (bits == 16) levels.push_back(static_cast<uint8_t>(255 - level));
  }
  std::vector<png_bytep> rows;
  for (int64_t y = 0; y < image.height; ++y) rows.push_back(levels.data() + y * row_bytes);
  png_write_image(png, rows.data());
  png_write_end(png, info);
  png_destroy_write_struct(&png, &info);
  return bytes;
}

/// An IDX file of bytes.
inline std::string idx_of(const std::vector<uint32_t>& shape, const std::vector<uint8_t>& bytes) {
  std::string file{'\0', '\0', '\x08', static_cast<char>(shape.size())};
  for (const uint32_t extent : shape)
    for (int shift = 24; shift >= 0; shift -= 8) file += static_cast<char>(extent >> shift & 0xFF);
  return file.append(bytes.begin(), bytes.end());
}

}  // namespace sigtrain
