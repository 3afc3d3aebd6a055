#include "data/png_decoder.h"

#include <png.h>

#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <new>
#include <vector>

namespace sigtrain {
namespace {

/// libpng reports errors by jumping out of its functions: between setjmp and the last call no
/// object with a destructor may come to life. Its simplified interface, which returns them, takes
/// 16 bits for linear light and follows gAMA chunks, and so makes other pixels than what people
/// train on.
class PngDecoder {
 public:
  explicit PngDecoder(std::string_view bytes) : left_(bytes) {
    png_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, this, on_error, on_warning);
    if (png_ != nullptr) info_ = png_create_info_struct(png_);
    if (info_ == nullptr) {
      png_destroy_read_struct(&png_, nullptr, nullptr);
      throw std::bad_alloc();
    }
    png_set_read_fn(png_, this, read);
  }
  ~PngDecoder() { png_destroy_read_struct(&png_, &info_, nullptr); }
  PngDecoder(const PngDecoder&) = delete;
  PngDecoder& operator=(const PngDecoder&) = delete;

  ImageSize read_header() {
    call([&] { png_read_info(png_, info_); });
    return {png_get_image_height(png_, info_), png_get_image_width(png_, info_)};
  }

  /// Three channels, and a fourth where the file says what is transparent.
  Image read_pixels(ImageSize size) {
    call([&] {
      png_set_expand(png_);
      png_set_strip_16(png_);
      png_set_gray_to_rgb(png_);
      png_set_interlace_handling(png_);
      png_read_update_info(png_, info_);
    });
    Image image(size.height, size.width, png_get_channels(png_, info_));
    std::vector<png_bytep> rows;
    for (int64_t y = 0; y < size.height; ++y) rows.push_back(image.row(y));
    call([&] { png_read_image(png_, rows.data()); });
    return image;
  }

 private:
  template <typename Calls>
  void call(const Calls& calls) {
    if (setjmp(escape_)) throw DamagedImage("{}", message_);
    calls();
  }

  static void on_error(png_structp png, png_const_charp message) {
    auto* self = static_cast<PngDecoder*>(png_get_error_ptr(png));
    std::snprintf(self->message_, sizeof(self->message_), "%s", message);
    longjmp(self->escape_, 1);
  }
  static void on_warning(png_structp /*png*/, png_const_charp /*message*/) {}
  static void read(png_structp png, png_bytep out, size_t count) {
    auto* self = static_cast<PngDecoder*>(png_get_io_ptr(png));
    if (count > self->left_.size()) png_error(png, "the file ends too early");
    std::memcpy(out, self->left_.data(), count);
    self->left_.remove_prefix(count);
  }

  std::string_view left_;  // what has not been read yet
  png_structp png_ = nullptr;
  png_infop info_ = nullptr;
  jmp_buf escape_{};
  char message_[256] = {};
};

/// Puts what is transparent on black and takes the grey if only one channel is wanted.
Image with_channels(const Image& from, int64_t channels) {
  Image image(from.height, from.width, channels);
  const uint8_t* pixel = from.pixels.data();
  uint8_t* out = image.pixels.data();
  for (int64_t i = 0; i < from.height * from.width; ++i, pixel += from.channels) {
    const uint32_t opacity = from.channels == 4 ? pixel[3] : 255;
    uint32_t levels[3];
    for (int c = 0; c < 3; ++c) levels[c] = (pixel[c] * opacity + 127) / 255;
    if (channels == 1) {
      // Pillow's integers: 65536 in all.
      *out++ = static_cast<uint8_t>(
          (19595 * levels[0] + 38470 * levels[1] + 7471 * levels[2] + 32768) >> 16);
    } else {
      for (const uint32_t level : levels) *out++ = static_cast<uint8_t>(level);
    }
  }
  return image;
}

}  // namespace

DecodedPart decode_png(std::string_view bytes, int64_t channels, const ChoosePart& choose) {
  PngDecoder decoder(bytes);
  const ImageSize size = decoder.read_header();
  check_size(size);
  const Part part = choose(size);
  Image image = decoder.read_pixels(size);
  if (image.channels != channels) image = with_channels(image, channels);
  return {std::move(image), part.box, part.out};
}

}  // namespace sigtrain
