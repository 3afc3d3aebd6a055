#include "data/stored_images.h"

#include <algorithm>

#include "core/file_io.h"
#include "data/fnv.h"

namespace sigtrain {
namespace {

constexpr int64_t kCifarSide = 32, kCifarPlane = kCifarSide * kCifarSide;
constexpr int64_t kCifarRecord = 1 + 3 * kCifarPlane;

uint8_t byte_at(const std::string& bytes, int64_t index) {
  return static_cast<uint8_t>(bytes[static_cast<size_t>(index)]);
}

/// The extents in the header of an IDX file of bytes, whose rank is known.
std::vector<int64_t> idx_shape(const std::string& bytes, const std::string& path, int rank) {
  const auto header = static_cast<size_t>(4 + 4 * rank);
  // Two zeros, the code of unsigned bytes, the rank; then the extents, most significant byte first.
  if (bytes.size() < header || byte_at(bytes, 0) != 0 || byte_at(bytes, 1) != 0 ||
      byte_at(bytes, 2) != 8 || byte_at(bytes, 3) != rank) {
    throw Error("{} is no IDX file of unsigned bytes with {} dimensions", path, rank);
  }
  std::vector<int64_t> shape;
  int64_t expected = 1;
  for (int axis = 0; axis < rank; ++axis) {
    int64_t extent = 0;
    for (int i = 0; i < 4; ++i) extent = extent << 8 | byte_at(bytes, 4 + 4 * axis + i);
    shape.push_back(extent);
    if (extent == 0 || expected > (int64_t{1} << 40) / extent)
      throw Error("{}: its header says {} along dimension {}", path, extent, axis);
    expected *= extent;
  }
  if (static_cast<int64_t>(bytes.size() - header) != expected) {
    throw Error("{} holds {} bytes, its header speaks of {}: it is not whole", path,
                bytes.size() - header, expected);
  }
  return shape;
}

std::vector<uint8_t> behind(const std::string& bytes, size_t header) {
  return {bytes.begin() + static_cast<std::ptrdiff_t>(header), bytes.end()};
}

}  // namespace

StoredImages::Records StoredImages::read_cifar10(const std::string& path) {
  const std::string bytes = read_file(path);
  const auto total = static_cast<int64_t>(bytes.size());
  if (total == 0 || total % kCifarRecord != 0) {
    throw Error("{} holds {} bytes, which is no whole number of CIFAR-10's records of {}", path,
                total, kCifarRecord);
  }
  Records part;
  part.path = path;
  part.pixels.reserve(static_cast<size_t>(total));
  for (int64_t record = 0; record < total; record += kCifarRecord) {
    part.labels.push_back(byte_at(bytes, record));
    for (int64_t i = 0; i < kCifarPlane; ++i)
      for (int64_t c = 0; c < 3; ++c)
        part.pixels.push_back(byte_at(bytes, record + 1 + c * kCifarPlane + i));
  }
  return part;
}

StoredImages::Records StoredImages::read_idx(const std::string& path, ImageSize& size) {
  const std::string images = "images-idx3", labels = "labels-idx1";
  const size_t at = path.rfind(images);
  if (at == std::string::npos) {
    throw UsageError("{}: an IDX file of images has {} in its name, that of its labels {}", path,
                     images, labels);
  }
  std::string label_path = path;
  label_path.replace(at, images.size(), labels);
  const std::string image_bytes = read_file(path), label_bytes = read_file(label_path);
  const std::vector<int64_t> shape = idx_shape(image_bytes, path, 3);
  const std::vector<int64_t> label_shape = idx_shape(label_bytes, label_path, 1);
  if (label_shape[0] != shape[0]) {
    throw Error("{} holds {} images, {} holds {} labels", path, shape[0], label_path,
                label_shape[0]);
  }
  size = {shape[1], shape[2]};
  return {path, behind(image_bytes, 16), behind(label_bytes, 8)};
}

StoredImages::StoredImages(std::vector<Records> parts, ImageSize size, int64_t channels,
                           int64_t classes)
    : parts_(std::move(parts)), image_size_(size), channels_(channels) {
  int64_t largest = 0;
  for (const Records& part : parts_) {
    for (size_t i = 0; i < part.labels.size(); ++i) {
      const int64_t label = part.labels[i];
      largest = std::max(largest, label);
      if (classes == 0 || label < classes) continue;
      throw Error("{}: the label of image {} is {}, but there are {} classes (0 to {})", part.path,
                  i, label, classes, classes - 1);
    }
    size_ += static_cast<int64_t>(part.labels.size());
  }
  for (int64_t label = 0; label < (classes != 0 ? classes : largest + 1); ++label)
    class_names_.push_back(std::to_string(label));
}

std::pair<const StoredImages::Records*, int64_t> StoredImages::find(int64_t index) const {
  for (const Records& part : parts_) {
    const auto count = static_cast<int64_t>(part.labels.size());
    if (index < count) return {&part, index};
    index -= count;
  }
  throw Error("image {} of {} requested", index, size_);
}

int32_t StoredImages::label(int64_t index) const {
  const auto [part, own] = find(index);
  return part->labels[static_cast<size_t>(own)];
}

std::string StoredImages::name(int64_t index) const {
  const auto [part, own] = find(index);
  return fmt::format("image {} of {}", own, part->path);
}

DecodedPart StoredImages::read(int64_t index, int64_t, const ChoosePart& choose) const {
  const auto [part, own] = find(index);
  const Records* const found = part;
  Image image(image_size_.height, image_size_.width, channels_);
  const auto bytes = static_cast<std::ptrdiff_t>(image.pixels.size());
  const auto start = found->pixels.begin() + own * bytes;
  std::copy(start, start + bytes, image.pixels.begin());
  const Part wanted = choose(image_size_);
  return {std::move(image), wanted.box, wanted.out};
}

uint64_t StoredImages::fingerprint() const {
  Fnv64 hash;
  for (const Records& part : parts_) {
    hash.add_bytes(part.pixels.data(), part.pixels.size());
    hash.add_bytes(part.labels.data(), part.labels.size());
  }
  return hash.value();
}

}  // namespace sigtrain
