#include "data/text_corpus.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "core/error.h"
#include "temporary_folder.h"

namespace sigtrain {
namespace {

using testing::HasSubstr;

Document document(const TemporaryFolder& folder, const std::string& name, std::string_view text) {
  write_text(folder / name, text);
  return {folder / name, name, name, text.size()};
}

std::vector<std::string> pieces_of(const TextRange& range, size_t piece_bytes) {
  TextReader reader(range, piece_bytes);
  std::vector<std::string> pieces;
  uint64_t at = range.begin;
  for (std::string piece; reader.next(piece);) {
    at += piece.size();
    EXPECT_EQ(reader.offset(), at);
    pieces.push_back(piece);
  }
  return pieces;
}

TEST(TextReader, CutsAtLinesElseBetweenCharacters) {
  const TemporaryFolder folder;
  const Document d =
      document(folder, "a", "ab\ncd\nefghijklm\n\xE2\x82\xAC\xE2\x82\xAC\xE2\x82\xACx");
  EXPECT_EQ(pieces_of({d, 0, d.bytes}, 7),
            (std::vector<std::string>{"ab\ncd\n", "efghijk", "lm\n", "\xE2\x82\xAC\xE2\x82\xAC",
                                      "\xE2\x82\xACx"}));
  EXPECT_EQ(pieces_of({d, 3, 8}, 7), (std::vector<std::string>{"cd\nef"}));
  EXPECT_EQ(pieces_of({d, 0, d.bytes}, 1000).size(), 1u);
}

TEST(TextReader, ReportsAFileThatShrank) {
  const TemporaryFolder folder;
  Document d = document(folder, "a", "abc");
  d.bytes = 10;
  TextReader reader({d, 0, 10});
  std::string piece;
  EXPECT_EQ(message_of<Error>([&] { reader.next(piece); }),
            "a: cannot read beyond byte 3, expected 10 bytes");
}

TEST(CheckDocument, NamesFileAndOffset) {
  const TemporaryFolder folder;
  EXPECT_EQ(message_of<Error>([&] { check_document(document(folder, "empty.txt", "")); }),
            "empty.txt: empty file (byte 0)");
  EXPECT_THAT(message_of<Error>([&] { check_document(document(folder, "bad.txt", "ab\n\xFF")); }),
              HasSubstr("bad.txt: byte 3: 0xFF is not valid UTF-8"));
  std::string long_text(TextReader::kPieceBytes + 10, 'x');
  long_text[TextReader::kPieceBytes + 5] = '\xC0';
  EXPECT_THAT(message_of<Error>([&] { check_document(document(folder, "long.txt", long_text)); }),
              HasSubstr("long.txt: byte 16777221: 0xC0"));
  check_document(document(folder, "good.txt", "gr\xC3\xBC\xC3\x9F"));
}

TEST(FindDocuments, SortsFoldersAndFiltersByExtension) {
  const TemporaryFolder folder;
  for (const char* name : {"b.txt", "a/z.txt", "a/y.md", "c.bin", "a/b/x.txt"}) {
    write_text(folder / fmt::format("in/{}", name), "text");
  }
  write_text(folder / "own.bin", "text");
  std::vector<std::string> keys;
  for (const auto& d : find_documents({folder / "own.bin", folder / "in"}, {".txt", ".md"})) {
    keys.push_back(d.key);
    EXPECT_EQ(d.bytes, 4u);
  }
  EXPECT_EQ(keys, (std::vector<std::string>{"own.bin", "a/b/x.txt", "a/y.md", "a/z.txt", "b.txt"}));
  EXPECT_EQ(find_documents({folder / "in"}, {}).size(), 5u);
  EXPECT_THAT(message_of<UsageError>([&] { find_documents({folder / "in"}, {".rst"}); }),
              HasSubstr("the folder holds no files ending in .rst"));
  EXPECT_THAT(message_of<UsageError>([&] { find_documents({folder / "absent"}, {}); }),
              HasSubstr("absent: no such file or folder"));
  EXPECT_THAT(message_of<UsageError>([&] { find_documents({"/dev/null"}, {}); }),
              HasSubstr("/dev/null: neither a file nor a folder"));
}

TEST(SplitDocuments, ADocumentStaysOnItsSide) {
  std::vector<Document> documents;
  for (int i = 0; i < 1000; ++i) {
    const std::string key = fmt::format("{}.txt", i);
    documents.push_back({key, key, key, 10});
  }
  const CorpusSplit split = split_documents(documents, 0.1);
  EXPECT_TRUE(split.by_document);
  EXPECT_NEAR(split.validation.size(), 100, 40);
  EXPECT_EQ(split.train.size() + split.validation.size(), 1000u);
  std::set<std::string> train;
  for (const TextRange& range : split.train) train.insert(range.document.key);
  documents.erase(documents.begin(), documents.begin() + 500);
  for (const TextRange& range : split_documents(documents, 0.1).train) {
    EXPECT_TRUE(train.count(range.document.key)) << range.document.key;
  }
}

TEST(SplitDocuments, TakesTheEndOfAFewDocuments) {
  const TemporaryFolder folder;
  const Document lines = document(folder, "lines", "aaaa\nbbbb\ncccc\ndddd\n");
  const CorpusSplit split = split_documents({lines}, 0.4);
  EXPECT_FALSE(split.by_document);
  EXPECT_EQ(split.train.at(0).end, 10u);
  EXPECT_EQ(split.validation.at(0).begin, 10u);
  EXPECT_EQ(split.validation.at(0).end, 20u);
  const Document one_line = document(folder, "line", "\xE2\x82\xAC\xE2\x82\xAC\xE2\x82\xAC");
  EXPECT_EQ(split_documents({one_line}, 0.5).train.at(0).end, 3u);
  EXPECT_THAT(message_of<UsageError>([&] { split_documents({document(folder, "x", "x")}, 0.5); }),
              HasSubstr("too little text"));
  EXPECT_EQ(split_documents({lines}, 0).train.at(0).end, 20u);
  EXPECT_TRUE(split_documents({lines}, 0).validation.empty());
  for (const double bad : {-0.1, 1.0, 2.0}) EXPECT_THROW(split_documents({lines}, bad), UsageError);
}

}  // namespace
}  // namespace sigtrain
