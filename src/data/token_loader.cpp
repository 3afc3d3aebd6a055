#include "data/token_loader.h"

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "core/philox.h"
#include "data/permutation.h"

namespace sigtrain {
namespace {

// Of RandomStream's 2^24 streams: the top ones, far from those of parameters and dropout.
constexpr uint64_t kOrderStream = 0xFFFF00;
constexpr uint64_t kOffsetStream = 0xFFFF01;
constexpr uint64_t kSyntheticStream = 0xFFFF02;

}  // namespace

TokenSource::TokenSource(const BatchShape& shape) : shape_(shape) {
  if (shape.seq_len < 1 || shape.batch < 1) {
    throw UsageError("batches of {} sequences of {} tokens are impossible", shape.batch,
                     shape.seq_len);
  }
  if (shape.world < 1 || shape.rank < 0 || shape.rank >= shape.world) {
    throw UsageError("rank {} of {} is impossible", shape.rank, shape.world);
  }
  if (shape.batch % shape.world != 0) {
    throw UsageError("a batch of {} sequences does not divide over {} ranks", shape.batch,
                     shape.world);
  }
}

TokenBatch TokenSource::get(int64_t step) const {
  if (step < 0) throw Error("batch of step {} requested", step);
  TokenBatch batch;
  batch.rows = shape_.rows();
  batch.seq_len = shape_.seq_len;
  const auto count = static_cast<size_t>(batch.rows * batch.seq_len);
  batch.inputs.reserve(count);
  batch.targets.reserve(count);
  std::vector<int32_t> tokens(static_cast<size_t>(batch.seq_len) + 1);
  for (int64_t row = 0; row < batch.rows; ++row) {
    fill(shape_.sample(step, row), tokens);
    for (size_t i = 0; i + 1 < tokens.size(); ++i) {
      const bool valid = tokens[i + 1] != kIgnoredTarget;
      batch.inputs.push_back(valid ? tokens[i] : 0);
      batch.targets.push_back(tokens[i + 1]);
      batch.valid_targets += valid;
    }
  }
  return batch;
}

ShuffledTokens::ShuffledTokens(std::shared_ptr<const TokenCorpus> corpus, const BatchShape& shape,
                               uint64_t seed)
    : TokenSource(shape), corpus_(std::move(corpus)), seed_(seed) {
  if (corpus_->size() <= shape.seq_len) {
    throw UsageError(
        "{}: the training text has {} tokens, fewer than the {} of one sequence and its last "
        "target; give more text or a shorter seq_len",
        corpus_->shards().front().path(), corpus_->size(), shape.seq_len + 1);
  }
}

int64_t ShuffledTokens::sequences() const { return corpus_->size() / shape().seq_len; }

void ShuffledTokens::fill(int64_t sample, std::span<int32_t> tokens) const {
  const int64_t windows = sequences();
  const auto epoch = static_cast<uint64_t>(sample / windows);
  const Permutation order(static_cast<uint64_t>(windows), {seed_, kOrderStream}, epoch);
  const auto window = static_cast<int64_t>(order(static_cast<uint64_t>(sample % windows)));
  const Philox random = RandomStream{seed_, kOffsetStream}.block(0, epoch);
  const uint64_t bits = uint64_t{random.words[0]} << 32 | random.words[1];
  const auto offset = static_cast<int64_t>(bits % static_cast<uint64_t>(corpus_->size()));
  corpus_->read((offset + window * shape().seq_len) % corpus_->size(), tokens);
}

SequentialTokens::SequentialTokens(std::shared_ptr<const TokenCorpus> corpus,
                                   const BatchShape& shape, int64_t max_sequences)
    : TokenSource(shape), corpus_(std::move(corpus)) {
  if (corpus_->size() < 2) {
    throw UsageError("{}: the validation text has a single token, so there is nothing to predict",
                     corpus_->shards().front().path());
  }
  sequences_ = (corpus_->size() - 1 + shape.seq_len - 1) / shape.seq_len;
  if (max_sequences > 0) sequences_ = std::min(sequences_, max_sequences);
}

void SequentialTokens::fill(int64_t sample, std::span<int32_t> tokens) const {
  std::fill(tokens.begin(), tokens.end(), kIgnoredTarget);
  if (sample >= sequences_) return;
  const int64_t begin = sample * shape().seq_len;
  const auto available = static_cast<size_t>(corpus_->size() - begin);
  corpus_->read(begin, tokens.first(std::min(tokens.size(), available)));
}

SyntheticTokens::SyntheticTokens(int64_t vocab_size, const BatchShape& shape, uint64_t seed)
    : TokenSource(shape), vocab_size_(vocab_size), seed_(seed) {
  if (vocab_size < 1 || vocab_size > int64_t{1} << 31) {
    throw UsageError("a vocabulary of {} ids is impossible", vocab_size);
  }
}

void SyntheticTokens::fill(int64_t sample, std::span<int32_t> tokens) const {
  const RandomStream stream{seed_, kSyntheticStream};
  for (size_t i = 0; i < tokens.size(); ++i) {
    const uint32_t bits = stream.block(i / 4, static_cast<uint64_t>(sample)).words[i % 4];
    tokens[i] = static_cast<int32_t>(uint64_t{bits} * static_cast<uint64_t>(vocab_size_) >> 32);
  }
}

}  // namespace sigtrain
