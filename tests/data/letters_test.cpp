#include "data/letters.h"

#include <gtest/gtest.h>

#include "core/error.h"

namespace sigtrain {
namespace {

using Ids = std::vector<int32_t>;

TEST(Letters, IdsFollowTheirOrderBehindTheBlank) {
  const Letters letters("ab' ");
  EXPECT_EQ(letters.vocab_size(), 5);
  EXPECT_EQ(letters.encode("a b'a"), Ids({1, 4, 2, 3, 1}));
  EXPECT_EQ(letters.decode({1, 4, 2, 3, 1}), "a b'a");
  EXPECT_EQ(letters.encode(""), Ids());
}

TEST(Letters, CapitalsAreLoweredAndSpacesSingled) {
  const Letters letters("ab ");
  EXPECT_EQ(letters.encode("  AB\t b  "), Ids({1, 2, 3, 2}));
}

TEST(Letters, UnknownOnesAreNoText) {
  const Letters letters("ab ");
  for (const char* text : {"abc", "a1", "a-b", "\xc3\xa4", "a.", "?"})
    EXPECT_FALSE(letters.encode(text).has_value()) << text;
  EXPECT_FALSE(Letters("ab").encode("a b").has_value()) << "no space among the letters";
}

TEST(Letters, ImpossibleOnesAreErrors) {
  for (const char* letters : {"aba", "aB", "a\tb", "\xc3\xa4"})
    EXPECT_THROW(Letters{letters}, UsageError) << letters;
}

}  // namespace
}  // namespace sigtrain
