#include "data/image_decoder.h"

#include <algorithm>
#include <cmath>
#include <csetjmp>
#include <cstdio>
#include <vector>
// After cstdio, whose FILE it needs.
#include <jerror.h>
#include <jpeglib.h>

#include "data/png_decoder.h"

namespace sigtrain {
namespace {

// ---- JPEG. libjpeg reports errors by jumping out of its functions: between setjmp and the last
// call no object with a destructor may come to life.

struct JpegErrors {
  jpeg_error_mgr manager;
  jmp_buf escape;
  char message[JMSG_LENGTH_MAX];
};

void on_error(j_common_ptr info) {
  auto* errors = reinterpret_cast<JpegErrors*>(info->err);
  (*info->err->format_message)(info, errors->message);
  longjmp(errors->escape, 1);
}

/// Of the warnings, those that say that part of the picture is missing or made up are errors here.
void on_message(j_common_ptr info, int level) {
  if (level != -1) return;
  switch (info->err->msg_code) {
    case JWRN_HIT_MARKER:
    case JWRN_JPEG_EOF:
    case JWRN_HUFF_BAD_CODE:
    case JWRN_MUST_RESYNC:
      on_error(info);
      break;
    default:
      break;
  }
}

class JpegDecoder {
 public:
  JpegDecoder() {
    info_.err = jpeg_std_error(&errors_.manager);
    errors_.manager.error_exit = on_error;
    errors_.manager.emit_message = on_message;
    jpeg_create_decompress(&info_);
  }
  ~JpegDecoder() { jpeg_destroy_decompress(&info_); }
  JpegDecoder(const JpegDecoder&) = delete;
  JpegDecoder& operator=(const JpegDecoder&) = delete;

  void read_header(std::string_view bytes) {
    const auto* data = reinterpret_cast<const unsigned char*>(bytes.data());
    has_end_ = has_end_marker(bytes);
    call([&] {
      jpeg_mem_src(&info_, data, bytes.size());
      jpeg_read_header(&info_, TRUE);
    });
  }
  ImageSize size() const { return {info_.image_height, info_.image_width}; }

  DecodedPart decode(int64_t channels, const Part& part) {
    // Four inks, which libjpeg does not turn into light.
    const bool inks = info_.jpeg_color_space == JCS_CMYK || info_.jpeg_color_space == JCS_YCCK;
    info_.out_color_space = inks ? JCS_CMYK : channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
    info_.scale_num = static_cast<unsigned>(scale_eighths(part));
    info_.scale_denom = 8;
    call([&] { jpeg_start_decompress(&info_); });
    // Not the quotient of the sizes: of the last pixels a part may lie outside of the image.
    const double scale = info_.scale_num / 8.0;
    const Box box{part.box.top * scale, part.box.left * scale, part.box.height * scale,
                  part.box.width * scale};
    const auto first_row = static_cast<unsigned>(std::max(0.0, std::floor(box.top)));
    const unsigned end_row =
        std::min(static_cast<unsigned>(std::ceil(box.top + box.height)), info_.output_height);
    unsigned first_column = static_cast<unsigned>(std::max(0.0, std::floor(box.left)));
    unsigned columns =
        std::min(static_cast<unsigned>(std::ceil(box.left + box.width)), info_.output_width) -
        first_column;
    // Cropping widens to whole blocks, and a skip costs next to nothing.
    call([&] {
      if (columns < info_.output_width) jpeg_crop_scanline(&info_, &first_column, &columns);
      if (first_row > 0) jpeg_skip_scanlines(&info_, first_row);
    });
    const int64_t components = info_.output_components;
    Image image(end_row - first_row, info_.output_width, components);
    while (info_.output_scanline < end_row) {
      JSAMPROW row = image.row(info_.output_scanline - first_row);
      call([&] { jpeg_read_scanlines(&info_, &row, 1); });
    }
    // What lies below the part is not looked at, unless the file may have been cut off there. A
    // skip to the very end would not look either.
    if (end_row < info_.output_height && has_end_) {
      jpeg_abort_decompress(&info_);
    } else {
      std::vector<JSAMPLE> last_row(static_cast<size_t>(info_.output_width) *
                                    static_cast<size_t>(components));
      JSAMPROW row = last_row.data();
      call([&] {
        if (end_row < info_.output_height) {
          jpeg_skip_scanlines(&info_, info_.output_height - end_row - 1);
          jpeg_read_scanlines(&info_, &row, 1);
        }
        jpeg_finish_decompress(&info_);
      });
    }
    if (inks) image = from_inks(image, info_.saw_Adobe_marker, channels);
    return {std::move(image),
            {box.top - first_row, box.left - first_column, box.height, box.width},
            part.out};
  }

