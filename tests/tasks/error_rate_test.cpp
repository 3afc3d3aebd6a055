#include "tasks/error_rate.h"

#include <gtest/gtest.h>

#include <random>

namespace sigtrain {
namespace {

/// By its recursive definition.
int64_t slow_distance(const std::string& a, const std::string& b) {
  if (a.empty() || b.empty()) return static_cast<int64_t>(a.size() + b.size());
  if (a.back() == b.back())
    return slow_distance(a.substr(0, a.size() - 1), b.substr(0, b.size() - 1));
  return 1 + std::min({slow_distance(a.substr(0, a.size() - 1), b),
                       slow_distance(a, b.substr(0, b.size() - 1)),
                       slow_distance(a.substr(0, a.size() - 1), b.substr(0, b.size() - 1))});
}

TEST(EditDistance, IsItsDefinition) {
  EXPECT_EQ(edit_distance(std::string("kitten"), std::string("sitting")), 3);
  EXPECT_EQ(edit_distance(std::string(), std::string("abc")), 3);
  EXPECT_EQ(edit_distance(std::string("abc"), std::string()), 3);
  std::mt19937 engine(1);
  for (int i = 0; i < 200; ++i) {
    std::string a, b;
    for (auto* text : {&a, &b})
      for (unsigned n = engine() % 7; n > 0; --n) *text += static_cast<char>('a' + engine() % 3);
    EXPECT_EQ(edit_distance(a, b), slow_distance(a, b)) << a << " " << b;
  }
}

TEST(ErrorCounts, AreOverAllLettersAndWords) {
  ErrorCounts counts;
  counts.add("the cat sat", "the bat sat on");
  EXPECT_DOUBLE_EQ(counts.letter_error_rate(), 4.0 / 11);
  EXPECT_DOUBLE_EQ(counts.word_error_rate(), 2.0 / 3);
  counts.add("", "a");
  EXPECT_DOUBLE_EQ(counts.word_error_rate(), 3.0 / 3);
  EXPECT_EQ(counts.utterances, 2);
  ErrorCounts twice = counts;
  twice.add(counts);
  EXPECT_DOUBLE_EQ(twice.letter_error_rate(), counts.letter_error_rate());
  EXPECT_EQ(twice.utterances, 4);
}

TEST(ErrorCounts, OfNothing) {
  EXPECT_EQ(ErrorCounts().word_error_rate(), 0.0);
  ErrorCounts counts;
  counts.add("", "a b");
  EXPECT_EQ(counts.word_error_rate(), 1.0);
}

TEST(WordsOf, AreBetweenSpaces) {
  EXPECT_EQ(words_of("  it's  a b "), (std::vector<std::string>{"it's", "a", "b"}));
  EXPECT_TRUE(words_of("").empty());
}

}  // namespace
}  // namespace sigtrain
