#include "data/token_corpus.h"

#include <algorithm>
#include <filesystem>

#include "core/error.h"
#include "data/fnv.h"

namespace sigtrain {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> shard_paths(const std::vector<std::string>& paths) {
  if (paths.empty()) {
    throw UsageError(
        "no token shards given: name *.tok files or folders of them; make them with "
        "build/tokenize TEXT... --output DIR");
  }
  std::vector<std::string> files;
  for (const std::string& path : paths) {
    std::error_code error;
    if (!fs::exists(path, error)) {
      throw UsageError(
          "{}: no such file or folder; make token shards with build/tokenize TEXT... --output DIR",
          path);
    }
    if (!fs::is_directory(path, error)) {
      files.push_back(path);
      continue;
    }
    std::vector<std::string> inside;
    for (const auto& entry : fs::directory_iterator(path)) {
      if (entry.path().extension() == ".tok") inside.push_back(entry.path().string());
    }
    if (inside.empty()) {
      throw UsageError(
          "{}: the folder holds no *.tok files; make them with build/tokenize TEXT... --output DIR "
          "and name DIR/train or DIR/validation",
          path);
    }
    std::sort(inside.begin(), inside.end());
    files.insert(files.end(), inside.begin(), inside.end());
  }
  return files;
}

}  // namespace

TokenCorpus::TokenCorpus(const std::vector<std::string>& paths, const VocabularyCheck& check)
    : starts_{0} {
  for (const std::string& path : shard_paths(paths)) {
    const TokenShard& shard = shards_.emplace_back(path);
    const Vocabulary& own = shard.vocabulary();
    if (own.hash != vocabulary().hash || own.size != vocabulary().size) {
      throw Error(
          "{}: the vocabulary ({} ids, hash {:016x}) is not that of {} ({} ids, hash {:016x}); "
          "tokenize both with the same tokenizer",
          path, own.size, own.hash, shards_.front().path(), vocabulary().size, vocabulary().hash);
    }
    if (check.model_vocab_size > 0 && own.size > check.model_vocab_size) {
      throw Error(
          "{}: the shard's vocabulary has {} ids, the model's only {}; set model.vocab_size to at "
          "least {} or tokenize with a smaller vocabulary",
          path, own.size, check.model_vocab_size, own.size);
    }
    if (check.tokenizer_hash && own.hash != *check.tokenizer_hash) {
      throw Error(
          "{}: the shard was made with another tokenizer (vocabulary hash {:016x}, expected "
          "{:016x}); name that tokenizer or tokenize again",
          path, own.hash, *check.tokenizer_hash);
    }
    starts_.push_back(starts_.back() + shard.size());
  }
}

uint64_t TokenCorpus::hash() const {
  Fnv64 hash;
  hash.add(vocabulary().hash);
  for (const TokenShard& shard : shards_) {
    hash.add(static_cast<uint64_t>(shard.size()));
    hash.add(shard.checksum());
  }
  return hash.value();
}

void TokenCorpus::read(int64_t begin, std::span<int32_t> out) const {
  if (begin < 0 || begin >= size()) throw Error("token {} requested of {}", begin, size());
  auto shard = static_cast<size_t>(std::upper_bound(starts_.begin(), starts_.end(), begin) -
                                   starts_.begin() - 1);
  while (!out.empty()) {
    const int64_t within = begin - starts_[shard];
    const auto part =
        out.first(std::min(out.size(), static_cast<size_t>(shards_[shard].size() - within)));
    shards_[shard].read(within, part);
    out = out.subspan(part.size());
    shard = (shard + 1) % shards_.size();
    begin = starts_[shard];
  }
}

}  // namespace sigtrain
