// Word and letter error rates: the edits between what was said and what was understood.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <string>
#include <string_view>
#include <vector>

namespace sigtrain {

/// The fewest insertions, deletions and substitutions that make one sequence of the other
/// (Levenshtein 1966).
template <typename Sequence>
int64_t edit_distance(const Sequence& from, const Sequence& to) {
  std::vector<int64_t> row(to.size() + 1);
  std::iota(row.begin(), row.end(), int64_t{0});
  for (size_t i = 0; i < from.size(); ++i) {
    int64_t diagonal = row[0];
    row[0] = static_cast<int64_t>(i) + 1;
    for (size_t j = 0; j < to.size(); ++j) {
      const int64_t substituted = diagonal + (from[i] == to[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({substituted, row[j] + 1, diagonal + 1});
    }
  }
  return row.back();
}

/// Edits over letters or words of the references; rates may pass 1.
struct ErrorCounts {
  int64_t utterances = 0;
  int64_t letters = 0, letter_edits = 0;
  int64_t words = 0, word_edits = 0;

  void add(const std::string& reference, const std::string& hypothesis);
  void add(const ErrorCounts& other);
  double letter_error_rate() const { return rate(letter_edits, letters); }
  double word_error_rate() const { return rate(word_edits, words); }

 private:
  static double rate(int64_t edits, int64_t of) {
    return of > 0 ? static_cast<double>(edits) / static_cast<double>(of) : (edits > 0 ? 1.0 : 0.0);
  }
};

std::vector<std::string> words_of(std::string_view text);

}  // namespace sigtrain
