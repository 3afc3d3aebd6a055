#include "data/augment.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "data/image_adjust.h"
#include "data/image_resize.h"
#include "data/rand_augment.h"

namespace sigtrain {
namespace {

constexpr int kAttempts = 10;

/// As Pillow's reducing_gap of 2. Photographs of ImageNet's size are then mostly decoded at full
/// scale, which libjpeg-turbo has vectors for: it takes no longer than at a scale in between.
constexpr double kTrainingOversampling = 2.0;

Box whole(ImageSize size) {
  return {0.0, 0.0, static_cast<double>(size.height), static_cast<double>(size.width)};
}

/// Integers as torchvision rounds them: to even between two.
int64_t nearest(double x) { return static_cast<int64_t>(std::nearbyint(x)); }

Box box_of(int64_t top, int64_t left, int64_t height, int64_t width) {
  return {static_cast<double>(top), static_cast<double>(left), static_cast<double>(height),
          static_cast<double>(width)};
}

double log_uniform(SampleRandom& random, double low, double high) {
  return std::exp(random.uniform(std::log(low), std::log(high)));
}

void expect_size(ImageSize size, ImageSize wanted, const char* key) {
  if (size == wanted) return;
  throw Error("it is {} x {}, the model takes {} x {}: set {}", size.width, size.height,
              wanted.width, wanted.height, key);
}

}  // namespace

Box random_part(ImageSize size, double smallest_area, SampleRandom& random) {
  constexpr double lowest = 3.0 / 4.0, highest = 4.0 / 3.0;
  const auto height = static_cast<double>(size.height), width = static_cast<double>(size.width);
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const double area = height * width * random.uniform(smallest_area, 1.0);
    const double ratio = log_uniform(random, lowest, highest);
    const int64_t w = nearest(std::sqrt(area * ratio)), h = nearest(std::sqrt(area / ratio));
    if (w < 1 || h < 1 || w > size.width || h > size.height) continue;
    const int64_t top = random.integer(size.height - h + 1);
    return box_of(top, random.integer(size.width - w + 1), h, w);
  }
  int64_t w = size.width, h = size.height;
  if (width / height < lowest) h = std::min(h, nearest(width / lowest));
  if (width / height > highest) w = std::min(w, nearest(height * highest));
  return box_of((size.height - h) / 2, (size.width - w) / 2, h, w);
}

Box random_rectangle(ImageSize size, SampleRandom& random) {
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const double area = static_cast<double>(size.height * size.width) * random.uniform(0.02, 0.33);
    const double ratio = log_uniform(random, 0.3, 3.3);
    const int64_t h = nearest(std::sqrt(area * ratio)), w = nearest(std::sqrt(area / ratio));
    if (h >= size.height || w >= size.width) continue;
    const int64_t top = random.integer(size.height - h + 1);
    return box_of(top, random.integer(size.width - w + 1), h, w);
  }
  return {};
}

void jitter_colours(const AugmentConfig& config, SampleRandom& random, Image& image) {
  std::array<int, 4> order{0, 1, 2, 3};
  for (size_t i = order.size(); i > 1; --i)
    std::swap(order[i - 1], order[static_cast<size_t>(random.integer(static_cast<int64_t>(i)))]);
  const auto factor = [&](double strength) {
    return random.uniform(std::max(0.0, 1.0 - strength), 1.0 + strength);
  };
  for (const int part : order) {
    if (part == 0 && config.brightness > 0.0) adjust_brightness(image, factor(config.brightness));
    if (part == 1 && config.contrast > 0.0) adjust_contrast(image, factor(config.contrast));
    if (part == 2 && config.saturation > 0.0) adjust_saturation(image, factor(config.saturation));
    if (part == 3 && config.hue > 0.0) adjust_hue(image, random.uniform(-config.hue, config.hue));
  }
}

TrainingView::TrainingView(const AugmentConfig& config, int64_t size,
                           const std::vector<double>& mean)
    : config_(config), out_{size, size} {
  for (const double value : mean)
    mean_.push_back(static_cast<uint8_t>(std::clamp(std::lround(255.0 * value), 0L, 255L)));
}

Part TrainingView::choose(ImageSize size, SampleRandom& random) const {
  if (config_.crop == CropKind::resized)
    return {random_part(size, config_.smallest_area, random), out_, kTrainingOversampling};
  expect_size(size, out_, "augment.crop to resized");
  return {whole(size), out_};
}

Image TrainingView::make(const DecodedPart& part, SampleRandom& random) const {
  Image image;
  if (config_.crop == CropKind::resized) {
    image = resize(part.image, part.box, part.out);
  } else if (config_.crop == CropKind::pad) {
    const int64_t places = 2 * config_.padding + 1;
    const int64_t top = random.integer(places) - config_.padding;
    image = crop(part.image, top, random.integer(places) - config_.padding, out_);
  } else {
    image = part.image;
  }
  if (config_.flip && random.coin(0.5)) flip_horizontally(image);
  rand_augment(config_.randaugment_ops, config_.randaugment_magnitude, random, image);
  jitter_colours(config_, random, image);
  if (config_.erasing > 0.0 && random.coin(config_.erasing)) {
    const Box box = random_rectangle(out_, random);
    for (auto y = static_cast<int64_t>(box.top); y < static_cast<int64_t>(box.top + box.height);
         ++y) {
      for (auto x = static_cast<int64_t>(box.left); x < static_cast<int64_t>(box.left + box.width);
           ++x)
        std::copy(mean_.begin(), mean_.end(), image.row(y) + x * image.channels);
    }
  }
  return image;
}

Part EvaluationView::choose(ImageSize size) const {
  if (resize_ == 0) {
    expect_size(size, out_, "data.image.eval_resize");
    return {whole(size), out_};
  }
  // The longer side is cut off to whole pixels, as torchvision does.
  ImageSize resized{resize_, resize_};
  if (size.height < size.width) {
    resized.width = resize_ * size.width / size.height;
  } else {
    resized.height = resize_ * size.height / size.width;
  }
  // A line of pixels could become more than there is memory for.
  constexpr int64_t longest = 1 << 16;
  if (std::max(resized.height, resized.width) > longest) {
    throw DamagedImage("it is {} x {} pixels, too long to be resized to {} x {}", size.width,
                       size.height, resized.width, resized.height);
  }
  return {whole(size), resized};
}

Image EvaluationView::make(const DecodedPart& part) const {
  if (resize_ == 0) return part.image;
  const auto middle = [](int64_t length, int64_t wanted) {
    return nearest(static_cast<double>(length - wanted) / 2.0);
  };
  return crop(resize(part.image, part.box, part.out), middle(part.out.height, out_.height),
              middle(part.out.width, out_.width), out_);
}

}  // namespace sigtrain
