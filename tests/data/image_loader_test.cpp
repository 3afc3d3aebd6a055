#include "data/image_loader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "data/batch_mixing.h"
#include "data/prefetcher.h"
#include "image_testing.h"
#include "temporary_folder.h"

namespace sigtrain {
namespace {

using testing::Each;
using testing::HasSubstr;

/// Images of one size in memory. Every pixel of image i is i, but where `damaged` says so.
class FakeImages final : public ImageSet {
 public:
  explicit FakeImages(int64_t count, ImageSize size = {8, 8}, int classes = 5)
      : count_(count), image_size_(size) {
    for (int i = 0; i < classes; ++i) class_names_.push_back(std::to_string(i));
  }
  int64_t size() const override { return count_; }
  const std::vector<std::string>& class_names() const override { return class_names_; }
  int32_t label(int64_t index) const override {
    return static_cast<int32_t>(index % std::ssize(class_names_));
  }
  std::string name(int64_t index) const override { return "image " + std::to_string(index); }
  DecodedPart read(int64_t index, int64_t channels, const ChoosePart& choose) const override {
    if (damaged.count(index) > 0) throw DamagedImage("torn");
    Image image(image_size_.height, image_size_.width, channels);
    std::fill(image.pixels.begin(), image.pixels.end(), static_cast<uint8_t>(index));
    const Part part = choose(image_size_);
    return {std::move(image), part.box, part.out};
  }
  uint64_t fingerprint() const override { return 1; }

  std::set<int64_t> damaged;

