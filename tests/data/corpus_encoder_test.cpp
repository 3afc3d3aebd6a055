#include "data/corpus_encoder.h"

#include <gtest/gtest.h>
#include <omp.h>

#include "core/error.h"
#include "data/token_corpus.h"
#include "temporary_folder.h"

namespace sigtrain {
namespace {

TEST(EncodeCorpus, GivesTheSameTokensOnAnyNumberOfThreads) {
  const TemporaryFolder folder;
  // Long enough for several segments and more than one piece.
  std::string long_text;
  while (long_text.size() < TextReader::kPieceBytes + 1000) long_text += "a line of some length\n";
  write_text(folder / "a", long_text);
  write_text(folder / "b", "short");
  const std::vector<TextRange> ranges = {
      {{folder / "a", "a", "a", long_text.size()}, 0, long_text.size()},
      {{folder / "b", "b", "b", 5}, 1, 4}};
  const ByteTokenizer tokenizer;
  const int threads = omp_get_max_threads();
  for (const int count : {1, 4}) {
    omp_set_num_threads(count);
    const std::string out = folder / std::to_string(count);
    TokenShardSetWriter writer(out, {tokenizer.vocab_size(), tokenizer.hash()}, 1 << 30);
    encode_corpus(ranges, tokenizer, writer);
    const TokenCorpus corpus({out});
    std::vector<int32_t> tokens(static_cast<size_t>(corpus.size()));
    corpus.read(0, tokens);
    ASSERT_EQ(tokens.size(), long_text.size() + 1 + 3 + 1);
    EXPECT_EQ(tokens[long_text.size()], tokenizer.eos_id());
    EXPECT_EQ(tokens.back(), tokenizer.eos_id());
    EXPECT_EQ(tokenizer.decode(tokens), long_text + "hor");
  }
  omp_set_num_threads(threads);
}

TEST(EncodeCorpus, NamesTheDocumentAndOffset) {
  const TemporaryFolder folder;
  write_text(folder / "a", "abc\xFF");
  const ByteTokenizer tokenizer;
  TokenShardSetWriter writer(folder / "out", {tokenizer.vocab_size(), tokenizer.hash()}, 100);
  EXPECT_EQ(message_of<Error>([&] {
              encode_corpus({{{folder / "a", "notes", "a", 4}, 1, 4}}, tokenizer, writer);
            }),
            "notes: byte 3: 0xFF is not valid UTF-8 (above U+10FFFF); convert the text to UTF-8");
}

}  // namespace
}  // namespace sigtrain
