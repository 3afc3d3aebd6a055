#include "data/sentencepiece_tokenizer.h"

#include <sentencepiece_processor.h>

#include <bit>
#include <cstddef>
#include <fstream>
#include <iterator>
#include <utility>

#include "core/error.h"
#include "data/fnv.h"
#include "data/utf8.h"

namespace sigtrain {
namespace {

constexpr std::string_view kSpaceSymbol = "\xE2\x96\x81";

// Runs of spaces, newlines, a tab, a compatibility ligature, a decomposed accent, the space symbol
// itself and a character that no vocabulary holds: what normalising models change.
constexpr std::string_view kProbe =
    "a  b\n\n\tc \xEF\xAC\x81 e\xCC\x81 \xE2\x96\x81 \xF4\x8F\xBF\xBD  ";

std::string read_model(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Error("{}: cannot open the tokenizer model", path);
  std::string model{std::istreambuf_iterator<char>(file), {}};
  if (file.bad()) throw Error("{}: cannot read the tokenizer model", path);
  return model;
}

std::string with_spaces(std::string_view piece) {
  std::string text;
  for (size_t at; (at = piece.find(kSpaceSymbol)) != piece.npos;) {
    text.append(piece.substr(0, at)).push_back(' ');
    piece.remove_prefix(at + kSpaceSymbol.size());
  }
  return text.append(piece);
}

}  // namespace

SentencePieceTokenizer::SentencePieceTokenizer(const std::string& path)
    : SentencePieceTokenizer(path, read_model(path)) {}

SentencePieceTokenizer::SentencePieceTokenizer(std::string name, std::string_view model)
    : name_(std::move(name)),
      processor_(std::make_unique<sentencepiece::SentencePieceProcessor>()) {
  if (model.empty()) throw Error("{}: the tokenizer model is empty (offset 0)", name_);
  const auto status = processor_->LoadFromSerializedProto(model);
  if (!status.ok()) {
    throw Error("{}: not a SentencePiece model ({})", name_, status.ToString());
  }
  eos_id_ = processor_->eos_id();
  if (eos_id_ < 0) {
    throw Error(
        "{}: the model has no end-of-sentence piece to separate documents with; train it "
        "with one (tokenize --train-bpe)",
        name_);
  }
  byte_ids_.fill(-1);
  const int size = processor_->GetPieceSize();
  pieces_.reserve(static_cast<size_t>(size));
  Fnv64 hash;
  hash.add("sentencepiece");
  for (int id = 0; id < size; ++id) {
    const std::string& piece = processor_->IdToPiece(id);
    const bool is_byte = processor_->IsByte(id);
    const bool is_control = processor_->IsControl(id);
    const bool is_unknown = processor_->IsUnknown(id);
    hash.add(static_cast<uint64_t>(piece.size()));
    hash.add(piece);
    hash.add(static_cast<uint64_t>(std::bit_cast<uint32_t>(processor_->GetScore(id))));
    hash.add(static_cast<uint64_t>(is_byte * 4 + is_control * 2 + is_unknown));
    if (is_byte) {
      // A byte piece is spelled <0xNN>.
      const int byte = std::stoi(piece.substr(3, 2), nullptr, 16);
      byte_ids_[static_cast<size_t>(byte)] = id;
      pieces_.emplace_back(1, static_cast<char>(byte));
    } else if (is_control) {
      pieces_.emplace_back();
    } else {
      pieces_.push_back(is_unknown ? std::string("\xEF\xBF\xBD") : with_spaces(piece));
    }
  }
  hash_ = hash.value();
  for (const int32_t id : byte_ids_) {
    if (id < 0) {
      throw Error(
          "{}: the model has no byte pieces, so rare characters would be lost; train it "
          "with byte fallback (tokenize --train-bpe)",
          name_);
    }
  }
  if (decode(encode(kProbe)) != kProbe) {
    throw Error(
        "{}: the model normalises text or adds a space in front of it, so the text would "
        "not come back unchanged; train one that does not (tokenize --train-bpe)",
        name_);
  }
}

SentencePieceTokenizer::~SentencePieceTokenizer() = default;

void SentencePieceTokenizer::encode_span(std::string_view text, std::vector<int32_t>& ids) const {
  if (text.empty()) return;
  std::vector<int> found;
  const auto status = processor_->Encode(text, &found);
  if (!status.ok()) throw Error("{}: cannot encode text ({})", name_, status.ToString());
  ids.insert(ids.end(), found.begin(), found.end());
}

std::vector<int32_t> SentencePieceTokenizer::encode(std::string_view text) const {
  require_utf8(text, "text for the tokenizer " + name_);
  std::vector<int32_t> ids;
  ids.reserve(text.size() / 3);
  while (!text.empty()) {
    const size_t newline = text.find('\n');
    std::string_view line = text.substr(0, newline == text.npos ? text.npos : newline + 1);
    text.remove_prefix(line.size());
    for (size_t at; (at = line.find(kSpaceSymbol)) != line.npos;) {
      encode_span(line.substr(0, at), ids);
      for (const char c : kSpaceSymbol) ids.push_back(byte_ids_[static_cast<uint8_t>(c)]);
      line.remove_prefix(at + kSpaceSymbol.size());
    }
    encode_span(line, ids);
  }
  return ids;
}

std::string SentencePieceTokenizer::decode(std::span<const int32_t> ids) const {
  std::string text;
  for (const int32_t id : ids) {
    if (id < 0 || id >= vocab_size()) {
      throw Error("token {} is outside the vocabulary of {} ids of the tokenizer {}", id,
                  vocab_size(), name_);
    }
    text += pieces_[static_cast<size_t>(id)];
  }
  return text;
}

}  // namespace sigtrain
