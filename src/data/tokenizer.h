// Text to token ids and back.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace sigtrain {

/// encode and decode are inverse for every valid UTF-8 text and safe to call from many threads.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  /// Ids in [0, vocab_size()), without a document separator.
  virtual std::vector<int32_t> encode(std::string_view text) const = 0;
  /// The bytes the ids stand for; eos_id() and other control ids stand for none. Ids cut inside a
  /// character give part of its bytes. Throws Error for an id outside the vocabulary.
  virtual std::string decode(std::span<const int32_t> ids) const = 0;
  virtual int64_t vocab_size() const = 0;
  /// The id that ends a document.
  virtual int32_t eos_id() const = 0;
  /// Hash of the vocabulary's content, the same on every machine; token shards carry it.
  virtual uint64_t hash() const = 0;
  /// What make_tokenizer was given.
  virtual const std::string& name() const = 0;
};

/// Ids 0 to 255 are the bytes themselves, 256 ends a document.
class ByteTokenizer : public Tokenizer {
 public:
  ByteTokenizer();
  std::vector<int32_t> encode(std::string_view text) const override;
  std::string decode(std::span<const int32_t> ids) const override;
  int64_t vocab_size() const override { return 257; }
  int32_t eos_id() const override { return 256; }
  uint64_t hash() const override { return hash_; }
  const std::string& name() const override { return name_; }

 private:
  std::string name_ = "bytes";
  uint64_t hash_;
};

/// "bytes", or the path of a SentencePiece .model file. Throws UsageError for anything else and
/// Error for a model that cannot be read or does not give text back unchanged.
std::unique_ptr<Tokenizer> make_tokenizer(const std::string& spec);

}  // namespace sigtrain
