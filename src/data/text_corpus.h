// Text documents on disk: which they are, how they are split, and how they are read piece by piece.
#pragma once

#include <cstddef>
#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

namespace sigtrain {

/// One file of text.
struct Document {
  std::string path;
  std::string label;  // what messages call it
  std::string key;    // path below the folder it was found in, which decides its split
  uint64_t bytes = 0;
};

/// Bytes [begin, end) of a document.
struct TextRange {
  Document document;
  uint64_t begin = 0;
  uint64_t end = 0;
};

/// The documents that `inputs` name, in that order: a file is one document, a folder stands for all
/// files below it, sorted, whose extension is among `extensions` (".txt"; empty: any). Throws
/// UsageError for an input that does not exist and a folder without such files.
std::vector<Document> find_documents(const std::vector<std::string>& inputs,
                                     const std::vector<std::string>& extensions);

/// Throws Error naming the document and the byte offset if it is empty, cannot be read or is not
/// valid UTF-8. Reads it in pieces.
void check_document(const Document& document);

struct CorpusSplit {
  std::vector<TextRange> train;
  std::vector<TextRange> validation;
  bool by_document = true;  // false: the last part of every document is for validation
};

/// Sets about `validation_fraction` (in [0, 1)) of the text aside. Whole documents, chosen by a
/// hash of their keys, so that a document stays on its side as others come and go; where that would
/// leave a side empty, the end of every document, cut at the end of a line. Throws UsageError if
/// there is too little text even for that.
CorpusSplit split_documents(const std::vector<Document>& documents, double validation_fraction);

/// Reads a range in pieces of at most `piece_bytes` (at least 4) that end where a line ends; a line
/// longer than that is cut between two characters.
class TextReader {
 public:
  static constexpr size_t kPieceBytes = size_t{16} << 20;

  /// Throws Error if the file cannot be opened.
  explicit TextReader(const TextRange& range, size_t piece_bytes = kPieceBytes);

  /// The next piece into `piece`; false at the end of the range. Throws Error naming file and
  /// offset if the file is shorter than the range.
  bool next(std::string& piece);
  /// Where in the file the piece after the last one begins.
  uint64_t offset() const { return offset_; }

 private:
  std::string label_;
  std::ifstream file_;
  uint64_t offset_;
  uint64_t end_;
  size_t piece_bytes_;
  std::string carry_;  // read, but after the end of the last piece
};

}  // namespace sigtrain
