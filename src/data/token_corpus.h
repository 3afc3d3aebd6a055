// Token shards opened together as one long sequence of tokens.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/token_shard.h"

namespace sigtrain {

/// What the ids of a corpus must fit. 0 and nothing: not checked.
struct VocabularyCheck {
  int64_t model_vocab_size = 0;            // ids must be smaller
  std::optional<uint64_t> tokenizer_hash;  // the shards must come from this tokenizer
};

/// The shards in the order given, a folder standing for its *.tok files by name; tokens run on from
/// one shard to the next. Keeps the files mapped.
class TokenCorpus {
 public:
  /// Throws UsageError if there are no paths or a folder holds no shards, and Error naming the file
  /// if a shard is damaged, or its vocabulary differs from the other shards' or fails the check.
  explicit TokenCorpus(const std::vector<std::string>& paths, const VocabularyCheck& check = {});

  int64_t size() const { return starts_.back(); }
  const Vocabulary& vocabulary() const { return shards_.front().vocabulary(); }
  const std::vector<TokenShard>& shards() const { return shards_; }
  /// Of the vocabulary and of all tokens, in their order, as the shards' headers tell of them.
  uint64_t hash() const;

  /// Copies tokens [begin, begin + out.size()) to `out`, going on at the first token after the last
  /// one. Throws Error naming file and position of an id outside the vocabulary.
  void read(int64_t begin, std::span<int32_t> out) const;

 private:
  std::vector<TokenShard> shards_;
  std::vector<int64_t> starts_;  // of each shard, and the total
};

}  // namespace sigtrain
