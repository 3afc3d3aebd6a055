#include "data/tokenizer.h"

#include "core/error.h"
#include "data/fnv.h"
#include "data/sentencepiece_tokenizer.h"

namespace sigtrain {

ByteTokenizer::ByteTokenizer() {
  Fnv64 hash;
  hash.add("bytes");
  hash.add(static_cast<uint64_t>(vocab_size()));
  hash_ = hash.value();
}

std::vector<int32_t> ByteTokenizer::encode(std::string_view text) const {
  const auto* bytes = reinterpret_cast<const uint8_t*>(text.data());
  return {bytes, bytes + text.size()};
}

std::string ByteTokenizer::decode(std::span<const int32_t> ids) const {
  std::string text;
  text.reserve(ids.size());
  for (const int32_t id : ids) {
    if (id < 0 || id >= vocab_size()) {
      throw Error("token {} is outside the vocabulary of {} ids of the tokenizer {}", id,
                  vocab_size(), name_);
    }
    if (id != eos_id()) text.push_back(static_cast<char>(id));
  }
  return text;
}

std::unique_ptr<Tokenizer> make_tokenizer(const std::string& spec) {
  if (spec == "bytes") return std::make_unique<ByteTokenizer>();
  if (spec.ends_with(".model")) return std::make_unique<SentencePieceTokenizer>(spec);
  throw UsageError("unknown tokenizer '{}': give \"bytes\" or the path of a SentencePiece .model",
                   spec);
}

}  // namespace sigtrain
