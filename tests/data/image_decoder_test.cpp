#include "data/image_decoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "data/augment.h"
#include "data/image_resize.h"
#include "file_testing.h"
#include "image_testing.h"

namespace sigtrain {
namespace {

using testing::HasSubstr;

int largest_difference(const Image& a, const Image& b) {
  EXPECT_EQ(a.pixels.size(), b.pixels.size());
  int largest = 0;
  for (size_t i = 0; i < std::min(a.pixels.size(), b.pixels.size()); ++i)
    largest = std::max(largest, std::abs(int{a.pixels[i]} - int{b.pixels[i]}));
  return largest;
}

TEST(ImageDecoder, ReadsPngsExactly) {
  for (const int64_t channels : {1, 3}) {
    const Image image = smooth_image(13, 29, channels);
    const Image decoded = decode_image(png_of(image), channels);
    EXPECT_EQ(decoded.height, 13);
    EXPECT_EQ(decoded.width, 29);
    EXPECT_EQ(decoded.pixels, image.pixels);
  }
}

// As Pillow does: the upper of 16 bits, and no heed to what a file says of its gamma. Interlaced
// too.
TEST(ImageDecoder, TakesThePngsNumbersForLevels) {
  for (const int64_t channels : {1, 3}) {
    const Image image = smooth_image(13, 29, channels);
    for (const int bits : {8, 16}) {
      for (const double gamma : {0.0, 1.0, 0.45455, 0.3}) {
        EXPECT_EQ(decode_image(png_of_bits(image, bits, gamma), channels).pixels, image.pixels)
            << bits << " bits, gamma " << gamma;
      }
    }
  }
}

// Pillow's convert("L"); and half of a level that is half transparent.
TEST(ImageDecoder, MixesAPngsChannels) {
  Image colour(1, 3, 3);
  colour.pixels = {255, 0, 0, 0, 255, 0, 0, 10, 255};
  EXPECT_THAT(decode_image(png_of(colour), 1).pixels, testing::ElementsAre(76, 150, 35));
  Image half(1, 1, 4);
  half.pixels = {200, 100, 0, 128};
  EXPECT_THAT(decode_image(png_of(half), 3).pixels, testing::ElementsAre(100, 50, 0));
}

// Quality 95 of smooth colours: quantisation steps of one to five levels, of which few add up, and
// colours kept at half the resolution.
TEST(ImageDecoder, ReadsJpegs) {
  for (const int64_t channels : {1, 3}) {
    const Image image = smooth_image(64, 80, channels);
    const Image decoded = decode_image(jpeg_of(image), channels);
    EXPECT_EQ(decoded.height, 64);
    EXPECT_EQ(decoded.width, 80);
    EXPECT_LE(largest_difference(decoded, image), channels == 1 ? 4 : 16);
  }
}

TEST(ImageDecoder, GivesTheChannelsAskedFor) {
  const Image grey = smooth_image(20, 20, 1), colour = smooth_image(20, 20, 3);
  const Image replicated = decode_image(png_of(grey), 3);
  for (size_t i = 0; i < grey.pixels.size(); ++i)
    for (size_t c = 0; c < 3; ++c) EXPECT_EQ(replicated.pixels[3 * i + c], grey.pixels[i]);
  EXPECT_EQ(decode_image(jpeg_of(grey), 3).channels, 3);
  EXPECT_EQ(decode_image(jpeg_of(colour), 1).channels, 1);
  EXPECT_EQ(decode_image(png_of(colour), 1).pixels.size(), 400u);
  // What is transparent shows black.
  Image transparent(4, 4, 4);
  std::fill(transparent.pixels.begin(), transparent.pixels.end(), uint8_t{200});
  for (size_t i = 3; i < transparent.pixels.size(); i += 4) transparent.pixels[i] = 0;
  const Image black = decode_image(png_of(transparent), 3);
  for (const uint8_t value : black.pixels) EXPECT_EQ(value, 0);
}

// No ink is white, all inks are black; libjpeg marks its CMYK files as Adobe's, which are inverted.
TEST(ImageDecoder, ReadsJpegsOfFourInks) {
  Image inks(16, 32, 4);
  for (int64_t y = 0; y < 16; ++y) {
    for (int64_t x = 0; x < 32; ++x) {
      const bool left = x < 16;
      uint8_t* ink = inks.row(y) + 4 * x;
      ink[0] = left ? 255 : 128, ink[1] = 255, ink[2] = left ? 255 : 0, ink[3] = 255;
    }
  }
  const Image image = decode_image(jpeg_of(inks, 100), 3);
  EXPECT_GE(image.row(8)[3 * 4], 250);
  EXPECT_GE(image.row(8)[3 * 4 + 2], 250);
  EXPECT_NEAR(image.row(8)[3 * 28], 128, 4);
  EXPECT_GE(image.row(8)[3 * 28 + 1], 250);
  EXPECT_LE(image.row(8)[3 * 28 + 2], 5);
}

// A part decoded at a smaller scale and cut out is the part of the whole image, but for what the
// shrinking and the JPEG's blocks make of it.
TEST(ImageDecoder, DecodesPartsAtTheScaleThatIsNeeded) {
  const Image image = smooth_image(333, 517, 3);
  const std::string jpeg = jpeg_of(image);
  const Image whole = decode_image(jpeg, 3);
  const struct {
    Box box;
    ImageSize out;
    int64_t most_rows;  // of what is decoded
  } cases[] = {{{0, 0, 333, 517}, {32, 32}, 42},
               {{100, 203, 180, 222}, {90, 90}, 91},
               {{10, 20, 300, 400}, {224, 224}, 226},
               {{301, 450, 32, 67}, {64, 64}, 33},
               {{332, 516, 1, 1}, {8, 8}, 1}};
  for (const auto& c : cases) {
    const DecodedPart part = decode_part(jpeg, 3, [&](ImageSize size) {
      EXPECT_EQ(size, (ImageSize{333, 517}));
      return Part{c.box, c.out, 1.0};
    });
    EXPECT_LE(part.image.height, c.most_rows);
    EXPECT_GE(part.box.height, std::min<double>(c.box.height, static_cast<double>(c.out.height)));
    EXPECT_LE(
        largest_difference(resize(part.image, part.box, part.out), resize(whole, c.box, c.out)), 8)
        << c.box.top;
  }
}

/// Upright bars of two greys, `width` pixels each.
Image bars(int64_t height, int64_t columns, int64_t width) {
  Image image(height, columns, 1);
  for (int64_t y = 0; y < height; ++y)
    for (int64_t x = 0; x < columns; ++x) image.row(y)[x] = x / width % 2 == 0 ? 40 : 215;
  return image;
}

// Evaluation sees exactly what resizing the whole image gives, of edges too.
TEST(ImageDecoder, DecodesAtFullScaleForEvaluation) {
  const EvaluationView view(64, 56);
  for (const ImageSize size : {ImageSize{333, 517}, {128, 130}, {700, 400}}) {
    const std::string jpeg = jpeg_of(bars(size.height, size.width, 11));
    const Image image =
        view.make(decode_part(jpeg, 1, [&](ImageSize own) { return view.choose(own); }));
    const Part part = view.choose(size);
    EXPECT_EQ(image.pixels, view.make({decode_image(jpeg, 1), part.box, part.out}).pixels);
  }
}

// Where the scale is 4/8, libjpeg gives the means of two neighbours. A pixel of the resized image
// is a mean with weights that fall linearly, by 1/S^2 a pixel, to 0 at S pixels from its middle, S
// = 4 being the pixels for each of the output's. Over a pair that lies on one slope its mean does
// no harm; over the pair with an edge in it, a weight changes by the slope over half a pixel, 1/(2
// S^2); over that at the top, by as much for each of the two. So with no second edge in reach 3/(2
// S^2) of an edge's height, and 2 levels of rounding twice.
TEST(ImageDecoder, KeepsEdgesWhereAPartHasTwiceThePixels) {
  const std::string jpeg = jpeg_of(bars(352, 352, 11), 100);
  const Image whole = decode_image(jpeg, 1);
  const auto difference = [&](double oversampling) {
    const Box box{0, 0, 352, 352};
    const DecodedPart part = decode_part(jpeg, 1, [&](ImageSize) {
      return Part{box, {88, 88}, oversampling};
    });
    EXPECT_EQ(part.image.width, oversampling == 2.0 ? 176 : 88);
    return largest_difference(resize(part.image, part.box, part.out), resize(whole, box, part.out));
  };
  const double bound = 3.0 / (2.0 * 16.0) * (215 - 40) + 2.0;
  EXPECT_LE(difference(2.0), bound);
  EXPECT_GT(difference(1.0), bound);  // where it would be a pixel for each
}

// The last pixels of a scaled image may lie outside of the image in part: a part that ends with the
// image ends inside of them.
TEST(ImageDecoder, PlacesAPartByTheScale) {
  const std::string jpeg = jpeg_of(smooth_image(333, 517, 3));
  const DecodedPart part = decode_part(jpeg, 3, [](ImageSize) {
    return Part{{0, 0, 333, 517}, {41, 64}, 1.0};
  });
  EXPECT_EQ(part.image.height, 42);
  EXPECT_EQ(part.image.width, 65);
  EXPECT_DOUBLE_EQ(part.box.height, 333 / 8.0);
  EXPECT_DOUBLE_EQ(part.box.width, 517 / 8.0);
}

std::string damage_of(const std::string& bytes) {
  return message_of<DamagedImage>([&] { decode_image(bytes, 3); });
}

TEST(ImageDecoder, RefusesWhatIsDamaged) {
  const std::string jpeg = jpeg_of(smooth_image(64, 64, 3)), png = png_of(smooth_image(64, 64, 3));
  EXPECT_THAT(damage_of(""), HasSubstr("neither a JPEG nor a PNG"));
  EXPECT_THAT(damage_of("GIF89a"), HasSubstr("neither a JPEG nor a PNG"));
  // Cut anywhere: in the header, in the middle of the picture, before its end.
  for (const double share : {0.01, 0.2, 0.5, 0.9}) {
    const auto length = [&](const std::string& bytes) {
      return static_cast<size_t>(share * static_cast<double>(bytes.size()));
    };
    EXPECT_NE(damage_of(jpeg.substr(0, length(jpeg) + 3)), "") << share;
    EXPECT_NE(damage_of(png.substr(0, length(png) + 8)), "") << share;
  }
  std::string flipped = png;
  flipped[png.size() / 2] = static_cast<char>(flipped[png.size() / 2] ^ 0x10);
  EXPECT_NE(damage_of(flipped), "");
  // Nothing is left behind: the next image is read as ever.
  EXPECT_EQ(decode_image(png, 3).height, 64);
  EXPECT_EQ(decode_image(jpeg, 3).height, 64);
}

// Above the cut everything is there; yet the file is not whole.
TEST(ImageDecoder, RefusesAPartAboveWhereTheFileIsCutOff) {
  const std::string jpeg = jpeg_of(smooth_image(256, 256, 3));
  const auto decode_top = [](const std::string& bytes) {
    return decode_part(bytes, 3, [](ImageSize) { return Part{{0, 0, 32, 256}, {32, 256}}; });
  };
  const Image top = decode_top(jpeg).image;
  for (const double share : {0.5, 0.9}) {
    const auto length = static_cast<size_t>(share * static_cast<double>(jpeg.size()));
    EXPECT_NE(message_of<DamagedImage>([&] { decode_top(jpeg.substr(0, length)); }), "") << share;
  }
  // Whole, with something behind it.
  EXPECT_EQ(decode_top(jpeg + std::string(100, '\0')).image.pixels, top.pixels);
  EXPECT_EQ(decode_top(jpeg + std::string(5000, 'x')).image.pixels, top.pixels);
}

// Whatever the bytes, the decoder returns an image or says that it is damaged.
TEST(ImageDecoder, SurvivesAnyBytes) {
  for (const std::string& good :
       {jpeg_of(smooth_image(40, 33, 3)), png_of(smooth_image(40, 33, 3))}) {
    uint32_t state = 1;
    const auto next = [&] { return state = state * 1664525u + 1013904223u; };
    for (int round = 0; round < 300; ++round) {
      std::string bytes = good;
      for (uint32_t n = next() % 4 + 1; n > 0; --n)
        bytes[next() % bytes.size()] = static_cast<char>(next() >> 24);
      try {
        EXPECT_EQ(decode_image(bytes, 3).channels, 3);
      } catch (const DamagedImage& error) {
        EXPECT_STRNE(error.what(), "");
      }
    }
  }
}

}  // namespace
}  // namespace sigtrain
