// A file's bytes in memory, read only, paged in by the system as they are touched.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace sigtrain {

/// Owns the mapping; bytes() is valid as long as the object. Throws Error naming the file if it
/// cannot be opened, is not a regular file or cannot be mapped. An empty file gives no bytes.
class MappedFile {
 public:
  explicit MappedFile(std::string path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::string& path() const { return path_; }
  std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  std::string path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace sigtrain
