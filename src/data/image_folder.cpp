#include "data/image_folder.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <filesystem>

#include "core/file_io.h"
#include "data/fnv.h"

namespace sigtrain {
namespace {

namespace fs = std::filesystem;

bool is_image_name(const fs::path& path) {
  std::string extension = path.extension().string();
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return extension == ".jpg" || extension == ".jpeg" || extension == ".png";
}

/// Names in a folder, sorted: a folder's own order differs from disk to disk.
std::vector<fs::path> sorted_entries(const fs::path& folder) {
  std::vector<fs::path> entries;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error))
    entries.push_back(it->path());
  if (error) throw UsageError("cannot list {}: {}", folder.string(), error.message());
  std::sort(entries.begin(), entries.end());
  return entries;
}

}  // namespace

ImageFolder::ImageFolder(const std::string& root, int64_t classes) : root_(root) {
  int64_t others = 0;
  std::string an_other;
  for (const fs::path& folder : sorted_entries(root)) {
    std::error_code ignored;
    if (!fs::is_directory(folder, ignored)) {
      ++others, an_other = folder.string();
      continue;
    }
    const size_t before = files_.size();
    const auto label = static_cast<int32_t>(class_names_.size());
    for (const fs::path& path : sorted_entries(folder)) {
      if (is_image_name(path)) {
        files_.push_back({path.filename().string(), label});
      } else {
        ++others, an_other = path.string();
      }
    }
    if (files_.size() == before) {
      throw UsageError("{}: the class has no images (*.jpg, *.jpeg, *.png); remove the folder",
                       folder.string());
    }
    class_names_.push_back(folder.filename().string());
  }
  if (class_names_.empty()) {
    throw UsageError("{}: there are no folders in it; images lie in one folder a class: {}/CLASS/",
                     root, root);
  }
  if (classes != 0 && static_cast<int64_t>(class_names_.size()) != classes) {
    throw UsageError("{} has {} classes, the model {} (model.vision.classes)", root,
                     class_names_.size(), classes);
  }
  if (others > 0) {
    spdlog::warn("{}: {} files that are no images of a class are left out, such as {}", root,
                 others, an_other);
  }
}

std::string ImageFolder::name(int64_t index) const {
  const File& found = file(index);
  return root_ + "/" + class_names_[static_cast<size_t>(found.label)] + "/" + found.name;
}

DecodedPart ImageFolder::read(int64_t index, int64_t channels, const ChoosePart& choose) const {
  return decode_part(read_file(name(index)), channels, choose);
}

uint64_t ImageFolder::fingerprint() const {
  Fnv64 hash;
  for (const std::string& name : class_names_) hash.add(name), hash.add(uint64_t{0});
  for (const File& found : files_) {
    hash.add(found.name);
    hash.add(static_cast<uint64_t>(found.label));
  }
  return hash.value();
}

}  // namespace sigtrain
