#include "tasks/error_rate.h"

namespace sigtrain {

std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find(' ', begin), text.size());
    if (end > begin) words.emplace_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return words;
}

void ErrorCounts::add(const std::string& reference, const std::string& hypothesis) {
  const std::vector<std::string> said = words_of(reference), understood = words_of(hypothesis);
  ++utterances;
  letters += static_cast<int64_t>(reference.size());
  letter_edits += edit_distance(reference, hypothesis);
  words += static_cast<int64_t>(said.size());
  word_edits += edit_distance(said, understood);
}

void ErrorCounts::add(const ErrorCounts& other) {
  utterances += other.utterances;
  letters += other.letters, letter_edits += other.letter_edits;
  words += other.words, word_edits += other.word_edits;
}

}  // namespace sigtrain
