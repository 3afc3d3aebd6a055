// Files that are either whole or not there: atomic writing, checked reading, checksums.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace sigtrain {

/// What a file is recognised by.
struct FileDigest {
  uint64_t bytes = 0;
  uint32_t crc32c = 0;

  bool operator==(const FileDigest&) const = default;
};

/// A file under construction. The bytes go to a temporary name in the same folder; commit() moves
/// it to `path`, where a reader finds the earlier file or the whole new one, never a part. Without
/// commit() the temporary file is removed. Every failure (a full disk, an unwritable folder) throws
/// Error with the path and the system's reason.
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* data, size_t bytes);
  void write(std::string_view text) { write(text.data(), text.size()); }
  /// Syncs the file to the disk, gives it its name and syncs the folder.
  FileDigest commit();

 private:
  std::filesystem::path path_, temporary_;
  int descriptor_ = -1;
  FileDigest digest_;
};

/// Replaces or creates `path` with `text`, through AtomicFile.
FileDigest write_file(const std::filesystem::path& path, std::string_view text);

/// Holds the advisory lock (flock) of the file `path` for its lifetime, waiting for other processes
/// and threads that hold it; the file is created if need be and stays. Throws Error as AtomicFile
/// does.
class FileLock {
 public:
  explicit FileLock(const std::filesystem::path& path);
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  int descriptor_ = -1;
};

/// A file that grows at its end; it is created if need be. Each append() reaches the system before
/// it returns, so that nothing is lost when the process is killed. Throws Error as AtomicFile does.
class AppendFile {
 public:
  explicit AppendFile(std::filesystem::path path);
  ~AppendFile();
  AppendFile(const AppendFile&) = delete;
  AppendFile& operator=(const AppendFile&) = delete;

  const std::filesystem::path& path() const { return path_; }
  void append(std::string_view text);

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
};

/// An open file read at offsets. It keeps the descriptor, and throws Error when the file is shorter
/// than what is asked for.
class FileReader {
 public:
  explicit FileReader(std::filesystem::path path);
  ~FileReader();
  FileReader(FileReader&& other) noexcept;
  FileReader& operator=(FileReader&& other) noexcept;

  const std::filesystem::path& path() const { return path_; }
  /// Size when it was opened.
  uint64_t bytes() const { return bytes_; }
  /// Copies bytes [offset, offset + bytes) to `destination`.
  void read(uint64_t offset, void* destination, size_t bytes) const;
  /// Reads the whole file once, in pieces.
  FileDigest digest() const;

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
  uint64_t bytes_ = 0;
};

/// The whole file as text; throws Error if it cannot be read.
std::string read_file(const std::filesystem::path& path);

/// Makes names created, renamed or removed in `folder` last through a power failure.
void sync_folder(const std::filesystem::path& folder);

}  // namespace sigtrain
