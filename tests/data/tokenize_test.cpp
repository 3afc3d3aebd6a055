// The tokenize program from its command line to the shards it leaves.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <array>
#include <cstdio>

#include "core/error.h"
#include "data/token_corpus.h"
#include "data/tokenizer.h"
#include "temporary_folder.h"

namespace sigtrain {
namespace {

using testing::HasSubstr;

struct Result {
  int exit_code;
  std::string output;  // both streams
};

Result run(const std::string& arguments, const std::string& before = "") {
  const std::string command = before + SIGTRAIN_BINARY_DIR "/tokenize " + arguments + " 2>&1";
  std::FILE* pipe = ::popen(command.c_str(), "r");
  if (pipe == nullptr) throw std::runtime_error("cannot run " + command);
  Result result;
  std::array<char, 4096> buffer;
  while (const size_t count = std::fread(buffer.data(), 1, buffer.size(), pipe)) {
    result.output.append(buffer.data(), count);
  }
  const int status = ::pclose(pipe);
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return result;
}

std::string decoded(const std::string& shards, const Tokenizer& tokenizer) {
  const TokenCorpus corpus({shards}, {tokenizer.vocab_size(), tokenizer.hash()});
  std::vector<int32_t> tokens(static_cast<size_t>(corpus.size()));
  corpus.read(0, tokens);
  EXPECT_EQ(tokens.back(), tokenizer.eos_id());
  return tokenizer.decode(tokens);
}

std::string lines(int count, const std::string& word) {
  std::string text;
  for (int i = 0; i < count; ++i) text += fmt::format("{} number {}  with  spaces\n", word, i);
  return text;
}

TEST(Tokenize, SplitsASingleDocumentNearItsEnd) {
  const TemporaryFolder folder;
  const std::string text = lines(200, "gr\xC3\xBCn");
  write_text(folder / "a.txt", text);
  const Result result = run(folder / "a.txt" + " --shard-tokens 1000 --output " + (folder / "out"));
  ASSERT_EQ(result.exit_code, 0) << result.output;
  EXPECT_THAT(result.output, HasSubstr("validation is the last 5% of each document"));
  const ByteTokenizer tokenizer;
  const std::string train = decoded(folder / "out/train", tokenizer);
  const std::string validation = decoded(folder / "out/validation", tokenizer);
  EXPECT_EQ(train + validation, text);
  EXPECT_EQ(train.back(), '\n');
  EXPECT_NEAR(static_cast<double>(validation.size()), 0.05 * static_cast<double>(text.size()), 40);
  EXPECT_THAT(result.output, HasSubstr(fmt::format("train: 1 documents, {} bytes, {} tokens",
                                                   train.size(), train.size() + 1)));
  EXPECT_TRUE(std::filesystem::exists(folder / "out/train/shard_000001.tok"));
  EXPECT_FALSE(std::filesystem::exists(folder / "out/tokenizer.model"));
}

TEST(Tokenize, TrainsAVocabularyOnManyDocuments) {
  const TemporaryFolder folder;
  size_t bytes = 0;
  for (int i = 0; i < 100; ++i) {
    const std::string text = lines(10 + i % 5, fmt::format("document {}", i));
    bytes += text.size();
    write_text(folder / fmt::format("in/{:02}/{}.txt", i % 10, i), text);
  }
  const std::string arguments = (folder / "in") + " --train-bpe 300 --output ";
  const Result result = run(arguments + (folder / "out"));
  ASSERT_EQ(result.exit_code, 0) << result.output;
  EXPECT_THAT(result.output, HasSubstr("vocabulary of 300"));
  const auto tokenizer = make_tokenizer(folder / "out/tokenizer.model");
  const std::string train = decoded(folder / "out/train", *tokenizer);
  const std::string validation = decoded(folder / "out/validation", *tokenizer);
  EXPECT_EQ(train.size() + validation.size(), bytes);
  EXPECT_GT(validation.size(), 0u);

  // Again, on another number of threads: every file the same.
  ASSERT_EQ(run(arguments + (folder / "again"), "OMP_NUM_THREADS=3 ").exit_code, 0);
  for (const char* name :
       {"tokenizer.model", "train/shard_000000.tok", "validation/shard_000000.tok"}) {
    EXPECT_EQ(read_text(folder / fmt::format("out/{}", name)),
              read_text(folder / fmt::format("again/{}", name)))
        << name;
  }

  // The model made there serves for other text.
  write_text(folder / "b.txt", lines(100, "other"));
  ASSERT_EQ(run(folder / "b.txt" + " --tokenizer " + (folder / "out/tokenizer.model") +
                " --validation-fraction 0 --output " + (folder / "b"))
                .exit_code,
            0);
  EXPECT_EQ(decoded(folder / "b/train", *tokenizer), lines(100, "other"));
  EXPECT_FALSE(std::filesystem::exists(folder / "b/validation"));
  EXPECT_EQ(read_text(folder / "b/tokenizer.model"), read_text(folder / "out/tokenizer.model"));
}

TEST(Tokenize, ReadsStandardInput) {
  const TemporaryFolder folder;
  const std::string text = lines(50, "piped");
  write_text(folder / "a.txt", text);
  const Result result = run("- --validation-fraction 0 --output " + (folder / "out"),
                            "cat " + (folder / "a.txt") + " | ");
  ASSERT_EQ(result.exit_code, 0) << result.output;
  EXPECT_EQ(decoded(folder / "out/train", ByteTokenizer()), text);
  EXPECT_FALSE(std::filesystem::exists(folder / "out/stdin.partial"));
  const Result empty = run("- --output " + (folder / "empty"), "printf '' | ");
  EXPECT_EQ(empty.exit_code, 1);
  EXPECT_THAT(empty.output, HasSubstr("standard input: empty file (byte 0)"));
}

TEST(Tokenize, StopsAtBadTextOrLeavesItOut) {
  const TemporaryFolder folder;
  write_text(folder / "in/a.txt", lines(50, "good"));
  write_text(folder / "in/b.txt", "bad \xC3(");
  const std::string arguments = (folder / "in") + " --output " + (folder / "out");
  Result result = run(arguments);
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.output, HasSubstr("in/b.txt: byte 5: 0x28 is not valid UTF-8"));
  EXPECT_FALSE(std::filesystem::exists(folder / "out/train"));
  write_text(folder / "in/a0.txt", "");
  result = run(arguments);
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.output, HasSubstr("in/a0.txt: empty file (byte 0)"));
  result = run(arguments + " --skip-bad");
  EXPECT_EQ(result.exit_code, 0) << result.output;
  EXPECT_THAT(result.output, HasSubstr("skipped 2 of 3 documents"));
  EXPECT_THAT(result.output, HasSubstr("skipped " + (folder / "in/a0.txt")));
  EXPECT_EQ(decoded(folder / "out/train", ByteTokenizer()) +
                decoded(folder / "out/validation", ByteTokenizer()),
            lines(50, "good"));
  result = run(folder / "in/b.txt" + " --skip-bad --output " + (folder / "none"));
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.output, HasSubstr("no document is left"));
}

