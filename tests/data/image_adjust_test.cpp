// Augmentation against Pillow and torchvision (tests/golden/make_golden_vision.py).
#include "data/image_adjust.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "data/augment.h"
#include "data/batch_mixing.h"
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

struct RandAugmentCase {
  RandAugmentOp op;
  const char* name;
  bool is_signed;
};

constexpr RandAugmentCase kRandAugmentCases[] = {
    {RandAugmentOp::identity, "identity", false},
    {RandAugmentOp::shear_x, "shear_x", true},
    {RandAugmentOp::shear_y, "shear_y", true},
    {RandAugmentOp::translate_x, "translate_x", true},
    {RandAugmentOp::translate_y, "translate_y", true},
    {RandAugmentOp::rotate, "rotate", true},
    {RandAugmentOp::brightness, "brightness", true},
    {RandAugmentOp::color, "color", true},
    {RandAugmentOp::contrast, "contrast", true},
    {RandAugmentOp::sharpness, "sharpness", true},
    {RandAugmentOp::posterize, "posterize", false},
    {RandAugmentOp::solarize, "solarize", false},
    {RandAugmentOp::autocontrast, "autocontrast", false},
    {RandAugmentOp::equalize, "equalize", false}};
static_assert(std::size(kRandAugmentCases) == kRandAugmentOps);

class RandAugmentOps : public ::testing::TestWithParam<RandAugmentCase> {};

TEST_P(RandAugmentOps, AreTorchvisionsAtItsStrengths) {
  const RandAugmentCase c = GetParam();
  const Image image = golden_image("image");
  for (const int64_t magnitude : {9, 14, 30}) {
    for (const bool negative : {false, true}) {
      Image result = image;
      apply(c.op, magnitude, negative, result);
      // What has no direction does the same in both.
      const std::string direction = negative && c.is_signed ? "minus_" : "";
      expect_image(result, std::string("rand_augment.") + c.name + "." + direction +
                               std::to_string(magnitude));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(, RandAugmentOps, ::testing::ValuesIn(kRandAugmentCases),
                         [](const auto& info) { return info.param.name; });

/// The batch that both mix, with targets.
ImageBatch golden_batch(const GoldenFile& golden) {
  ImageBatch batch;
  const std::vector<uint8_t> images = golden.bytes("batch.images").values;
  batch.images.assign(images.begin(), images.end());
  batch.labels = golden.integers("batch.labels").values;
  batch.rows = static_cast<int64_t>(batch.labels.size());
  make_targets(batch, 4, 0.0);
  return batch;
}

void expect_batch(const ImageBatch& batch, const GoldenFile& golden, const std::string& name) {
  EXPECT_THAT(batch.images, testing::ElementsAreArray(golden.bytes(name + ".images").values))
      << name;
  // Theirs are floats too, made of the one or the other share.
  const Buffer<float> targets = golden.read<float>(name + ".targets");
  EXPECT_THAT(batch.targets, testing::Pointwise(testing::FloatEq(), targets.values)) << name;
}

TEST(BatchMixing, IsTorchvisions) {
  const GoldenFile golden("augmentations.safetensors");
  const ImageSize size{22, 27};
  ImageBatch mixed = golden_batch(golden), cut = mixed, corner = mixed;
  mix(mixed, 1, 0.7);
  expect_batch(mixed, golden, "mixup");
  cut_and_mix(cut, 1, size, cut_around(size, 0.6, 13, 11));
  expect_batch(cut, golden, "cutmix");
  cut_and_mix(corner, 1, size, cut_around(size, 0.3, 25, 2));
  expect_batch(corner, golden, "cutmix.corner");
}

}  // namespace
}  // namespace sigtrain
