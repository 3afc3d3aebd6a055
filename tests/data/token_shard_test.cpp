#include "data/token_shard.h"

#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <numeric>

#include "core/error.h"
#include "temporary_folder.h"

namespace sigtrain {
namespace {

constexpr uint64_t kHash = 0x0123456789abcdef;

std::string write_shard(const std::string& path, const std::vector<int32_t>& tokens,
                        int64_t vocab_size = 300) {
  TokenShardWriter writer(path, {vocab_size, kHash});
  writer.append(tokens);
  writer.finish();
  return path;
}

TEST(TokenShard, RoundTripsAtBothWidths) {
  const TemporaryFolder folder;
  for (const int64_t vocab_size : {300L, 65536L, 65537L, 1L << 31}) {
    const auto last = static_cast<int32_t>(vocab_size - 1);
    const std::vector<int32_t> tokens = {0, last, 1, 7, last, 2};
    const TokenShard shard(write_shard(folder / "a.tok", tokens, vocab_size));
    EXPECT_EQ(shard.size(), 6);
    EXPECT_EQ(shard.vocabulary().size, vocab_size);
    EXPECT_EQ(shard.vocabulary().hash, kHash);
    EXPECT_EQ(std::filesystem::file_size(folder / "a.tok"), vocab_size <= 65536 ? 76u : 88u);
    std::vector<int32_t> read(6);
    shard.read(0, read);
    EXPECT_EQ(read, tokens);
    read.resize(2);
    shard.read(3, read);
    EXPECT_EQ(read, (std::vector<int32_t>{7, last}));
    EXPECT_THROW(shard.read(5, read), Error);
    EXPECT_THROW(shard.read(-1, read), Error);
    shard.verify();
  }
}

TEST(TokenShard, HasTheDocumentedLayout) {
  const TemporaryFolder folder;
  const std::string bytes = read_text(write_shard(folder / "a.tok", {1, 258}));
  const auto number = [&](size_t offset) {
    uint64_t value;
    std::memcpy(&value, bytes.data() + offset, 8);
    return value;
  };
  EXPECT_EQ(bytes.substr(0, 8), "SIGTOKEN");
  EXPECT_EQ(number(8), uint64_t{2} << 32 | 1);
  EXPECT_EQ(number(16), 300u);
  EXPECT_EQ(number(24), kHash);
  EXPECT_EQ(number(32), 2u);
  EXPECT_EQ(number(48), 0u);
  EXPECT_EQ(bytes.substr(64), std::string("\x01\x00\x02\x01", 4));
}

struct Damage {
  const char* what;
  std::function<void(std::string&)> inflict;
  std::string message;  // after the file's name
};

TEST(TokenShard, SaysWhatIsWrongAndWhere) {
  const std::vector<Damage> damages = {
      {"empty", [](std::string& b) { b.clear(); },
       ": empty file (offset 0); write it again with tokenize"},
      {"short header", [](std::string& b) { b.resize(63); },
       ": truncated at offset 63: the header has 64 bytes; write it again with tokenize"},
      {"no tokens left", [](std::string& b) { b.resize(64); },
       ": truncated at offset 64: the header promises 3 tokens, the file holds 0; write it again "
       "with tokenize"},
      {"half a token", [](std::string& b) { b.resize(69); },
       ": truncated at offset 69: the header promises 3 tokens, the file holds 2; write it again "
       "with tokenize"},
      {"too long", [](std::string& b) { b += "abc"; },
       ": 3 bytes follow the last token at offset 70; write it again with tokenize"},
      {"other file", [](std::string& b) { b[0] = 'X'; },
       ": not a token shard (offset 0 does not hold \"SIGTOKEN\"); build/tokenize makes shards of "
       "text"},
      {"version", [](std::string& b) { b[8] = 2; },
       ": offset 8: version 2 of the format, this program reads version 1; write it again with "
       "tokenize"},
      {"width", [](std::string& b) { b[12] = 4; },
       ": the header was altered (its checksum at offset 56 does not match); write it again with "
       "tokenize"},
      {"vocabulary size", [](std::string& b) { b[16] ^= 1; },
       ": the header was altered (its checksum at offset 56 does not match); write it again with "
       "tokenize"},
      {"count", [](std::string& b) { b[32] = 1; },
       ": the header was altered (its checksum at offset 56 does not match); write it again with "
       "tokenize"},
  };
  const TemporaryFolder folder;
  const std::string path = folder / "a.tok";
  const std::string good = read_text(write_shard(path, {1, 2, 3}));
  for (const Damage& damage : damages) {
    std::string bytes = good;
    damage.inflict(bytes);
    write_text(path, bytes);
    EXPECT_EQ(message_of<Error>([&] { TokenShard shard(path); }), path + damage.message)
        << damage.what;
  }
  // Not one byte of the header may change unnoticed.
  for (size_t i = 0; i < 64; ++i) {
    std::string bytes = good;
    bytes[i] ^= 0x10;
    write_text(path, bytes);
    EXPECT_THROW(TokenShard{path}, Error) << i;
  }
}

TEST(TokenShard, NamesTheTokenOutsideTheVocabulary) {
  const TemporaryFolder folder;
  const std::string path = write_shard(folder / "a.tok", {1, 2, 3});
  std::string bytes = read_text(path);
  bytes[64 + 5] = 1;  // the third token becomes 259; still inside
  write_text(path, bytes);
  std::vector<int32_t> tokens(3);
  TokenShard(path).read(0, tokens);
  EXPECT_EQ(tokens[2], 259);
  EXPECT_EQ(message_of<Error>([&] { TokenShard(path).verify(); }),
            path +
                ": the tokens from offset 64 on were altered (the checksum at offset 40 does not "
                "match); write it again with tokenize");
  bytes[64 + 5] = 2;
  write_text(path, bytes);
  EXPECT_EQ(message_of<Error>([&] { TokenShard(path).read(1, std::span(tokens).first(2)); }),
            path +
                ": token 2 (offset 68) has the id 515, outside its vocabulary of 300; write it "
                "again with tokenize");
}

TEST(TokenShard, MissingFileAndFolder) {
  const TemporaryFolder folder;
  EXPECT_EQ(message_of<Error>([&] { TokenShard(folder / "none.tok"); }),
            (folder / "none.tok") + ": cannot open: No such file or directory");
  EXPECT_EQ(message_of<Error>([&] { TokenShard(folder.path()); }),
            folder.path() + ": not a regular file");
}

TEST(TokenShardWriter, LeavesNothingBehindUnlessFinished) {
  const TemporaryFolder folder;
  {
    TokenShardWriter writer(folder / "a.tok", {300, kHash});
    writer.append(std::vector<int32_t>{1, 2});
    EXPECT_TRUE(std::filesystem::exists(folder / "a.tok.partial"));
    EXPECT_FALSE(std::filesystem::exists(folder / "a.tok"));
    EXPECT_EQ(message_of<Error>([&] {
                writer.append(std::vector<int32_t>{5, 300});
              }),
              (folder / "a.tok") + ": token 3 has the id 300, outside the vocabulary of 300");
    EXPECT_THROW(writer.append(std::vector<int32_t>{-1}), Error);
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
  EXPECT_THROW(TokenShardWriter(folder / "a.tok", {300, kHash}).finish(), Error);
  EXPECT_THROW(TokenShardWriter(folder / "none/a.tok", {300, kHash}), Error);
}

TEST(TokenShardSetWriter, CutsTheStreamIntoShards) {
  const TemporaryFolder folder;
  TokenShardSetWriter writer(folder / "set", {300, kHash}, 4);
  std::vector<int32_t> tokens(10);
  std::iota(tokens.begin(), tokens.end(), 0);
  writer.append(std::span(tokens).first(3));
  writer.append(std::span(tokens).subspan(3));
  writer.finish();
  EXPECT_EQ(writer.shards(), 3);
  EXPECT_EQ(writer.tokens(), 10);
  EXPECT_EQ(TokenShard(folder / "set/shard_000000.tok").size(), 4);
  std::vector<int32_t> last(2);
  TokenShard(folder / "set/shard_000002.tok").read(0, last);
  EXPECT_EQ(last, (std::vector<int32_t>{8, 9}));
}

}  // namespace
}  // namespace sigtrain
