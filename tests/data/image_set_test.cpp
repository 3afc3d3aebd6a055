#include "data/image_set.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "image_testing.h"
#include "temporary_folder.h"

namespace sigtrain {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::unique_ptr<ImageSet> open(DataSource source, const std::vector<std::string>& paths,
                               int64_t channels = 3, int64_t classes = 0) {
  return open_image_set(source, paths, channels, classes);
}

Image read(const ImageSet& images, int64_t index, int64_t channels) {
  return images
      .read(index, channels,
            [](ImageSize size) {
              return Part{{0, 0, static_cast<double>(size.height), static_cast<double>(size.width)},
                          size};
            })
      .image;
}

class ImageSetTest : public ::testing::Test {
 protected:
  std::string error(DataSource source, const std::vector<std::string>& paths, int64_t channels = 3,
                    int64_t classes = 0) const {
    return message_of<Error>([&] { open(source, paths, channels, classes); });
  }
  TemporaryFolder folder_;
};

TEST_F(ImageSetTest, FolderNumbersItsClassesInTheOrderOfTheirNames) {
  const Image first = smooth_image(8, 8, 3), second = smooth_image(8, 8, 3, 1.0);
  write_text(folder_ / "images/zebra/b.png", png_of(second));
  write_text(folder_ / "images/zebra/a.PNG", png_of(first));
  write_text(folder_ / "images/ant/x.jpg", jpeg_of(first));
  write_text(folder_ / "images/ant/y.JPEG", jpeg_of(first));
  write_text(folder_ / "images/ant/notes.txt", "left out, with a warning");
  write_text(folder_ / "images/README", "likewise");
  const auto images = open(DataSource::image_folder, {folder_ / "images"});
  ASSERT_EQ(images->size(), 4);
  EXPECT_THAT(images->class_names(), ElementsAre("ant", "zebra"));
  EXPECT_EQ(images->label(1), 0);
  EXPECT_EQ(images->label(2), 1);
  EXPECT_THAT(images->name(0), HasSubstr("/images/ant/x.jpg"));
  EXPECT_EQ(read(*images, 2, 3).pixels, first.pixels);
  EXPECT_EQ(read(*images, 3, 3).pixels, second.pixels);
  EXPECT_EQ(open(DataSource::image_folder, {folder_ / "images"})->fingerprint(),
            images->fingerprint());
  std::filesystem::rename(folder_ / "images/ant", folder_ / "images/bee");
  EXPECT_NE(open(DataSource::image_folder, {folder_ / "images"})->fingerprint(),
            images->fingerprint());
}

TEST_F(ImageSetTest, FolderSaysWhatIsWrong) {
  EXPECT_THAT(error(DataSource::image_folder, {folder_ / "none"}), HasSubstr("cannot list"));
  write_text(folder_ / "flat/a.png", png_of(smooth_image(4, 4, 3)));
  EXPECT_THAT(error(DataSource::image_folder, {folder_ / "flat"}),
              HasSubstr("images lie in one folder a class"));
  write_text(folder_ / "images/ant/x.png", png_of(smooth_image(4, 4, 3)));
  std::filesystem::create_directories(folder_ / "images/bee");
  EXPECT_THAT(error(DataSource::image_folder, {folder_ / "images"}),
              HasSubstr("images/bee: the class has no images"));
  write_text(folder_ / "images/bee/x.png", png_of(smooth_image(4, 4, 3)));
  EXPECT_THAT(error(DataSource::image_folder, {folder_ / "images"}, 3, 10),
              HasSubstr("has 2 classes, the model 10"));
  EXPECT_THAT(error(DataSource::image_folder, {folder_ / "images", folder_ / "images"}),
              HasSubstr("takes one folder"));
}

// Two records: a label, then red, green and blue planes.
std::string cifar_records(uint8_t last_label = 9) {
  std::string bytes;
  for (int record = 0; record < 2; ++record) {
    bytes += static_cast<char>(record == 0 ? 3 : last_label);
    for (int c = 0; c < 3; ++c)
      for (int i = 0; i < 1024; ++i) bytes += static_cast<char>(record * 100 + c * 10 + i % 7);
  }
  return bytes;
}

TEST_F(ImageSetTest, ReadsCifar10) {
  write_text(folder_ / "a.bin", cifar_records());
  write_text(folder_ / "b.bin", cifar_records(0));
  const auto images = open(DataSource::cifar10, {folder_ / "a.bin", folder_ / "b.bin"});
  ASSERT_EQ(images->size(), 4);
  EXPECT_EQ(images->class_names().size(), 10u);
  EXPECT_EQ(images->label(0), 3);
  EXPECT_EQ(images->label(3), 0);
  EXPECT_THAT(images->name(3), HasSubstr("image 1 of " + (folder_ / "b.bin")));
  const Image image = read(*images, 1, 3);
  EXPECT_EQ(image.height, 32);
  EXPECT_EQ(image.row(1)[3 * 5 + 2], 100 + 20 + (32 + 5) % 7);
}

TEST_F(ImageSetTest, Cifar10SaysWhatIsWrong) {
  write_text(folder_ / "cut.bin", cifar_records().substr(1));
  EXPECT_THAT(error(DataSource::cifar10, {folder_ / "cut.bin"}),
              HasSubstr("cut.bin holds 6145 bytes, which is no whole number"));
  write_text(folder_ / "label.bin", cifar_records(10));
  EXPECT_THAT(error(DataSource::cifar10, {folder_ / "label.bin"}),
              HasSubstr("label.bin: the label of image 1 is 10, but there are 10 classes"));
  write_text(folder_ / "good.bin", cifar_records());
  EXPECT_THAT(error(DataSource::cifar10, {folder_ / "good.bin"}, 1), HasSubstr("3 channels"));
  EXPECT_THAT(error(DataSource::cifar10, {folder_ / "good.bin"}, 3, 100), HasSubstr("10 classes"));
  EXPECT_THAT(error(DataSource::cifar10, {folder_ / "none.bin"}), HasSubstr("none.bin"));
}

TEST_F(ImageSetTest, ReadsIdx) {
  std::vector<uint8_t> pixels(3 * 4 * 5);
  for (size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<uint8_t>(i);
  const std::string path = folder_ / "train-images-idx3-ubyte";
  write_text(path, idx_of({3, 4, 5}, pixels));
  write_text(folder_ / "train-labels-idx1-ubyte", idx_of({3}, {2, 0, 6}));
  const auto images = open(DataSource::idx, {path}, 1);
  ASSERT_EQ(images->size(), 3);
  EXPECT_EQ(images->class_names().size(), 7u);
  EXPECT_EQ(images->label(2), 6);
  const Image image = read(*images, 1, 1);
  EXPECT_EQ(image.height, 4);
  EXPECT_EQ(image.width, 5);
  EXPECT_EQ(image.row(2)[3], 20 + 13);
}

TEST_F(ImageSetTest, SaysWhichClassHasNoImages) {
  const std::string path = folder_ / "train-images-idx3-ubyte";
  write_text(path, idx_of({3, 2, 2}, std::vector<uint8_t>(12)));
  write_text(folder_ / "train-labels-idx1-ubyte", idx_of({3}, {2, 0, 3}));
  const auto message = [&](int64_t classes) {
    const auto images = open(DataSource::idx, {path}, 1, classes);
    return message_of<UsageError>([&] { check_classes_have_images(*images); });
  };
  EXPECT_THAT(message(0), HasSubstr("no image of 1 of its 4 classes, such as class 1: "));
  EXPECT_THAT(message(10), HasSubstr("no image of 7 of its 10 classes, such as class 1: "));
  write_text(folder_ / "train-labels-idx1-ubyte", idx_of({3}, {2, 0, 1}));
  check_classes_have_images(*open(DataSource::idx, {path}, 1));
}

TEST_F(ImageSetTest, IdxSaysWhatIsWrong) {
  const std::string path = folder_ / "t-images-idx3-ubyte",
                    labels = folder_ / "t-labels-idx1-ubyte";
  const std::vector<uint8_t> pixels(2 * 3 * 3);
  const auto open_with = [&](const std::string& image_bytes, const std::string& label_bytes) {
    write_text(path, image_bytes);
    write_text(labels, label_bytes);
    return error(DataSource::idx, {path}, 1, 5);
  };
  const std::string good = idx_of({2, 3, 3}, pixels), good_labels = idx_of({2}, {0, 4});
  EXPECT_THAT(open_with(good, idx_of({2}, {0, 5})),
              HasSubstr("the label of image 1 is 5, but there are 5 classes (0 to 4)"));
  EXPECT_THAT(open_with(good, idx_of({1}, {0})), HasSubstr("2 images, "));
  EXPECT_THAT(open_with(good.substr(0, good.size() - 1), good_labels), HasSubstr("not whole"));
  EXPECT_THAT(open_with(good + "x", good_labels), HasSubstr("not whole"));
  EXPECT_THAT(open_with(idx_of({2, 9}, pixels), good_labels), HasSubstr("3 dimensions"));
  EXPECT_THAT(open_with(idx_of({0, 3, 3}, {}), good_labels), HasSubstr("0 along dimension 0"));
  EXPECT_THAT(open_with(idx_of({0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF}, {}), good_labels),
              HasSubstr("along dimension"));
  EXPECT_THAT(open_with("", good_labels), HasSubstr("3 dimensions"));
  EXPECT_THAT(error(DataSource::idx, {folder_ / "other"}, 1), HasSubstr("has images-idx3 in its"));
  EXPECT_THAT(error(DataSource::idx, {path}, 3), HasSubstr("1 channels, the model takes 3"));
  write_text(path, good);
  write_text(folder_ / "u-images-idx3-ubyte", idx_of({1, 3, 2}, std::vector<uint8_t>(6)));
  write_text(folder_ / "u-labels-idx1-ubyte", idx_of({1}, {0}));
  EXPECT_THAT(error(DataSource::idx, {path, folder_ / "u-images-idx3-ubyte"}, 1),
              HasSubstr("its images are 2 x 3, those of"));
}

}  // namespace
}  // namespace sigtrain
