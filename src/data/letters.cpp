#include "data/letters.h"

#include "core/error.h"

namespace sigtrain {
namespace {

constexpr int32_t kUnknown = -1;

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

}  // namespace

Letters::Letters(const std::string& letters) : letters_(letters) {
  ids_.fill(kUnknown);
  for (size_t i = 0; i < letters.size(); ++i) {
    const auto letter = static_cast<unsigned char>(letters[i]);
    if (letter < 0x20 || letter > 0x7e || (letter >= 'A' && letter <= 'Z')) {
      throw UsageError("the letters '{}': number {} is no lower-case letter or sign of ASCII",
                       letters, i + 1);
    }
    if (ids_[letter] != kUnknown) {
      throw UsageError("the letters '{}': '{}' comes twice", letters, letters[i]);
    }
    ids_[letter] = static_cast<int32_t>(i) + 1;
  }
}

std::optional<std::vector<int32_t>> Letters::encode(std::string_view transcript) const {
  std::vector<int32_t> ids;
  bool space_pending = false;
  for (const char c : transcript) {
    if (is_space(c)) {
      space_pending = !ids.empty();
      continue;
    }
    const char lower = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    const int32_t id = ids_[static_cast<unsigned char>(lower)];
    if (space_pending) {
      if (ids_[' '] == kUnknown) return std::nullopt;
      ids.push_back(ids_[' ']);
      space_pending = false;
    }
    if (id == kUnknown) return std::nullopt;
    ids.push_back(id);
  }
  return ids;
}

std::string Letters::decode(const std::vector<int32_t>& ids) const {
  std::string text;
  for (const int32_t id : ids) text += letters_.at(static_cast<size_t>(id - 1));
  return text;
}

}  // namespace sigtrain
