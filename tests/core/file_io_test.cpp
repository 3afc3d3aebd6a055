#include "core/file_io.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "../file_testing.h"
#include "core/crc32c.h"
#include "core/error.h"

namespace sigtrain {
namespace {

using testing::HasSubstr;

// Vectors of RFC 3720, appendix B.4, and the usual check value.
TEST(Crc32c, KnownVectors) {
  EXPECT_EQ(crc32c("123456789", 9), 0xE3069283u);
  EXPECT_EQ(crc32c("", 0), 0u);
  EXPECT_EQ(crc32c(std::string(32, '\0').data(), 32), 0x8A9136AAu);
  EXPECT_EQ(crc32c(std::string(32, '\xff').data(), 32), 0x62A8AB43u);
  std::string rising(32, '\0');
  for (int i = 0; i < 32; ++i) rising[static_cast<size_t>(i)] = static_cast<char>(i);
  EXPECT_EQ(crc32c(rising.data(), 32), 0x46DD794Eu);
}

TEST(Crc32c, GoesOnAtAnySplit) {
  const std::string text = "a checksum in two parts, at every possible place";
  for (size_t n = 0; n <= text.size(); ++n) {
    EXPECT_EQ(crc32c(text.data() + n, text.size() - n, crc32c(text.data(), n)),
              crc32c(text.data(), text.size()));
  }
}

TEST(AtomicFile, ReplacesAtCommitAndLeavesNothingWithoutIt) {
  const TemporaryFolder folder;
  write_file(folder / "a", "old");
  {
    AtomicFile file(folder / "a");
    file.write("abandoned");
    EXPECT_EQ(slurp(folder / "a"), "old");
  }
  EXPECT_EQ(slurp(folder / "a"), "old");
  const FileDigest digest = write_file(folder / "a", "new text");
  EXPECT_EQ(read_file(folder / "a"), "new text");
  EXPECT_EQ(FileReader(folder / "a").digest(), digest);
  const std::filesystem::directory_iterator files(folder.path());
  EXPECT_EQ(std::distance(begin(files), end(files)), 1);
}

TEST(AtomicFile, SaysWhyItCannotWrite) {
  const TemporaryFolder folder;
  spill(folder / "file", "x");
  EXPECT_THAT(message_of<Error>([&] { write_file(folder / "none/a", "x"); }),
              HasSubstr("No such file"));
  EXPECT_THAT(message_of<Error>([&] { write_file(folder / "file/a", "x"); }),
              HasSubstr("Not a directory"));
}

TEST(FileLock, IsHeldByOneAtATime) {
  const TemporaryFolder folder;
  std::atomic<int> holders = 0, most = 0;
  const auto hold = [&] {
    for (int turn = 0; turn < 20; ++turn) {
      const FileLock lock(folder / "lock");
      most = std::max(most.load(), ++holders);
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      --holders;
    }
  };
  std::thread other(hold);
  hold();
  other.join();
  EXPECT_EQ(most, 1);
  EXPECT_THROW(FileLock(folder / "absent/lock"), Error);
}

TEST(AppendFile, ReportsAFullDisk) {
  AppendFile full("/dev/full");
  EXPECT_THAT(message_of<Error>([&] { full.append("x"); }),
              HasSubstr("cannot append to /dev/full: No space left on device"));
}

TEST(FileReader, RefusesToReadPastTheEndAndFolders) {
  const TemporaryFolder folder;
  spill(folder / "a", "12345");
  const FileReader file(folder / "a");
  char buffer[8];
  file.read(2, buffer, 3);
  EXPECT_EQ(std::string(buffer, 3), "345");
  EXPECT_THAT(message_of<Error>([&] { file.read(2, buffer, 4); }), HasSubstr("ends at byte 5"));
  EXPECT_THAT(message_of<Error>([&] { FileReader reader(folder.path()); }),
              HasSubstr("not a regular file"));
}

}  // namespace
}  // namespace sigtrain