 private:
  /// Whether the marker of an image's end is among the last bytes: some programs write more behind
  /// it. Those of pixels never look like it.
  static bool has_end_marker(std::string_view bytes) {
    constexpr size_t behind = 1024;
    return bytes.substr(bytes.size() - std::min(bytes.size(), behind)).find("\xFF\xD9") !=
           std::string_view::npos;
  }

  /// Runs calls of libjpeg, turning its errors into exceptions.
  template <typename Calls>
  void call(const Calls& calls) {
    if (setjmp(errors_.escape)) throw DamagedImage("{}", errors_.message);
    calls();
  }

  // libjpeg-turbo is fast at 1, 2, 4 and 8 eighths alone, but at the next of these there is more to
  // resize: together that took as long.
  static int64_t scale_eighths(const Part& part) {
    const double needed = std::max(static_cast<double>(part.out.height) / part.box.height,
                                   static_cast<double>(part.out.width) / part.box.width);
    return static_cast<int64_t>(std::clamp(std::ceil(8.0 * part.oversampling * needed), 1.0, 8.0));
  }

  /// Cyan, magenta, yellow and black to what a screen shows. Adobe's are stored inverted.
  static Image from_inks(const Image& inks, bool inverted, int64_t channels) {
    Image image(inks.height, inks.width, channels);
    for (int64_t i = 0; i < inks.height * inks.width; ++i) {
      const uint8_t* ink = inks.pixels.data() + 4 * i;
      int light[3];
      for (int c = 0; c < 3; ++c) {
        const int own = inverted ? ink[c] : 255 - ink[c], black = inverted ? ink[3] : 255 - ink[3];
        light[c] = (own * black + 127) / 255;
      }
      uint8_t* pixel = image.pixels.data() + channels * i;
      if (channels == 1) {
        *pixel = static_cast<uint8_t>((299 * light[0] + 587 * light[1] + 114 * light[2]) / 1000);
      } else {
        for (int c = 0; c < 3; ++c) pixel[c] = static_cast<uint8_t>(light[c]);
      }
    }
    return image;
  }

  bool has_end_ = false;
  jpeg_decompress_struct info_{};
  JpegErrors errors_{};
};

bool starts_with(std::string_view bytes, std::string_view signature) {
  return bytes.substr(0, signature.size()) == signature;
}

}  // namespace

void check_size(ImageSize size) {
  // A file may claim any size; this is far above any photograph's.
  constexpr int64_t most_pixels = int64_t{1} << 28;
  if (size.height < 1 || size.width < 1) throw DamagedImage("it has no pixels");
  if (size.height > most_pixels / size.width)
    throw DamagedImage("it claims {} x {} pixels", size.width, size.height);
}

DecodedPart decode_part(std::string_view bytes, int64_t channels, const ChoosePart& choose) {
  if (starts_with(bytes, "\xFF\xD8\xFF")) {
    JpegDecoder decoder;
    decoder.read_header(bytes);
    check_size(decoder.size());
    return decoder.decode(channels, choose(decoder.size()));
  }
  if (starts_with(bytes, "\x89PNG\r\n\x1A\n")) return decode_png(bytes, channels, choose);
  throw DamagedImage("it is neither a JPEG nor a PNG file");
}

Image decode_image(std::string_view bytes, int64_t channels) {
  return decode_part(bytes, channels,
                     [](ImageSize size) {
                       return Part{{0.0, 0.0, static_cast<double>(size.height),
                                    static_cast<double>(size.width)},
                                   size};
                     })
      .image;
}

}  // namespace sigtrain
