#include "data/utf8.h"

#include <algorithm>
#include <cstring>

#include "core/error.h"

namespace sigtrain {
namespace {

/// Bytes in the sequence that begins with `lead`; 0 where no sequence can.
size_t sequence_length(uint8_t lead) {
  if (lead < 0x80) return 1;
  if (lead < 0xC2) return 0;
  if (lead < 0xE0) return 2;
  if (lead < 0xF0) return 3;
  return lead < 0xF5 ? 4 : 0;
}

const char* reason_for_lead(uint8_t lead) {
  if (lead < 0xC0) return "a continuation byte without a first byte";
  return lead < 0xC2 ? "an overlong form" : "above U+10FFFF";
}

}  // namespace

std::optional<Utf8Error> find_invalid_utf8(std::string_view text) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(text.data());
  const size_t size = text.size();
  size_t i = 0;
  while (i < size) {
    // Most text is ASCII: eight bytes at a time while no top bit is set.
    while (i + 8 <= size) {
      uint64_t word;
      std::memcpy(&word, bytes + i, 8);
      if (word & 0x8080808080808080u) break;
      i += 8;
    }
    if (i == size) break;
    const uint8_t lead = bytes[i];
    const size_t length = sequence_length(lead);
    if (length == 0) return Utf8Error{i, lead, reason_for_lead(lead)};
    for (size_t k = 1; k < length; ++k) {
      if (i + k == size) return Utf8Error{i, lead, "a character cut off by the end"};
      const uint8_t byte = bytes[i + k];
      if ((byte & 0xC0) != 0x80) {
        return Utf8Error{i + k, byte, "a continuation byte was expected"};
      }
      if (k > 1) continue;
      if ((lead == 0xE0 && byte < 0xA0) || (lead == 0xF0 && byte < 0x90)) {
        return Utf8Error{i + k, byte, "an overlong form"};
      }
      if (lead == 0xED && byte > 0x9F) return Utf8Error{i + k, byte, "a UTF-16 surrogate"};
      if (lead == 0xF4 && byte > 0x8F) return Utf8Error{i + k, byte, "above U+10FFFF"};
    }
    i += length;
  }
  return std::nullopt;
}

void require_utf8(std::string_view text, std::string_view file, uint64_t base_offset) {
  if (const auto bad = find_invalid_utf8(text)) {
    throw Error("{}: byte {}: 0x{:02X} is not valid UTF-8 ({}); convert the text to UTF-8", file,
                base_offset + bad->offset, bad->byte, bad->reason);
  }
}

size_t whole_characters(std::string_view text) {
  for (size_t back = 1; back <= 3 && back <= text.size(); ++back) {
    const auto byte = static_cast<uint8_t>(text[text.size() - back]);
    if ((byte & 0xC0) == 0x80) continue;
    return sequence_length(byte) > back ? text.size() - back : text.size();
  }
  return text.size();
}

std::string replace_invalid_utf8(std::string_view text) {
  std::string valid;
  while (const auto bad = find_invalid_utf8(text)) {
    const size_t whole = whole_characters(text.substr(0, bad->offset));
    valid.append(text.substr(0, whole)).append("\xEF\xBF\xBD");
    // A byte in the wrong place may begin a character of its own; a cut off one has no such byte.
    const bool is_cut_off = whole_characters(text) == bad->offset;
    text.remove_prefix(is_cut_off ? text.size() : std::max(bad->offset, whole + 1));
  }
  return valid.append(text);
}

}  // namespace sigtrain
