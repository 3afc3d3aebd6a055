// The safetensors file format, which PyTorch and others read: 8 bytes little-endian header length
// N, N bytes of JSON (name -> dtype, shape, data_offsets; "__metadata__" -> strings), then the
// tensors' bytes without gaps. https://github.com/huggingface/safetensors
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/file_io.h"
#include "core/tensor.h"

namespace sigtrain {

/// A tensor with its name in a file; it borrows host memory.
struct NamedTensor {
  std::string name;
  Tensor tensor;
};

/// Writes the tensors (in host memory, distinct names) to `path`, atomically. They are laid out in
/// the given order, wider element types first so that each is aligned to its element; the data
/// start on a multiple of 8. Throws Error for a repeated or reserved name and for a failed write.
FileDigest write_safetensors(const std::filesystem::path& path,
                             std::span<const NamedTensor> tensors,
                             const std::map<std::string, std::string>& metadata = {});

/// What the header says of one tensor. `offset` is from the start of the file.
struct SafetensorsEntry {
  std::string name;
  DType dtype = DType::none;
  Shape shape;
  uint64_t offset = 0;
  uint64_t bytes = 0;
};

/// An open safetensors file. The constructor reads the header and checks all of it: the lengths
/// against the file's size, every dtype, shape and byte range, and that the ranges leave no gap
/// and do not overlap. Errors name the file, the tensor and what is wrong.
class SafetensorsReader {
 public:
  explicit SafetensorsReader(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return file_.path(); }
  /// In the order of the data.
  const std::vector<SafetensorsEntry>& entries() const { return entries_; }
  /// Null if there is no tensor of this name.
  const SafetensorsEntry* find(std::string_view name) const;
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

  /// Copies the tensor `name` into `destination`, host memory of the same dtype and shape.
  void read(std::string_view name, const Tensor& destination) const;

 private:
  FileReader file_;
  std::vector<SafetensorsEntry> entries_;
  std::map<std::string, size_t, std::less<>> index_;
  std::map<std::string, std::string> metadata_;
};

/// Fills every one of `tensors` (host memory of the caller) from the file. The names must be those
/// of the file, no fewer and no more, with equal dtype and shape; otherwise one Error lists each
/// tensor that is missing, unexpected or different, and nothing is read.
void load_tensors(const SafetensorsReader& reader, std::span<const NamedTensor> tensors);

}  // namespace sigtrain
