// Sets of small images that a few files hold whole: CIFAR-10's binary files, and IDX.
#pragma once

#include "data/image_set.h"

namespace sigtrain {

/// Images of one size, kept in memory.
class StoredImages final : public ImageSet {
 public:
  /// A file's images and labels.
  struct Records {
    std::string path;
    std::vector<uint8_t> pixels;  // [images, height, width, channels]
    std::vector<uint8_t> labels;
  };

  /// CIFAR-10, the binary version: records of a label and a red, a green and a blue plane of 32 x
  /// 32. Throws Error naming the file that is no whole number of them.
  static Records read_cifar10(const std::string& path);
  /// IDX (LeCun): bytes in `path`, NAME-images-idx3-ubyte, and their labels in
  /// NAME-labels-idx1-ubyte. Sets `size`. Throws Error where either is not what it should be.
  static Records read_idx(const std::string& path, ImageSize& size);

  /// Throws Error naming the record whose label is not below `classes`; 0: the largest label is
  /// that of the last class.
  StoredImages(std::vector<Records> parts, ImageSize size, int64_t channels, int64_t classes);

  int64_t size() const override { return size_; }
  const std::vector<std::string>& class_names() const override { return class_names_; }
  int32_t label(int64_t index) const override;
  std::string name(int64_t index) const override;
  DecodedPart read(int64_t index, int64_t channels, const ChoosePart& choose) const override;
  uint64_t fingerprint() const override;

 private:
  /// The part that holds an image, and its index there.
  std::pair<const Records*, int64_t> find(int64_t index) const;

  std::vector<Records> parts_;
  ImageSize image_size_;
  int64_t channels_;
  int64_t size_ = 0;
  std::vector<std::string> class_names_;
};

}  // namespace sigtrain
