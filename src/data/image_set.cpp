#include "data/image_set.h"

#include <algorithm>

#include "config/enum_names.h"
#include "data/image_folder.h"
#include "data/stored_images.h"

namespace sigtrain {
namespace {

void check_channels(const std::string& path, int64_t own, int64_t wanted) {
  if (own == wanted) return;
  throw UsageError("{}: its images have {} channels, the model takes {} (model.vision.channels)",
                   path, own, wanted);
}

}  // namespace

std::unique_ptr<ImageSet> open_image_set(DataSource source, const std::vector<std::string>& paths,
                                         int64_t channels, int64_t classes) {
  switch (source) {
    case DataSource::image_folder:
      if (paths.size() != 1)
        throw UsageError("image_folder takes one folder of class folders, not {}", paths.size());
      return std::make_unique<ImageFolder>(paths[0], classes);
    case DataSource::cifar10: {
      constexpr int64_t cifar_classes = 10;
      check_channels(paths.at(0), 3, channels);
      if (classes != 0 && classes != cifar_classes)
        throw UsageError("CIFAR-10 has 10 classes, the model {} (model.vision.classes)", classes);
      std::vector<StoredImages::Records> parts;
      for (const std::string& path : paths) parts.push_back(StoredImages::read_cifar10(path));
      return std::make_unique<StoredImages>(std::move(parts), ImageSize{32, 32}, 3, cifar_classes);
    }
    case DataSource::idx: {
      check_channels(paths.at(0), 1, channels);
      std::vector<StoredImages::Records> parts;
      ImageSize size;
      for (const std::string& path : paths) {
        ImageSize own;
        parts.push_back(StoredImages::read_idx(path, own));
        if (parts.size() == 1) size = own;
        if (own != size) {
          throw UsageError("{}: its images are {} x {}, those of {} are {} x {}", path, own.width,
                           own.height, paths[0], size.width, size.height);
        }
      }
      return std::make_unique<StoredImages>(std::move(parts), size, 1, classes);
    }
    case DataSource::speech:
    case DataSource::text:
    case DataSource::synthetic:
      break;
  }
  throw Error("{} holds no images", enum_name(source));
}

void check_classes_have_images(const ImageSet& images) {
  std::vector<bool> seen(images.class_names().size());
  for (int64_t index = 0; index < images.size(); ++index)
    seen[static_cast<size_t>(images.label(index))] = true;
  const auto empty = std::count(seen.begin(), seen.end(), false);
  if (empty == 0) return;
  const auto first = std::find(seen.begin(), seen.end(), false) - seen.begin();
  throw UsageError(
      "data.train has no image of {} of its {} classes, such as class {}: add some, or correct the "
      "labels or model.vision.classes",
      empty, seen.size(), images.class_names()[static_cast<size_t>(first)]);
}

}  // namespace sigtrain
