#include "data/token_loader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "core/error.h"
#include "data/permutation.h"
#include "temporary_folder.h"

namespace sigtrain {
namespace {

using testing::HasSubstr;

/// A corpus of the tokens 0, 1, 2, ... `size` in shards of unequal length; token i is at position
/// i.
std::shared_ptr<const TokenCorpus> counting_corpus(const TemporaryFolder& folder, int64_t size,
                                                   int64_t shard_tokens = 37) {
  std::vector<int32_t> tokens(static_cast<size_t>(size));
  std::iota(tokens.begin(), tokens.end(), 0);
  TokenShardSetWriter writer(folder / "shards", {100000, 1}, shard_tokens);
  writer.append(tokens);
  writer.finish();
  return std::make_shared<TokenCorpus>(std::vector<std::string>{folder / "shards"});
}

TEST(Permutation, IsABijection) {
  for (const uint64_t size : {1u, 2u, 3u, 4u, 5u, 16u, 17u, 1000u, 4096u}) {
    for (const uint64_t epoch : {0u, 1u}) {
      const Permutation permutation(size, {7, 3}, epoch);
      std::set<uint64_t> images;
      for (uint64_t i = 0; i < size; ++i) images.insert(permutation(i));
      EXPECT_EQ(images.size(), size);
      EXPECT_EQ(*images.rbegin(), size - 1);
    }
  }
}

TEST(Permutation, StaysInsideAHugeRange) {
  const uint64_t size = (uint64_t{1} << 50) + 12345;
  const Permutation permutation(size, {7, 3}, 0);
  std::set<uint64_t> images;
  for (uint64_t i = 0; i < 1000; ++i) images.insert(permutation(size - 1 - i));
  EXPECT_EQ(images.size(), 1000u);
  EXPECT_LT(*images.rbegin(), size);
}

TEST(Permutation, LooksRandom) {
  // Under a uniform permutation of n, neighbours' images differ by (n + 1) / 3 on average, with a
  // standard error of about n / (3 sqrt(2 n)); fixed points are Poisson with mean 1.
  constexpr int64_t kSize = 10000;
  const Permutation permutation(kSize, {1, 0}, 0), other(kSize, {1, 0}, 1);
  double distance = 0;
  int fixed = 0, shared = 0;
  for (int64_t i = 0; i + 1 < kSize; ++i) {
    distance += std::abs(double(permutation(i)) - double(permutation(i + 1)));
    fixed += permutation(i) == static_cast<uint64_t>(i);
    shared += permutation(i) == other(i);
  }
  EXPECT_NEAR(distance / (kSize - 1), kSize / 3.0, 120);
  EXPECT_LT(fixed, 8);
  EXPECT_LT(shared, 8);
}

TEST(ShuffledTokens, VisitsEveryWindowOnceAnEpoch) {
  const TemporaryFolder folder;
  constexpr int64_t kSize = 1003, kSeqLen = 10;
  const ShuffledTokens source(counting_corpus(folder, kSize), {kSeqLen, 4}, 5);
  ASSERT_EQ(source.sequences(), 100);
  std::vector<std::vector<int32_t>> order;
  for (int64_t epoch = 0; epoch < 3; ++epoch) {
    std::set<int32_t> seen;
    order.emplace_back();
    for (int64_t step = epoch * 25; step < (epoch + 1) * 25; ++step) {
      const TokenBatch batch = source.get(step);
      EXPECT_EQ(batch.valid_targets, 40);
      for (int64_t i = 0; i < 40; ++i) {
        const int32_t input = batch.inputs[i];
        EXPECT_EQ(batch.targets[i], (input + 1) % kSize);
        if (i % kSeqLen != 0) {
          EXPECT_EQ(input, (batch.inputs[i - 1] + 1) % kSize);
        }
        EXPECT_TRUE(seen.insert(input).second) << "token " << input << " twice in an epoch";
        if (i % kSeqLen == 0) order.back().push_back(input);
      }
    }
    EXPECT_EQ(seen.size(), 1000u);
    EXPECT_FALSE(std::is_sorted(order.back().begin(), order.back().end()));
  }
  // Other windows in each epoch, because it has another offset.
  for (auto& starts : order) std::sort(starts.begin(), starts.end());
  EXPECT_NE(order[0], order[1]);
  EXPECT_NE(order[1], order[2]);
}

TEST(ShuffledTokens, EpochsMayEndInsideAStep) {
  const TemporaryFolder folder;
  const ShuffledTokens source(counting_corpus(folder, 70), {10, 4}, 5);
  ASSERT_EQ(source.sequences(), 7);
  std::map<int32_t, int> counts;
  for (int64_t step = 0; step < 7; ++step) {  // 28 samples: four epochs
    for (const int32_t token : source.get(step).inputs) ++counts[token];
  }
  EXPECT_EQ(counts.size(), 70u);
  for (const auto& [token, count] : counts) EXPECT_EQ(count, 4) << token;
}

TEST(ShuffledTokens, IsAFunctionOfSeedAndStep) {
  const TemporaryFolder folder;
  const auto corpus = counting_corpus(folder, 1000);
  const ShuffledTokens first(corpus, {8, 4}, 5), second(corpus, {8, 4}, 5),
      other(corpus, {8, 4}, 6);
  std::vector<TokenBatch> forward;
  for (int64_t step = 0; step < 40; ++step) forward.push_back(first.get(step));
  for (int64_t step = 39; step >= 0; --step) {
    EXPECT_EQ(second.get(step).inputs, forward[step].inputs);
    EXPECT_EQ(second.get(step).targets, forward[step].targets);
    EXPECT_NE(other.get(step).inputs, forward[step].inputs);
  }
}

TEST(ShuffledTokens, ReadsAcrossManyShards) {
  const TemporaryFolder folder;
  const ShuffledTokens source(counting_corpus(folder, 50, 3), {49, 1}, 5);
  ASSERT_EQ(source.sequences(), 1);
  const TokenBatch batch = source.get(3);
  for (size_t i = 0; i < 49; ++i) EXPECT_EQ(batch.targets[i], (batch.inputs[i] + 1) % 50);
}

TEST(TokenSource, RanksPartitionTheBatch) {
  const TemporaryFolder folder;
  const auto corpus = counting_corpus(folder, 1000);
  const auto expect_partition = [](const auto& make) {
    for (const int64_t world : {1, 2, 3, 6}) {
      for (const int64_t step : {0, 17}) {
        std::vector<int32_t> inputs, targets;
        for (int64_t rank = 0; rank < world; ++rank) {
          const TokenBatch part = make(BatchShape{8, 6, rank, world}).get(step);
          EXPECT_EQ(part.rows, 6 / world);
          inputs.insert(inputs.end(), part.inputs.begin(), part.inputs.end());
          targets.insert(targets.end(), part.targets.begin(), part.targets.end());
        }
        const TokenBatch whole = make(BatchShape{8, 6, 0, 1}).get(step);
        EXPECT_EQ(inputs, whole.inputs);
        EXPECT_EQ(targets, whole.targets);
      }
    }
  };
  expect_partition([&](const BatchShape& shape) { return ShuffledTokens(corpus, shape, 5); });
  expect_partition([&](const BatchShape& shape) { return SequentialTokens(corpus, shape); });
  expect_partition([&](const BatchShape& shape) { return SyntheticTokens(99, shape, 5); });
}

TEST(TokenSource, RefusesImpossibleShapes) {
  EXPECT_EQ(message_of<UsageError>([] {
              SyntheticTokens(9, {8, 5, 0, 2}, 1);
            }),
            "a batch of 5 sequences does not divide over 2 ranks");
  EXPECT_THROW(SyntheticTokens(9, {0, 5}, 1), UsageError);
  EXPECT_THROW(SyntheticTokens(9, {8, 4, 2, 2}, 1), UsageError);
  EXPECT_THROW(SyntheticTokens(9, {8, 4}, 1).get(-1), Error);
}

TEST(SequentialTokens, MakesEveryTokenATargetOnce) {
  const TemporaryFolder folder;
  for (const int64_t size : {2, 10, 11, 12, 80, 81, 95}) {
    const SequentialTokens source(counting_corpus(folder, size), {10, 3});
    std::vector<int32_t> targets;
    int64_t valid = 0;
    for (int64_t step = 0; step < source.steps(); ++step) {
      const TokenBatch batch = source.get(step);
      valid += batch.valid_targets;
      for (size_t i = 0; i < batch.targets.size(); ++i) {
        if (batch.targets[i] == kIgnoredTarget) {
          EXPECT_EQ(batch.inputs[i], 0);
          continue;
        }
        EXPECT_EQ(batch.inputs[i] + 1, batch.targets[i]);
        targets.push_back(batch.targets[i]);
      }
    }
    std::vector<int32_t> expected(static_cast<size_t>(size - 1));
    std::iota(expected.begin(), expected.end(), 1);
    EXPECT_EQ(targets, expected);
    EXPECT_EQ(valid, size - 1);
    EXPECT_EQ(source.get(source.steps()).valid_targets, 0);
    std::filesystem::remove_all(folder / "shards");
  }
}

TEST(SequentialTokens, StopsAtTheLimit) {
  const TemporaryFolder folder;
  const SequentialTokens source(counting_corpus(folder, 100), {10, 3}, 4);
  EXPECT_EQ(source.sequences(), 4);
  EXPECT_EQ(source.steps(), 2);
  EXPECT_EQ(source.get(0).valid_targets, 30);
  EXPECT_EQ(source.get(1).valid_targets, 10);
}

TEST(SyntheticTokens, CoversTheVocabularyEvenly) {
  const SyntheticTokens source(50, {100, 100}, 3);
  std::vector<int> counts(50);
  const TokenBatch batch = source.get(0);
  for (const int32_t token : batch.inputs) ++counts.at(static_cast<size_t>(token));
  // 10,000 draws over 50 ids: 200 each, standard deviation 14.
  for (const int count : counts) EXPECT_NEAR(count, 200, 80);
  EXPECT_EQ(batch.inputs[1], batch.targets[0]);
  EXPECT_NE(source.get(1).inputs, batch.inputs);
}

TEST(TokenCorpus, SortsAFolderAndKeepsTheGivenOrderOfFiles) {
  const TemporaryFolder folder;
  for (const int32_t token : {2, 0, 1}) {
    TokenShardWriter writer(folder / fmt::format("{}.tok", token), {9, 1});
    writer.append(std::vector<int32_t>{token});
    writer.finish();
  }
  write_text(folder / "3.tok.partial", "unfinished");
  std::vector<int32_t> tokens(4);
  TokenCorpus({folder.path()}).read(0, tokens);
  EXPECT_EQ(tokens, (std::vector<int32_t>{0, 1, 2, 0}));
  TokenCorpus({folder / "2.tok", folder / "0.tok"}).read(1, tokens);
  EXPECT_EQ(tokens, (std::vector<int32_t>{0, 2, 0, 2}));
}

TEST(TokenCorpus, ExplainsWhatDoesNotFit) {
  const TemporaryFolder folder;
  const auto shard = [&](const char* name, Vocabulary vocabulary) {
    TokenShardWriter writer(folder / name, vocabulary);
    writer.append(std::vector<int32_t>{1});
    writer.finish();
    return folder / name;
  };
  const std::string a = shard("a.tok", {300, 0xaa}), b = shard("b.tok", {300, 0xbb});
  EXPECT_EQ(message_of<Error>([&] {
              TokenCorpus({a, b});
            }),
            b + ": the vocabulary (300 ids, hash 00000000000000bb) is not that of " + a +
                " (300 ids, hash 00000000000000aa); tokenize both with the same tokenizer");
  EXPECT_EQ(message_of<Error>([&] {
              TokenCorpus({a}, {256, {}});
            }),
            a + ": the shard's vocabulary has 300 ids, the model's only 256; set model.vocab_size "
                "to at least 300 or tokenize with a smaller vocabulary");
  EXPECT_THAT(message_of<Error>([&] {
                TokenCorpus({a}, {300, 0xbb});
              }),
              HasSubstr(a + ": the shard was made with another tokenizer"));
  EXPECT_EQ(TokenCorpus({a}, {512, 0xaa}).size(), 1);
  EXPECT_THAT(message_of<UsageError>([] { TokenCorpus({}); }), HasSubstr("no token shards given"));
  std::filesystem::create_directory(folder / "none");
  EXPECT_EQ(message_of<UsageError>([&] { TokenCorpus({folder / "none"}); }),
            (folder / "none") +
                ": the folder holds no *.tok files; make them with build/tokenize TEXT... --output "
                "DIR and name DIR/train or DIR/validation");
  EXPECT_THAT(message_of<UsageError>([&] { TokenCorpus({folder / "absent"}); }),
              HasSubstr("absent: no such file or folder"));
  const auto corpus = std::make_shared<TokenCorpus>(std::vector<std::string>{a});
  EXPECT_THAT(message_of<UsageError>([&] {
                ShuffledTokens(corpus, {10, 1}, 1);
              }),
              HasSubstr("has 1 tokens, fewer than the 11"));
  EXPECT_THAT(message_of<UsageError>([&] {
                SequentialTokens(corpus, {10, 1});
              }),
              HasSubstr("a single token"));
}

TEST(TokenCorpus, NamesTheBadTokenWhenABatchMeetsIt) {
  const TemporaryFolder folder;
  counting_corpus(folder, 100, 50);
  const std::string path = folder / "shards/shard_000001.tok";
  std::string bytes = read_text(path);
  bytes[64 + 4 * 20 + 3] = 0x7F;
  write_text(path, bytes);
  const auto corpus = std::make_shared<TokenCorpus>(std::vector<std::string>{folder / "shards"});
  const SequentialTokens source(corpus, {10, 10});
  EXPECT_THAT(message_of<Error>([&] { source.get(0); }),
              HasSubstr(path + ": token 20 (offset 144) has the id"));
}

}  // namespace
}  // namespace sigtrain
