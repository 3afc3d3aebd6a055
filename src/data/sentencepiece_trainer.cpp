#include "data/sentencepiece_trainer.h"

#include <sentencepiece_trainer.h>

#include <unordered_map>
#include <utility>

#include "core/error.h"
#include "core/philox.h"
#include "data/utf8.h"

namespace sigtrain {
namespace {

// The library passes over sentences longer than its limit. Cutting at spaces loses nothing, since
// no piece spans a space.
constexpr size_t kMaxSentenceBytes = 4096;
constexpr int64_t kFixedPieces = 2 + 256;

class Sentences : public sentencepiece::SentenceIterator {
 public:
  explicit Sentences(const std::vector<std::string>& sentences) : sentences_(sentences) {}
  bool done() const override { return next_ == sentences_.size(); }
  void Next() override { ++next_; }
  const std::string& value() const override { return sentences_[next_]; }
  sentencepiece::util::Status status() const override { return {}; }

 private:
  const std::vector<std::string>& sentences_;
  size_t next_ = 0;
};

/// Where to cut a sentence that is too long: before its last space, else between two characters.
size_t cut_of(std::string_view sentence) {
  if (sentence.size() <= kMaxSentenceBytes) return sentence.size();
  const size_t space = sentence.rfind(' ', kMaxSentenceBytes);
  if (space != sentence.npos && space > 0) return space;
  return whole_characters(sentence.substr(0, kMaxSentenceBytes));
}

/// The library's message without its source line in front and its own program's flags behind.
std::string message_of(const sentencepiece::util::Status& status) {
  std::string text = status.ToString();
  if (const size_t end = text.rfind("] "); end != text.npos) text.erase(0, end + 2);
  if (const size_t advice = text.find(" Increase vocab_size"); advice != text.npos) {
    text.erase(advice);
  }
  return text;
}

}  // namespace

SentencePieceTrainer::SentencePieceTrainer(uint64_t total_bytes, uint64_t max_bytes)
    : total_bytes_(total_bytes), max_bytes_(max_bytes) {}

void SentencePieceTrainer::add(std::string_view text) {
  while (!text.empty()) {
    const size_t newline = text.find('\n');
    const std::string_view line = text.substr(0, newline);
    text.remove_prefix(newline == text.npos ? text.size() : newline + 1);
    const uint64_t number = lines_seen_++;
    if (total_bytes_ > max_bytes_) {
      const double share = static_cast<double>(max_bytes_) / static_cast<double>(total_bytes_);
      if (uniform_from_bits(philox(0, number, 0).words[0]) >= share) continue;
    }
    add_line(line);
  }
}

void SentencePieceTrainer::add_line(std::string_view line) {
  // The trainer reserves the tab and U+2585 and passes over a sentence that holds one, and NUL ends
  // its strings: the text between them is kept.
  const auto reserved = [](std::string_view text) {
    size_t at = text.find_first_of(std::string_view("\t\0", 2)), length = 1;
    if (const size_t block = text.find("\xE2\x96\x85"); block < at) at = block, length = 3;
    return std::pair{at, length};
  };
  while (!line.empty()) {
    const auto [at, length] = reserved(line);
    std::string_view part = line.substr(0, at);
    line.remove_prefix(at == line.npos ? line.size() : at + length);
    while (!part.empty()) {
      const size_t cut = cut_of(part);
      sentences_.emplace_back(part.substr(0, cut));
      part.remove_prefix(cut);
    }
  }
}

std::string SentencePieceTrainer::train(int64_t vocab_size) const {
  if (vocab_size <= kFixedPieces || vocab_size > (int64_t{1} << 24)) {
    throw UsageError("a vocabulary of {} pieces is impossible: give from {} to {}", vocab_size,
                     kFixedPieces + 1, int64_t{1} << 24);
  }
  if (sentences_.empty()) throw UsageError("there is no text to train a vocabulary on");
  const std::unordered_map<std::string, std::string> options = {
      {"model_type", "bpe"},
      {"vocab_size", std::to_string(vocab_size)},
      {"normalization_rule_name", "identity"},
      {"remove_extra_whitespaces", "false"},
      {"add_dummy_prefix", "false"},
      {"allow_whitespace_only_pieces", "true"},
      {"byte_fallback", "true"},
      {"character_coverage", "0.9995"},
      {"unk_id", "0"},
      {"eos_id", "1"},
      {"bos_id", "-1"},
      {"pad_id", "-1"},
      {"input_sentence_size", "0"},
      {"shuffle_input_sentence", "false"},
      // A space becomes three bytes inside the library.
      {"max_sentence_length", std::to_string(3 * kMaxSentenceBytes)},
      {"hard_vocab_limit", "true"},
      {"minloglevel", "2"},
  };
  Sentences sentences(sentences_);
  std::string model;
  const auto status = sentencepiece::SentencePieceTrainer::Train(options, &sentences, &model);
  if (!status.ok()) {
    throw UsageError(
        "cannot train a vocabulary of {} pieces on this text; choose another size or give more "
        "text: {}",
        vocab_size, message_of(status));
  }
  return model;
}

}  // namespace sigtrain
