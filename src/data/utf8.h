// Strict UTF-8: no overlong forms, no surrogates, nothing above U+10FFFF.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace sigtrain {

struct Utf8Error {
  size_t offset;       // of the first byte that cannot stand where it stands
  uint8_t byte;        // that byte
  const char* reason;  // a static string
};

/// The first violation of well-formed UTF-8 (Unicode 15, table 3-7), or nothing. A sequence cut off
/// by the end of the text is reported at its first byte.
std::optional<Utf8Error> find_invalid_utf8(std::string_view text);

/// Throws Error naming `file` and the byte offset unless `text` is valid UTF-8. `text` begins
/// `base_offset` bytes into the file.
void require_utf8(std::string_view text, std::string_view file, uint64_t base_offset = 0);

/// `text` with U+FFFD for each run of bytes that is no character (Unicode 15, section 3.9: one for
/// each maximal part of a sequence).
std::string replace_invalid_utf8(std::string_view text);

/// Length of the longest prefix of `text`, at most three bytes shorter, that does not end inside a
/// character.
size_t whole_characters(std::string_view text);

}  // namespace sigtrain
