#include "data/corpus_encoder.h"

#include <exception>
#include <string>
#include <string_view>
#include <utility>

#include "data/utf8.h"

namespace sigtrain {
namespace {

// A thread's share at a time: large against the cost of handing it out, small against a piece.
constexpr size_t kSegmentBytes = size_t{128} << 10;

struct Segment {
  std::string_view text;
  bool ends_document = false;
};

/// Collects text and writes its tokens in the order it came.
class BatchEncoder {
 public:
  BatchEncoder(const Tokenizer& tokenizer, TokenShardSetWriter& writer)
      : tokenizer_(tokenizer), writer_(writer) {}

  void add(std::string text, bool ends_document) {
    bytes_ += text.size();
    texts_.push_back({std::move(text), ends_document});
    if (bytes_ >= TextReader::kPieceBytes) flush();
  }

  void flush() {
    std::vector<Segment> segments;
    for (const auto& [text, ends_document] : texts_) cut(text, ends_document, segments);
    std::vector<std::vector<int32_t>> tokens(segments.size());
    std::exception_ptr error;
#pragma omp parallel for schedule(dynamic)
    for (size_t i = 0; i < segments.size(); ++i) {
      try {
        tokens[i] = tokenizer_.encode(segments[i].text);
        if (segments[i].ends_document) tokens[i].push_back(tokenizer_.eos_id());
      } catch (...) {
#pragma omp critical
        error = std::current_exception();
      }
    }
    if (error) std::rethrow_exception(error);
    for (const auto& part : tokens) writer_.append(part);
    texts_.clear();
    bytes_ = 0;
  }

 private:
  /// Cuts at ends of lines alone, where every tokenizer may be cut.
  static void cut(std::string_view text, bool ends_document, std::vector<Segment>& segments) {
    while (text.size() > kSegmentBytes) {
      const size_t newline = text.find('\n', kSegmentBytes - 1);
      if (newline == text.npos || newline + 1 == text.size()) break;
      segments.push_back({text.substr(0, newline + 1), false});
      text.remove_prefix(newline + 1);
    }
    segments.push_back({text, ends_document});
  }

  const Tokenizer& tokenizer_;
  TokenShardSetWriter& writer_;
  std::vector<std::pair<std::string, bool>> texts_;
  size_t bytes_ = 0;
};

}  // namespace

void encode_corpus(const std::vector<TextRange>& ranges, const Tokenizer& tokenizer,
                   TokenShardSetWriter& writer) {
  BatchEncoder encoder(tokenizer, writer);
  for (const TextRange& range : ranges) {
    TextReader reader(range);
    std::string piece;
    for (uint64_t begin = reader.offset(); reader.next(piece); begin = reader.offset()) {
      require_utf8(piece, range.document.label, begin);
      encoder.add(std::move(piece), reader.offset() == range.end);
    }
  }
  encoder.flush();
  writer.finish();
}

}  // namespace sigtrain
