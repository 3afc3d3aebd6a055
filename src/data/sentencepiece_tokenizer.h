// The tokenizer of a SentencePiece model (Kudo and Richardson, "SentencePiece", EMNLP 2018).
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizer.h"

namespace sentencepiece {
class SentencePieceProcessor;
}

namespace sigtrain {

/// Lines are encoded one by one, each with its newline, so a text may be cut after any newline and
/// encoded in parts. U+2581, which SentencePiece uses for the space, is encoded as its bytes.
class SentencePieceTokenizer : public Tokenizer {
 public:
  /// Throws Error if the file cannot be read, is no model, lacks byte pieces or an end-of-sentence
  /// piece, or normalises text (then decode could not give the text back).
  explicit SentencePieceTokenizer(const std::string& path);
  /// The model's bytes, as train_bpe returns them; `name` stands in messages.
  SentencePieceTokenizer(std::string name, std::string_view model);
  ~SentencePieceTokenizer() override;

  /// Throws Error naming the byte offset if `text` is not valid UTF-8.
  std::vector<int32_t> encode(std::string_view text) const override;
  std::string decode(std::span<const int32_t> ids) const override;
  int64_t vocab_size() const override { return static_cast<int64_t>(pieces_.size()); }
  int32_t eos_id() const override { return eos_id_; }
  uint64_t hash() const override { return hash_; }
  const std::string& name() const override { return name_; }

 private:
  void encode_span(std::string_view text, std::vector<int32_t>& ids) const;

  std::string name_;
  std::unique_ptr<sentencepiece::SentencePieceProcessor> processor_;
  std::vector<std::string> pieces_;  // the bytes each id stands for
  std::array<int32_t, 256> byte_ids_{};
  int32_t eos_id_ = -1;
  uint64_t hash_ = 0;
};

}  // namespace sigtrain
