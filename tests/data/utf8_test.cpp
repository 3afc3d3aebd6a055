#include "data/utf8.h"

#include <gtest/gtest.h>

#include <string>

#include "core/error.h"
#include "temporary_folder.h"

namespace sigtrain {
namespace {

struct Case {
  std::string text;
  size_t offset;
  int byte;
  std::string reason;
};

TEST(Utf8, FindsEveryViolationAtItsOffset) {
  const std::vector<Case> cases = {
      {"a\x80", 1, 0x80, "a continuation byte without a first byte"},
      {"ab\xC0\x80", 2, 0xC0, "an overlong form"},
      {"\xC1\xBF", 0, 0xC1, "an overlong form"},
      {"\xE0\x9F\xBF", 1, 0x9F, "an overlong form"},
      {"\xF0\x8F\xBF\xBF", 1, 0x8F, "an overlong form"},
      {"xyz\xED\xA0\x80", 4, 0xA0, "a UTF-16 surrogate"},
      {"\xED\xBF\xBF", 1, 0xBF, "a UTF-16 surrogate"},
      {"\xF4\x90\x80\x80", 1, 0x90, "above U+10FFFF"},
      {"\xF5\x80\x80\x80", 0, 0xF5, "above U+10FFFF"},
      {"\xFF", 0, 0xFF, "above U+10FFFF"},
      {"ab\xC3", 2, 0xC3, "a character cut off by the end"},
      {"ab\xE2\x82", 2, 0xE2, "a character cut off by the end"},
      {"\xF0\x9F\x98", 0, 0xF0, "a character cut off by the end"},
      {"\xC3(", 1, 0x28, "a continuation byte was expected"},
      {"\xE2\x82(", 2, 0x28, "a continuation byte was expected"},
      {"12345678\xC3\xA9 234567890\xE9t\xE9", 21, 0x74, "a continuation byte was expected"},
  };
  for (const Case& c : cases) {
    const auto bad = find_invalid_utf8(c.text);
    ASSERT_TRUE(bad.has_value()) << c.text;
    EXPECT_EQ(bad->offset, c.offset) << c.text;
    EXPECT_EQ(bad->byte, c.byte);
    EXPECT_EQ(bad->reason, c.reason);
  }
}

TEST(Utf8, AcceptsTheLimitsOfEveryRange) {
  for (const std::string_view text :
       {std::string_view(""), std::string_view("\0", 1), std::string_view("\x7F"),
        std::string_view("\xC2\x80\xDF\xBF"), std::string_view("\xE0\xA0\x80\xEF\xBF\xBF"),
        std::string_view("\xED\x9F\xBF\xEE\x80\x80"),
        std::string_view("\xF0\x90\x80\x80\xF4\x8F\xBF\xBF")}) {
    EXPECT_FALSE(find_invalid_utf8(text).has_value());
  }
}

TEST(Utf8, NamesFileOffsetAndByte) {
  EXPECT_EQ(message_of<Error>([] { require_utf8("a\xC0", "notes.txt", 1000); }),
            "notes.txt: byte 1001: 0xC0 is not valid UTF-8 (an overlong form); convert the text to "
            "UTF-8");
}

TEST(Utf8, LeavesOutAnUnfinishedCharacter) {
  const std::string text = "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80";
  const size_t expected[] = {0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10};
  for (size_t n = 0; n <= text.size(); ++n) {
    EXPECT_EQ(whole_characters(std::string_view(text).substr(0, n)), expected[n]) << n;
  }
}

TEST(Utf8, ReplacesWhatIsNoCharacter) {
  const std::string mark = "\xEF\xBF\xBD";
  const struct {
    std::string text, expected;
  } cases[] = {
      {"", ""},
      {"gr\xC3\xBCn", "gr\xC3\xBCn"},
      {"a\xFF"
       "b",
       "a" + mark + "b"},
      {"\x80\x80", mark + mark},
      {"\xC3"
       "A",
       mark + "A"},
      {"\xE2\x82"
       "A",
       mark + "A"},
      {"\xE2\x82\xC3\xA9", mark + "\xC3\xA9"},
      {"\xE0\x80", mark + mark},
      {"a\xE2\x82", "a" + mark},
      {"\xF0\x9F\x98", mark},
      {"\xF5\xED\xA0\x80z", mark + mark + mark + mark + "z"},
  };
  for (const auto& c : cases) {
    const std::string replaced = replace_invalid_utf8(c.text);
    EXPECT_EQ(replaced, c.expected);
    EXPECT_FALSE(find_invalid_utf8(replaced).has_value());
  }
}

}  // namespace
}  // namespace sigtrain
