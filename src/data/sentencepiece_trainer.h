// Trains a byte-pair-encoding vocabulary (Sennrich et al., ACL 2016) with the SentencePiece
// library.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace sigtrain {

/// Collects text, whole lines at a time, and trains on it once. The same text in the same order
/// gives the same model. It holds at most about `max_bytes` of text: of `total_bytes` to come,
/// larger, each line is kept with the probability that meets the limit.
class SentencePieceTrainer {
 public:
  explicit SentencePieceTrainer(uint64_t total_bytes, uint64_t max_bytes = kDefaultMaxBytes);

  /// Adds text that ends where a line ends (or where the text does). Must be valid UTF-8.
  void add(std::string_view text);

  /// The bytes of a .model file with exactly `vocab_size` pieces: an unknown piece, end of
  /// sentence, 256 bytes, merges, characters. Text is not normalised: spaces are kept, newlines and
  /// tabs become byte pieces. Throws UsageError if the text cannot give that many pieces, or if
  /// they are too few for its characters.
  std::string train(int64_t vocab_size) const;

  static constexpr uint64_t kDefaultMaxBytes = uint64_t{128} << 20;

 private:
  void add_line(std::string_view line);

  uint64_t total_bytes_;
  uint64_t max_bytes_;
  uint64_t lines_seen_ = 0;
  std::vector<std::string> sentences_;
};

}  // namespace sigtrain
