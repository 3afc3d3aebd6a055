// Augmentation against Pillow and torchvision (tests/golden/make_golden_vision.py).
#include "data/image_adjust.h"

#include <gtest/gtest.h>

#include <functional>

#include "data/augment.h"
#include "data/image_resize.h"
#include "data/rand_augment.h"
#include "models/golden.h"

namespace sigtrain {
namespace {

Image golden_image(const std::string& name) {
  static const GoldenFile golden("augmentations.safetensors");
  const Buffer<uint8_t> bytes = golden.bytes(name);
  Image image(bytes.shape[0], bytes.shape[1], bytes.shape[2]);
  image.pixels = bytes.values;
  return image;
}

/// Bytes differ by at most `allowed`.
void expect_image(const Image& actual, const std::string& name, int allowed = 0) {
  const Image expected = golden_image(name);
  ASSERT_EQ(actual.height, expected.height) << name;
  ASSERT_EQ(actual.width, expected.width) << name;
  ASSERT_EQ(actual.channels, expected.channels) << name;
  int largest = 0;
  for (size_t i = 0; i < expected.pixels.size(); ++i)
    largest = std::max(largest, std::abs(int{actual.pixels[i]} - int{expected.pixels[i]}));
  EXPECT_LE(largest, allowed) << name;
}

TEST(ImageResize, IsPillows) {
  const Image image = golden_image("image");
  const Box whole{0, 0, 22, 27};
  expect_image(resize(image, whole, {9, 7}), "resize.smaller");
  expect_image(resize(image, whole, {40, 31}), "resize.larger");
  expect_image(resize(image, {5, 3, 13, 18}, {16, 16}), "resize.part");
  expect_image(resize(image, {1.5, 2.25, 17.5, 18.5}, {12, 12}), "resize.inner");
}

// torchvision resizes bytes by its own code, whose weights have fewer bits than Pillow's.
TEST(ImageResize, IsTorchvisionsToOneLevel) {
  const Image image = golden_image("image");
  expect_image(resize(image, {4, 6, 15, 11}, {8, 8}), "resized_crop", 1);
  const EvaluationView view(16, 14);
  const Part part = view.choose({22, 27});
  EXPECT_EQ(part.out, (ImageSize{16, 19}));
  expect_image(view.make({image, part.box, part.out}), "eval_view", 1);
}

TEST(ImageResize, CropsWithABorderAndFlips) {
  const Image image = golden_image("image");
  expect_image(crop(image, -3, 3, {22, 27}), "pad_crop");
  Image flipped = image;
  flip_horizontally(flipped);
  expect_image(flipped, "flip");
}

struct Adjustment {
  std::string name;
  std::function<void(Image&)> change;
};

class ImageAdjustments : public ::testing::TestWithParam<Adjustment> {};

TEST_P(ImageAdjustments, IsTorchvisions) {
  Image image = golden_image("image");
  GetParam().change(image);
  expect_image(image, GetParam().name);
}

std::vector<Adjustment> adjustments() {
  return {
      {"brightness.low", [](Image& x) { adjust_brightness(x, 0.37); }},
      {"brightness.high", [](Image& x) { adjust_brightness(x, 1.63); }},
      {"saturation.low", [](Image& x) { adjust_saturation(x, 0.25); }},
      {"saturation.high", [](Image& x) { adjust_saturation(x, 1.75); }},
      {"contrast.low", [](Image& x) { adjust_contrast(x, 0.25); }},
      {"contrast.high", [](Image& x) { adjust_contrast(x, 1.75); }},
      {"sharpness.low", [](Image& x) { adjust_sharpness(x, 0.25); }},
      {"sharpness.high", [](Image& x) { adjust_sharpness(x, 1.75); }},
      {"hue.minus", [](Image& x) { adjust_hue(x, -0.2); }},
      {"hue.plus", [](Image& x) { adjust_hue(x, 0.4); }},
      {"posterize", [](Image& x) { posterize(x, 5); }},
      {"solarize", [](Image& x) { solarize(x, 101.5); }},
      {"autocontrast", [](Image& x) { autocontrast(x); }},
      {"equalize", [](Image& x) { equalize(x); }},
      {"rotate", [](Image& x) { rotate(x, 17.3); }},
      {"shear_x", [](Image& x) { shear_x(x, 0.23); }},
      {"shear_y", [](Image& x) { shear_y(x, -0.17); }},
      {"translate", [](Image& x) { translate(x, 5, -3); }},
  };
}

INSTANTIATE_TEST_SUITE_P(, ImageAdjustments, ::testing::ValuesIn(adjustments()),
                         [](const auto& info) {
                           std::string name = info.param.name;
                           std::replace(name.begin(), name.end(), '.', '_');
                           return name;
                         });

TEST(ImageAdjust, NothingChangesNothing) {
  const Image image = golden_image("image");
  Image same = image;
  adjust_brightness(same, 1.0);
  adjust_saturation(same, 1.0);
  adjust_contrast(same, 1.0);
  adjust_sharpness(same, 1.0);
  posterize(same, 8);
  translate(same, 0, 0);
  rotate(same, 0.0);
  EXPECT_EQ(same.pixels, image.pixels);
  Image flat(4, 5, 3);
  std::fill(flat.pixels.begin(), flat.pixels.end(), uint8_t{77});
  Image stretched = flat;
  autocontrast(stretched);
  equalize(stretched);
  adjust_hue(stretched, 0.3);
  EXPECT_EQ(stretched.pixels, flat.pixels);
}

// torchvision's table of strengths: 31 of them, from nothing to the most.
TEST(RandAugment, HasTorchvisionsStrengths) {
  const Image image = golden_image("image");
  const auto changed = [&](RandAugmentOp op, int64_t magnitude, bool negative) {
    Image result = image;
    apply(op, magnitude, negative, result);
    return result.pixels;
  };
  const auto by = [&](const std::function<void(Image&)>& change) {
    Image result = image;
    change(result);
    return result.pixels;
  };
  EXPECT_EQ(changed(RandAugmentOp::rotate, 20, true), by([](Image& x) { rotate(x, -20.0); }));
  EXPECT_EQ(changed(RandAugmentOp::shear_x, 30, false), by([](Image& x) { shear_x(x, 0.3); }));
  EXPECT_EQ(changed(RandAugmentOp::color, 10, true),
            by([](Image& x) { adjust_saturation(x, 1.0 - 0.9 * (10.0 / 30.0)); }));
  // 150 / 331 of 27 is 12.2 pixels, of 22 is 9.97.
  EXPECT_EQ(changed(RandAugmentOp::translate_x, 30, true),
            by([](Image& x) { translate(x, -12, 0); }));
  EXPECT_EQ(changed(RandAugmentOp::translate_y, 30, false),
            by([](Image& x) { translate(x, 0, 9); }));
  EXPECT_EQ(changed(RandAugmentOp::posterize, 30, false), by([](Image& x) { posterize(x, 4); }));
  EXPECT_EQ(changed(RandAugmentOp::posterize, 9, false), by([](Image& x) { posterize(x, 7); }));
  EXPECT_EQ(changed(RandAugmentOp::solarize, 15, false), by([](Image& x) { solarize(x, 127.5); }));
  for (int op = 0; op < kRandAugmentOps; ++op) {
    const auto kind = static_cast<RandAugmentOp>(op);
    if (kind == RandAugmentOp::autocontrast || kind == RandAugmentOp::equalize) continue;
    EXPECT_EQ(changed(kind, 0, false), image.pixels) << op;
    if (kind != RandAugmentOp::identity) {
      EXPECT_NE(changed(kind, 30, false), image.pixels) << op;
    }
  }
}

}  // namespace
}  // namespace sigtrain
