// Images as files in one folder a class, as ImageNet has them: ROOT/CLASS/NAME.jpg or .png.
#pragma once

#include "data/image_set.h"

namespace sigtrain {

class ImageFolder final : public ImageSet {
 public:
  /// Lists the files, in the order of their names; labels number the class folders in theirs. Files
  /// that are neither .jpg, .jpeg nor .png are left out, with a warning. Throws UsageError if there
  /// are no class folders or one has no images.
  ImageFolder(const std::string& root, int64_t classes);

  int64_t size() const override { return static_cast<int64_t>(files_.size()); }
  const std::vector<std::string>& class_names() const override { return class_names_; }
  int32_t label(int64_t index) const override { return file(index).label; }
  std::string name(int64_t index) const override;
  DecodedPart read(int64_t index, int64_t channels, const ChoosePart& choose) const override;
  uint64_t fingerprint() const override;

 private:
  struct File {
    std::string name;
    int32_t label;
  };
  const File& file(int64_t index) const { return files_[static_cast<size_t>(index)]; }

  std::string root_;
  std::vector<std::string> class_names_;
  std::vector<File> files_;
};

}  // namespace sigtrain
