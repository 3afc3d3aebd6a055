// Token shards: files of token ids behind a header of 64 bytes. docs/token_shards.md describes the
// format.
#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/fnv.h"
#include "data/mapped_file.h"

namespace sigtrain {

/// The vocabulary that the ids of a shard belong to (Tokenizer::vocab_size and hash).
struct Vocabulary {
  int64_t size = 0;
  uint64_t hash = 0;
};

/// A shard opened for reading. Opening checks the header and the file's length, not every token.
class TokenShard {
 public:
  /// Throws Error naming the file and the offset if it is empty, truncated, too long, of another
  /// version, altered in its header or no shard at all.
  explicit TokenShard(const std::string& path);

  const std::string& path() const { return file_.path(); }
  const Vocabulary& vocabulary() const { return vocabulary_; }
  int64_t size() const { return size_; }
  /// Of the tokens, as the header says: only verify() compares it with them.
  uint64_t checksum() const { return checksum_; }

  /// Copies tokens [begin, begin + out.size()) to `out`. Throws Error naming the file and the
  /// position of an id outside the vocabulary.
  void read(int64_t begin, std::span<int32_t> out) const;

  /// Reads every token; throws Error if the checksum or an id is wrong.
  void verify() const;

 private:
  MappedFile file_;
  Vocabulary vocabulary_;
  int64_t size_ = 0;
  int width_ = 0;
  uint64_t checksum_ = 0;
};

/// Writes one shard under a temporary name (path + ".partial"). finish() completes the header,
/// flushes the file to the disk and renames it; without finish() the destructor removes it.
class TokenShardWriter {
 public:
  TokenShardWriter(std::string path, Vocabulary vocabulary);
  ~TokenShardWriter();
  TokenShardWriter(const TokenShardWriter&) = delete;
  TokenShardWriter& operator=(const TokenShardWriter&) = delete;

  /// Throws Error for an id outside the vocabulary or a failed write.
  void append(std::span<const int32_t> tokens);
  /// Throws Error if nothing was appended.
  void finish();
  int64_t size() const { return size_; }

 private:
  void write(const void* data, size_t bytes);

  std::string path_;
  std::string temporary_;
  Vocabulary vocabulary_;
  int width_;
  std::FILE* file_ = nullptr;
  int64_t size_ = 0;
  Fnv64 checksum_;
  std::vector<uint16_t> narrow_;
};

/// Writes a stream of tokens as FOLDER/shard_000000.tok, shard_000001.tok, ... of `shard_tokens`
/// each, the last one shorter. The folder is made if absent.
class TokenShardSetWriter {
 public:
  TokenShardSetWriter(std::filesystem::path folder, Vocabulary vocabulary, int64_t shard_tokens);

  void append(std::span<const int32_t> tokens);
  void finish();
  int64_t tokens() const { return tokens_; }
  int64_t shards() const { return shards_; }

 private:
  std::filesystem::path folder_;
  Vocabulary vocabulary_;
  int64_t shard_tokens_;
  int64_t tokens_ = 0;
  int64_t shards_ = 0;
  std::unique_ptr<TokenShardWriter> writer_;
};

}  // namespace sigtrain
