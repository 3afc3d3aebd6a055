#include "core/file_io.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>
#include <vector>

#include "core/crc32c.h"
#include "core/error.h"

namespace sigtrain {
namespace {

std::string reason(int code) { return std::generic_category().message(code); }

// The kernel transfers at most about 2 GiB a call.
constexpr size_t kPieceBytes = size_t{1} << 30;

// Writes all of it; returns 0 or the error code, and advances `written` by what reached the file.
int write_all(int descriptor, const void* data, size_t bytes, uint64_t& written) {
  const auto* p = static_cast<const std::byte*>(data);
  while (bytes > 0) {
    const ssize_t n = ::write(descriptor, p, std::min(bytes, kPieceBytes));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno;
    p += n;
    bytes -= static_cast<size_t>(n);
    written += static_cast<uint64_t>(n);
  }
  return 0;
}

}  // namespace

AtomicFile::AtomicFile(std::filesystem::path path) : path_(std::move(path)), temporary_(path_) {
  temporary_ += ".tmp" + std::to_string(::getpid());
  descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (descriptor_ < 0) throw Error("cannot create {}: {}", temporary_.string(), reason(errno));
}

AtomicFile::~AtomicFile() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  ::unlink(temporary_.c_str());
}

void AtomicFile::write(const void* data, size_t bytes) {
  if (const int code = write_all(descriptor_, data, bytes, digest_.bytes); code != 0) {
    throw Error("cannot write {} after {} bytes: {}", path_.string(), digest_.bytes, reason(code));
  }
  digest_.crc32c = crc32c(data, bytes, digest_.crc32c);
}

FileDigest AtomicFile::commit() {
  if (::fsync(descriptor_) != 0) {
    throw Error("cannot write {} to the disk: {}", path_.string(), reason(errno));
  }
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) {
    throw Error("cannot rename {} to {}: {}", temporary_.string(), path_.string(), reason(errno));
  }
  ::close(std::exchange(descriptor_, -1));
  sync_folder(path_.parent_path());
  return digest_;
}

FileDigest write_file(const std::filesystem::path& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  return file.commit();
}

FileLock::FileLock(const std::filesystem::path& path) {
  descriptor_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (descriptor_ < 0) throw Error("cannot open {} to lock it: {}", path.string(), reason(errno));
  while (::flock(descriptor_, LOCK_EX) != 0) {
    if (errno == EINTR) continue;
    const int code = errno;
    ::close(std::exchange(descriptor_, -1));
    throw Error("cannot lock {}: {}", path.string(), reason(code));
  }
}

FileLock::~FileLock() { ::close(descriptor_); }

AppendFile::AppendFile(std::filesystem::path path) : path_(std::move(path)) {
  descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (descriptor_ < 0) throw Error("cannot open {} for writing: {}", path_.string(), reason(errno));
}

AppendFile::~AppendFile() { ::close(descriptor_); }

void AppendFile::append(std::string_view text) {
  uint64_t written = 0;
  if (const int code = write_all(descriptor_, text.data(), text.size(), written); code != 0) {
    throw Error("cannot append to {}: {}", path_.string(), reason(code));
  }
}

FileReader::FileReader(std::filesystem::path path) : path_(std::move(path)) {
  descriptor_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor_ < 0) throw Error("cannot open {}: {}", path_.string(), reason(errno));
  struct stat status {};
  const int code = ::fstat(descriptor_, &status) != 0 ? errno : 0;
  if (code != 0 || !S_ISREG(status.st_mode)) {
    ::close(std::exchange(descriptor_, -1));
    throw Error("cannot read {}: {}", path_.string(), code ? reason(code) : "not a regular file");
  }
  bytes_ = static_cast<uint64_t>(status.st_size);
}

FileReader::~FileReader() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

FileReader::FileReader(FileReader&& other) noexcept
    : path_(std::move(other.path_)),
      descriptor_(std::exchange(other.descriptor_, -1)),
      bytes_(other.bytes_) {}

FileReader& FileReader::operator=(FileReader&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(descriptor_, other.descriptor_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

void FileReader::read(uint64_t offset, void* destination, size_t bytes) const {
  auto* p = static_cast<std::byte*>(destination);
  while (bytes > 0) {
    const ssize_t n =
        ::pread(descriptor_, p, std::min(bytes, kPieceBytes), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw Error("cannot read {} at byte {}: {}", path_.string(), offset, reason(errno));
    if (n == 0) {
      throw Error("{} ends at byte {}; {} more were expected", path_.string(), offset, bytes);
    }
    p += n;
    offset += static_cast<uint64_t>(n);
    bytes -= static_cast<size_t>(n);
  }
}

FileDigest FileReader::digest() const {
  FileDigest digest;
  std::vector<std::byte> buffer(std::min<uint64_t>(bytes_, size_t{1} << 20));
  while (digest.bytes < bytes_) {
    const size_t n = std::min<uint64_t>(buffer.size(), bytes_ - digest.bytes);
    read(digest.bytes, buffer.data(), n);
    digest.crc32c = crc32c(buffer.data(), n, digest.crc32c);
    digest.bytes += n;
  }
  return digest;
}

std::string read_file(const std::filesystem::path& path) {
  const FileReader file(path);
  std::string text(file.bytes(), '\0');
  file.read(0, text.data(), text.size());
  return text;
}

void sync_folder(const std::filesystem::path& folder) {
  const std::string name = folder.empty() ? "." : folder.string();
  const int descriptor = ::open(name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) throw Error("cannot open the folder {}: {}", name, reason(errno));
  // Some network file systems do not sync folders and say EINVAL; their rename is durable itself.
  const int code = ::fsync(descriptor) != 0 && errno != EINVAL ? errno : 0;
  ::close(descriptor);
  if (code != 0) throw Error("cannot write the folder {} to the disk: {}", name, reason(code));
}

}  // namespace sigtrain
