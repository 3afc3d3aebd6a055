#include "data/text_corpus.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <iterator>
#include <utility>

#include "core/error.h"
#include "core/philox.h"
#include "data/fnv.h"
#include "data/utf8.h"

namespace sigtrain {
namespace {

namespace fs = std::filesystem;

std::vector<Document> documents_below(const std::string& folder,
                                      const std::vector<std::string>& extensions) {
  std::vector<Document> documents;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (!entry.is_regular_file()) continue;
    const fs::path& path = entry.path();
    if (!extensions.empty() && std::find(extensions.begin(), extensions.end(),
                                         path.extension().string()) == extensions.end()) {
      continue;
    }
    documents.push_back({path.string(), path.string(),
                         path.lexically_relative(folder).generic_string(), entry.file_size()});
  }
  if (documents.empty()) {
    throw UsageError(
        "{}: the folder holds no files ending in {}; name other --extensions", folder,
        extensions.empty() ? "anything" : fmt::format("{}", fmt::join(extensions, ", ")));
  }
  std::sort(documents.begin(), documents.end(),
            [](const Document& a, const Document& b) { return a.key < b.key; });
  return documents;
}

/// Uniform in [0, 1), from the document's key alone.
double position_of(const Document& document) {
  Fnv64 hash;
  hash.add(document.key);
  // FNV leaves short keys unevenly spread; Philox mixes them.
  return uniform_from_bits(philox(0, hash.value(), 0).words[0]);
}

/// The last end of a line at or before `position`, or the end of a character where the line is
/// longer than the bytes looked at.
uint64_t cut_at_line(const Document& document, uint64_t position) {
  constexpr uint64_t kLookBack = uint64_t{1} << 20;
  const uint64_t begin = position - std::min(position, kLookBack);
  std::string before;
  TextReader({document, begin, position}, kLookBack).next(before);
  const size_t newline = before.rfind('\n');
  return begin + (newline != before.npos ? newline + 1 : whole_characters(before));
}

}  // namespace

std::vector<Document> find_documents(const std::vector<std::string>& inputs,
                                     const std::vector<std::string>& extensions) {
  std::vector<Document> documents;
  for (const std::string& input : inputs) {
    std::error_code error;
    const fs::file_status status = fs::status(input, error);
    if (fs::is_directory(status)) {
      auto inside = documents_below(input, extensions);
      std::move(inside.begin(), inside.end(), std::back_inserter(documents));
    } else if (fs::is_regular_file(status)) {
      documents.push_back(
          {input, input, fs::path(input).filename().string(), fs::file_size(input)});
    } else if (fs::exists(status)) {
      throw UsageError("{}: neither a file nor a folder; give - to read standard input", input);
    } else {
      throw UsageError("{}: no such file or folder", input);
    }
  }
  return documents;
}

void check_document(const Document& document) {
  if (document.bytes == 0) throw Error("{}: empty file (byte 0)", document.label);
  TextReader reader({document, 0, document.bytes});
  std::string piece;
  for (uint64_t begin = 0; reader.next(piece); begin = reader.offset()) {
    require_utf8(piece, document.label, begin);
  }
}

CorpusSplit split_documents(const std::vector<Document>& documents, double validation_fraction) {
  if (!(validation_fraction >= 0 && validation_fraction < 1)) {
    throw UsageError("a validation fraction of {} is impossible: give one in [0, 1)",
                     validation_fraction);
  }
  CorpusSplit split;
  for (const Document& document : documents) {
    auto& side = position_of(document) < validation_fraction ? split.validation : split.train;
    side.push_back({document, 0, document.bytes});
  }
  if (validation_fraction == 0 || (!split.train.empty() && !split.validation.empty())) return split;
  split = {{}, {}, false};
  for (const Document& document : documents) {
    const auto kept = static_cast<uint64_t>(
        std::floor(static_cast<double>(document.bytes) * (1 - validation_fraction)));
    const uint64_t cut = cut_at_line(document, kept);
    if (cut > 0) split.train.push_back({document, 0, cut});
    if (cut < document.bytes) split.validation.push_back({document, cut, document.bytes});
  }
  if (split.train.empty() || split.validation.empty()) {
    throw UsageError("there is too little text to set {:g} of it aside for validation",
                     validation_fraction);
  }
  return split;
}

TextReader::TextReader(const TextRange& range, size_t piece_bytes)
    : label_(range.document.label),
      file_(range.document.path, std::ios::binary),
      offset_(range.begin),
      end_(range.end),
      piece_bytes_(piece_bytes) {
  if (!file_ || !file_.seekg(static_cast<std::streamoff>(range.begin))) {
    throw Error("{}: cannot open for reading", label_);
  }
}

bool TextReader::next(std::string& piece) {
  if (offset_ == end_) return false;
  piece.swap(carry_);
  carry_.clear();
  const size_t have = piece.size();
  const size_t want = static_cast<size_t>(std::min<uint64_t>(piece_bytes_, end_ - offset_));
  piece.resize(want);
  file_.read(piece.data() + have, static_cast<std::streamsize>(want - have));
  if (static_cast<size_t>(file_.gcount()) != want - have) {
    throw Error("{}: cannot read beyond byte {}, expected {} bytes", label_,
                offset_ + have + static_cast<uint64_t>(file_.gcount()), end_);
  }
  if (offset_ + want < end_) {
    const size_t newline = piece.rfind('\n');
    const size_t cut = newline != piece.npos ? newline + 1 : whole_characters(piece);
    carry_.assign(piece, cut);
    piece.resize(cut);
  }
  offset_ += piece.size();
  return true;
}

}  // namespace sigtrain