 private:
  int64_t count_;
  ImageSize image_size_;
  std::vector<std::string> class_names_;
};

Config small_config(int64_t micro_batch = 6) {
  Config config;
  config.task = TaskKind::image_classification;
  config.model.vision.image_size = 8;
  config.model.vision.classes = 5;
  config.train.global_batch = 12;
  config.train.micro_batch = micro_batch;
  return config;
}

/// Every kind of augmentation at once.
Config augmented_config() {
  Config config = small_config();
  config.augment.crop = CropKind::resized;
  config.augment.flip = true;
  config.augment.randaugment_ops = 2;
  config.augment.brightness = config.augment.contrast = 0.3;
  config.augment.saturation = 0.3;
  config.augment.hue = 0.1;
  config.augment.erasing = 0.5;
  config.augment.mixup = config.augment.cutmix = 1.0;
  config.loss.label_smoothing = 0.1;
  return config;
}

void expect_same(const ImageBatch& a, const ImageBatch& b) {
  EXPECT_EQ(a.images, b.images);
  EXPECT_EQ(a.labels, b.labels);
  EXPECT_EQ(a.targets, b.targets);
}

/// Real files with structure in them, so that augmentation shows.
class ImageFiles : public ::testing::Test {
 protected:
  ImageFiles() {
    for (int i = 0; i < 10; ++i) {
      const std::string name = "images/" + std::to_string(i % 5) + "/" + std::to_string(i);
      const Image image = smooth_image(20 + i, 24, 3, 0.5 * i);
      write_text(folder_ / (name + (i % 2 == 0 ? ".jpg" : ".png")),
                 i % 2 == 0 ? jpeg_of(image) : png_of(image));
    }
  }
  std::shared_ptr<const ImageSet> images() const {
    return open_image_set(DataSource::image_folder, {folder_ / "images"}, 3, 5);
  }
  TemporaryFolder folder_;
};

TEST_F(ImageFiles, BatchesDependOnTheirNumberAlone) {
  const Config config = augmented_config();
  const ShuffledImages loader(images(), config);
  std::vector<ImageBatch> in_order;
  for (int64_t step = 0; step < 8; ++step) in_order.push_back(loader.get(step));
  // Backwards, from a loader of its own; and from many threads that start in the middle.
  const ShuffledImages other(images(), config);
  for (int64_t step = 7; step >= 0; --step)
    expect_same(other.get(step), in_order[static_cast<size_t>(step)]);
  for (const int workers : {1, 2, 5}) {
    Prefetcher<ImageBatch> prefetcher([&](int64_t step) { return loader.get(step); }, 3, 6,
                                      workers);
    for (int64_t step = 3; step < 8; ++step)
      expect_same(*prefetcher.next(), in_order[static_cast<size_t>(step)]);
  }
  EXPECT_NE(in_order[0].images, in_order[1].images);
  Config reseeded = config;
  reseeded.train.seed = 2;
  EXPECT_NE(ShuffledImages(images(), reseeded).get(0).images, in_order[0].images);
}

TEST_F(ImageFiles, TargetsAddUpToOne) {
  const ShuffledImages loader(images(), augmented_config());
  for (int64_t step = 0; step < 20; ++step) {
    const ImageBatch batch = loader.get(step);
    ASSERT_EQ(batch.targets.size(), 30u);
    for (size_t row = 0; row < 6; ++row) {
      double sum = 0.0;
      for (size_t j = 0; j < 5; ++j) {
        EXPECT_GE(batch.targets[5 * row + j], 0.019F);
        sum += batch.targets[5 * row + j];
      }
      EXPECT_NEAR(sum, 1.0, 1e-6);
    }
  }
}

// How often each image is seen in `samples` samples from the first on.
std::map<int, int> seen(const ShuffledImages& loader, int64_t batch, int64_t samples) {
  std::map<int, int> counts;
  for (int64_t step = 0; step < samples / batch; ++step) {
    const ImageBatch made = loader.get(step);
    for (size_t row = 0; row < made.labels.size(); ++row) {
      const int image = made.images[row * 8 * 8 * 3];
      EXPECT_EQ(made.labels[row], image % 5);
      ++counts[image];
    }
  }
  return counts;
}

TEST(ShuffledImages, SeesEveryImageOnceAnEpoch) {
  const Config config = small_config();
  const ShuffledImages loader(std::make_shared<FakeImages>(18), config);
  EXPECT_TRUE(loader.get(0).targets.empty());
  const auto counts = seen(loader, 6, 18);
  EXPECT_EQ(counts.size(), 18u);
  for (const auto& [image, count] : seen(loader, 6, 54)) EXPECT_EQ(count, 3) << image;
  // Another order in the next epoch.
  std::vector<uint8_t> first, second;
  for (int64_t step = 0; step < 3; ++step) {
    const ImageBatch a = loader.get(step), b = loader.get(step + 3);
    first.insert(first.end(), a.images.begin(), a.images.end());
    second.insert(second.end(), b.images.begin(), b.images.end());
  }
  EXPECT_NE(first, second);
}

TEST(ShuffledImages, RepeatsAnImageInARow) {
  Config config = small_config();
  config.augment.repeats = 3;
  const ShuffledImages loader(std::make_shared<FakeImages>(18), config);
  const ImageBatch batch = loader.get(0);
  for (const size_t row : {1, 2, 4, 5})
    EXPECT_EQ(batch.labels[row], batch.labels[row / 3 * 3]) << row;
  for (const auto& [image, count] : seen(loader, 6, 54)) EXPECT_EQ(count, 3) << image;
}

TEST(ShuffledImages, TakesTheNextImageForADamagedOne) {
  Config config = small_config();
  auto images = std::make_shared<FakeImages>(18);
  images->damaged = {3, 4, 17};
  const ShuffledImages loader(images, config);
  const auto counts = seen(loader, 6, 18);
  EXPECT_EQ(counts.size(), 15u);
  EXPECT_EQ(counts.at(5), 3);  // for 3 and 4 too
  EXPECT_EQ(counts.at(0), 2);
  std::set<int64_t> told;
  for (int64_t step = 0; step < 3; ++step) {
    for (const DamagedSample& sample : loader.get(step).damaged) {
      told.insert(sample.index);
      EXPECT_EQ(sample.text, "image " + std::to_string(sample.index) + ": torn");
    }
  }
  EXPECT_EQ(told, images->damaged);
}

TEST(ShuffledImages, StopsWhereNoImageCanBeRead) {
  auto none = std::make_shared<FakeImages>(4);
  none->damaged = {0, 1, 2, 3};
  const ShuffledImages hopeless(none, small_config());
  EXPECT_THAT(message_of<Error>([&] { hopeless.get(0); }), HasSubstr("all of the 4 images"));
}

TEST(ShuffledImages, MixesWithinAMicroBatch) {
  Config config = small_config(3);
  config.augment.cutmix = 1.0;
  const ShuffledImages loader(std::make_shared<FakeImages>(40), config);
  for (int64_t number = 0; number < 12; ++number) {
    const ImageBatch batch = loader.get(number);
    std::set<int> own;  // the images of the batch: nothing else is in it
    for (const uint8_t pixel : batch.images) own.insert(pixel);
    EXPECT_LE(own.size(), 3u);
  }
}

// Rows of one image lie together: each is mixed with one of another image, at the edges of a
// micro-batch too, which may lie between two rows of an image.
TEST(ShuffledImages, MixesWithAnotherImageThanTheRowsOwn) {
  for (const auto& [repeats, micro_batch] : {std::pair{1, 2}, {2, 4}, {2, 6}, {3, 7}}) {
    Config config = small_config(micro_batch);
    config.model.vision.classes = 41;
    config.augment.repeats = repeats;
    config.augment.mixup = 1.0;
    const ShuffledImages loader(std::make_shared<FakeImages>(41, ImageSize{8, 8}, 41), config);
    for (int64_t number = 0; (number + 1) * micro_batch <= 41 * repeats; ++number) {
      const ImageBatch batch = loader.get(number);
      for (int64_t row = 0; row < micro_batch; ++row) {
        const auto own = batch.targets.begin() + row * 41;
        EXPECT_EQ(std::count_if(own, own + 41, [](float x) { return x > 0.0F; }), 2)
            << "repeats " << repeats << ", batch " << number << ", row " << row;
      }
    }
  }
}

TEST(ShuffledImages, SaysWhichImageHasAnotherSize) {
  const ShuffledImages loader(std::make_shared<FakeImages>(4, ImageSize{8, 9}), small_config());
  EXPECT_THAT(message_of<Error>([&] { loader.get(0); }),
              testing::AllOf(HasSubstr("image "), HasSubstr("it is 9 x 8, the model takes 8 x 8"),
                             HasSubstr("augment.crop")));
}

TEST(ImageEvaluation, TakesEveryImageOnceInOrder) {
  const ImageEvaluation evaluation(std::make_shared<FakeImages>(10), small_config(4));
  EXPECT_EQ(evaluation.batches(), 3);
  int64_t next = 0;
  for (int64_t step = 0; step < 3; ++step) {
    const ImageBatch batch = evaluation.get(step);
    ASSERT_EQ(batch.images.size(), 4u * 8 * 8 * 3);
    for (size_t row = 0; row < 4; ++row, ++next) {
      EXPECT_EQ(batch.labels[row], next < 10 ? next % 5 : kNoLabel);
      EXPECT_EQ(batch.images[row * 8 * 8 * 3], next < 10 ? next : 0);
    }
    EXPECT_EQ(batch.counted, step < 2 ? 4 : 2);
  }
  Config few = small_config(4);
  few.eval.sequences = 5;
  EXPECT_EQ(ImageEvaluation(std::make_shared<FakeImages>(10), few).batches(), 2);
  EXPECT_EQ(ImageEvaluation(std::make_shared<FakeImages>(10), few).get(1).counted, 1);
  // Every other one.
  const ImageBatch spread = ImageEvaluation(std::make_shared<FakeImages>(10), few).get(0);
  for (size_t row = 0; row < 4; ++row) EXPECT_EQ(spread.images[row * 8 * 8 * 3], 2 * row);
}

TEST(ImageEvaluation, LeavesDamagedImagesOut) {
  auto images = std::make_shared<FakeImages>(8);
  images->damaged = {1, 6};
  const ImageEvaluation evaluation(images, small_config(4));
  EXPECT_THAT(evaluation.get(0).labels, testing::ElementsAre(0, kNoLabel, 2, 3));
  EXPECT_EQ(evaluation.get(1).counted, 3);
  ASSERT_EQ(evaluation.get(0).damaged.size(), 1u);
  EXPECT_EQ(evaluation.get(0).damaged[0].index, 1);
  EXPECT_EQ(evaluation.get(1).damaged[0].text, "image 6: torn");
}

TEST_F(ImageFiles, EvaluationResizesAndCuts) {
  Config config = small_config(4);
  config.data.image.eval_resize = 12;
  const ImageEvaluation evaluation(images(), config);
  EXPECT_EQ(evaluation.batches(), 3);
  EXPECT_EQ(evaluation.get(0).counted, 4);
  const EvaluationView view(12, 8);
  EXPECT_EQ(view.choose({20, 24}).out, (ImageSize{12, 14}));
  EXPECT_EQ(view.choose({29, 24}).out, (ImageSize{14, 12}));
  EXPECT_EQ(view.choose({24, 24}).out, (ImageSize{12, 12}));
  // Counted as damaged, not a crash for want of memory.
  EXPECT_THAT(message_of<DamagedImage>([&] {
                view.choose({1, 60000});
              }),
              HasSubstr("it is 60000 x 1 pixels, too long"));
  config.data.image.eval_resize = 0;
  const ImageEvaluation strict(images(), config);
  EXPECT_THAT(message_of<Error>([&] { strict.get(0); }), HasSubstr("data.image.eval_resize"));
}

TEST(SyntheticImages, AreOfTheShapeAskedFor) {
  const SyntheticImages source(small_config());
  const ImageBatch batch = source.get(3);
  EXPECT_EQ(batch.images.size(), 6u * 8 * 8 * 3);
  EXPECT_THAT(batch.labels, Each(testing::AllOf(testing::Ge(0), testing::Lt(5))));
  expect_same(source.get(3), batch);
  EXPECT_NE(source.get(4).images, batch.images);
}

ImageBatch three_images() {
  ImageBatch batch;
  batch.rows = 3;
  batch.labels = {0, 2, 1};
  for (const int value : {10, 100, 201})
    batch.images.insert(batch.images.end(), 4 * 4 * 3, static_cast<uint8_t>(value));
  make_targets(batch, 4, 0.2);
  return batch;
}

TEST(BatchMixing, SmoothsLabels) {
  const ImageBatch batch = three_images();
  EXPECT_THAT(batch.targets,
              testing::Pointwise(testing::FloatEq(), {0.85F, 0.05F, 0.05F, 0.05F, 0.05F, 0.05F,
                                                      0.85F, 0.05F, 0.05F, 0.85F, 0.05F, 0.05F}));
}

TEST(BatchMixing, MixesEachImageWithTheOneBefore) {
  ImageBatch batch = three_images();
  mix(batch, 1, 0.75);
  EXPECT_EQ(batch.images[0], 58);        // 0.75 10 + 0.25 201 = 57.75
  EXPECT_EQ(batch.images[48], 78);       // 0.75 100 + 0.25 10 = 77.5
  EXPECT_EQ(batch.images[2 * 48], 176);  // 0.75 201 + 0.25 100 = 175.75
  EXPECT_FLOAT_EQ(batch.targets[0], 0.75F * 0.85F + 0.25F * 0.05F);
  EXPECT_FLOAT_EQ(batch.targets[1], 0.75F * 0.05F + 0.25F * 0.85F);
  EXPECT_FLOAT_EQ(batch.targets[6], 0.75F * 0.85F + 0.25F * 0.05F);
}

TEST(BatchMixing, CutsAPartOutOfTheOneBefore) {
  ImageBatch batch = three_images();
  cut_and_mix(batch, 1, {4, 4}, {1, 2, 3, 2});
  const auto pixel = [&](size_t row, size_t y, size_t x) {
    return int{batch.images[row * 48 + (y * 4 + x) * 3 + 1]};
  };
  EXPECT_EQ(pixel(0, 0, 2), 10);
  EXPECT_EQ(pixel(0, 1, 2), 201);
  EXPECT_EQ(pixel(0, 3, 3), 201);
  EXPECT_EQ(pixel(0, 3, 1), 10);
  EXPECT_EQ(pixel(1, 2, 3), 10);
  // 6 of 16 pixels.
  EXPECT_FLOAT_EQ(batch.targets[0], 0.625F * 0.85F + 0.375F * 0.05F);
  EXPECT_FLOAT_EQ(batch.targets[1], 0.625F * 0.05F + 0.375F * 0.85F);
}

TEST(BatchMixing, CutsOfTheAreaAskedFor) {
  double area = 0.0;
  constexpr int draws = 2000;
  for (int i = 0; i < draws; ++i) {
    SampleRandom random({1, 2}, i);
    const Box box = random_cut({100, 100}, 0.75, random);
    EXPECT_GE(box.top, 0.0);
    EXPECT_LE(box.top + box.height, 100.0);
    EXPECT_GE(box.left, 0.0);
    EXPECT_LE(box.left + box.width, 100.0);
    area += box.width * box.height;
  }
  // Half of the side is 50; a middle within 25 of an edge loses 12.5 of it on average, half of the
  // time: 43.75^2.
  EXPECT_NEAR(area / draws / (43.75 * 43.75), 1.0, 0.02);
}

TEST(SampleRandom, HasTheMomentsOfItsDistributions) {
  constexpr int draws = 40000;
  for (const double alpha : {0.2, 0.8, 1.0, 3.0}) {
    double sum = 0.0, squares = 0.0, gamma = 0.0;
    SampleRandom random({7, 1}, static_cast<int64_t>(10 * alpha));
    for (int i = 0; i < draws; ++i) {
      const double x = random.beta(alpha);
      sum += x, squares += (x - 0.5) * (x - 0.5);
      gamma += random.gamma(alpha);
    }
    // Of beta(a, a): mean 1/2, variance 1 / (4 (2 a + 1)). Six standard deviations of the means.
    const double variance = 1.0 / (4.0 * (2.0 * alpha + 1.0));
    EXPECT_NEAR(sum / draws, 0.5, 6.0 * std::sqrt(variance / draws)) << alpha;
    EXPECT_NEAR(squares / draws, variance, 6.0 * 0.25 / std::sqrt(draws)) << alpha;
    EXPECT_NEAR(gamma / draws, alpha, 6.0 * std::sqrt(alpha / draws)) << alpha;
  }
}

TEST(RandomPart, StaysInsideAndHasTheAreaAndShape) {
  for (const ImageSize size : {ImageSize{50, 80}, {3, 3}, {1, 1}, {400, 7}, {5, 300}}) {
    for (int i = 0; i < 500; ++i) {
      SampleRandom random({3, 4}, i);
      const Box box = random_part(size, 0.08, random);
      ASSERT_GE(box.top, 0.0);
      ASSERT_GE(box.left, 0.0);
      ASSERT_GE(box.height, 1.0);
      ASSERT_GE(box.width, 1.0);
      ASSERT_LE(box.top + box.height, static_cast<double>(size.height));
      ASSERT_LE(box.left + box.width, static_cast<double>(size.width));
      if (size.height == 50) {
        // Sides are rounded by half a pixel at most.
        EXPECT_GE((box.height + 0.5) * (box.width + 0.5), 0.08 * 4000);
        EXPECT_LE((box.width - 0.5) / (box.height + 0.5), 4.0 / 3.0);
        EXPECT_GE((box.width + 0.5) / (box.height - 0.5), 3.0 / 4.0);
      }
      const Box hole = random_rectangle(size, random);
      ASSERT_LE(hole.top + hole.height, static_cast<double>(size.height));
      ASSERT_LE(hole.left + hole.width, static_cast<double>(size.width));
    }
  }
}

}  // namespace
}  // namespace sigtrain
