// Batches of tokens for a language model. A batch is a pure function of the step, so a run resumes
// at the exact sample with no state but its step, and any thread may make any batch.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/token_corpus.h"

namespace sigtrain {

/// A target that the loss passes over.
inline constexpr int32_t kIgnoredTarget = -1;

/// One rank's part of a step. inputs and targets are [rows, seq_len], row-major; a target is the
/// token after its input, or kIgnoredTarget where there is none (then the input is 0).
struct TokenBatch {
  int64_t rows = 0;
  int64_t seq_len = 0;
  int64_t valid_targets = 0;  // targets that are not ignored
  std::vector<int32_t> inputs;
  std::vector<int32_t> targets;
};

/// `batch` sequences a step over all ranks; rank r of `world` takes rows [r, r + 1) * batch / world
/// of it, so the ranks' parts in order are the batch of a single rank.
struct BatchShape {
  int64_t seq_len = 0;
  int64_t batch = 0;
  int64_t rank = 0;
  int64_t world = 1;

  int64_t rows() const { return batch / world; }
  /// Index in the whole run of row `row` of this rank at `step`.
  int64_t sample(int64_t step, int64_t row) const { return step * batch + rank * rows() + row; }
};

/// Where batches come from. get is safe to call from many threads.
class TokenSource {
 public:
  /// Throws UsageError unless sizes are positive, world divides batch and rank is below world.
  explicit TokenSource(const BatchShape& shape);
  virtual ~TokenSource() = default;

  /// This rank's batch of step >= 0.
  TokenBatch get(int64_t step) const;
  /// Sequences in one pass over the data, over all ranks; 0: without end.
  virtual int64_t sequences() const = 0;
  const BatchShape& shape() const { return shape_; }

 protected:
  /// Writes the seq_len + 1 tokens of a sample, kIgnoredTarget where there are none. `tokens` has
  /// that length.
  virtual void fill(int64_t sample, std::span<int32_t> tokens) const = 0;

 private:
  BatchShape shape_;
};

/// For training, without end. In each epoch the corpus, taken as a ring, is cut from a random
/// offset on into windows of seq_len inputs (a rest shorter than seq_len is left out), visited in a
/// pseudo-random order, each exactly once.
class ShuffledTokens : public TokenSource {
 public:
  /// Throws UsageError if the corpus is shorter than seq_len + 1 tokens.
  ShuffledTokens(std::shared_ptr<const TokenCorpus> corpus, const BatchShape& shape, uint64_t seed);
  int64_t sequences() const override;

 protected:
  void fill(int64_t sample, std::span<int32_t> tokens) const override;

 private:
  std::shared_ptr<const TokenCorpus> corpus_;
  uint64_t seed_;
};

/// For evaluation: windows in order, so that every token but the first is a target exactly once.
/// The last window is filled up with ignored targets, as are rows after it; steps() covers them
/// all.
class SequentialTokens : public TokenSource {
 public:
  /// At most `max_sequences` windows; 0: all. Throws UsageError if the corpus has a single token.
  SequentialTokens(std::shared_ptr<const TokenCorpus> corpus, const BatchShape& shape,
                   int64_t max_sequences = 0);
  int64_t sequences() const override { return sequences_; }
  int64_t steps() const { return (sequences_ + shape().batch - 1) / shape().batch; }

 protected:
  void fill(int64_t sample, std::span<int32_t> tokens) const override;

 private:
  std::shared_ptr<const TokenCorpus> corpus_;
  int64_t sequences_;
};

/// Independent uniform tokens, without files: to measure speed, and to test.
class SyntheticTokens : public TokenSource {
 public:
  SyntheticTokens(int64_t vocab_size, const BatchShape& shape, uint64_t seed);
  int64_t sequences() const override { return 0; }

 protected:
  void fill(int64_t sample, std::span<int32_t> tokens) const override;

 private:
  int64_t vocab_size_;
  uint64_t seed_;
};

}  // namespace sigtrain