TEST(Tokenize, ChecksShards) {
  const TemporaryFolder folder;
  write_text(folder / "a.txt", lines(50, "word"));
  ASSERT_EQ(run(folder / "a.txt" + " --output " + (folder / "out")).exit_code, 0);
  const std::string arguments = "--check " + (folder / "out/train");
  EXPECT_THAT(run(arguments).output, HasSubstr("all checksums match"));
  const std::string path = folder / "out/train/shard_000000.tok";
  std::string bytes = read_text(path);
  bytes[100] ^= 1;
  write_text(path, bytes);
  const Result result = run(arguments);
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.output, HasSubstr(path + ": the tokens from offset 64 on were altered"));
}

TEST(Tokenize, RefusesMistakes) {
  const TemporaryFolder folder;
  write_text(folder / "a.txt", lines(50, "word"));
  const std::string input = folder / "a.txt", out = " --output " + (folder / "out");
  const auto expect_refused = [](const std::string& arguments, const std::string& message) {
    const Result result = run(arguments);
    EXPECT_EQ(result.exit_code, 2) << arguments;
    EXPECT_THAT(result.output, HasSubstr(message));
  };
  expect_refused("", "input is required");
  expect_refused(input, "--output is missing");
  expect_refused((folder / "absent") + out, "absent: no such file or folder");
  expect_refused(input + out + " --tokenizer gpt2", "unknown tokenizer 'gpt2'");
  expect_refused(input + out + " --tokenizer bytes --train-bpe 300", "excludes");
  expect_refused(input + out + " --train-bpe 100", "a vocabulary of 100 pieces is impossible");
  expect_refused(input + out + " --validation-fraction 1", "a validation fraction of 1");
  expect_refused(input + out + " --shard-tokens 0", "--shard-tokens");
  expect_refused(input + out + " --no-such-flag", "--no-such-flag");
  expect_refused(folder.path() + out + " --extensions .md,.rst", "ending in .md, .rst");
  ASSERT_EQ(run(input + out).exit_code, 0);
  expect_refused(input + out, "out/train exists");
  EXPECT_EQ(run(input + out + " --train-bpe 290 --overwrite").exit_code, 0);
  EXPECT_EQ(run("--help").exit_code, 0);
}

}  // namespace
}  // namespace sigtrain
