// FNV-1a, 64 bits (Fowler, Noll and Vo; RFC 9923): a content hash that is the same on every
// machine. It guards against accidents (a cut file, another vocabulary), not against forgery.
#pragma once

#include <fmt/format.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace sigtrain {

class Fnv64 {
 public:
  void add_bytes(const void* data, size_t size) {
    const auto* bytes = static_cast<const unsigned char*>(data);
    for (size_t i = 0; i < size; ++i) value_ = (value_ ^ bytes[i]) * 0x100000001b3u;
  }
  void add(std::string_view text) { add_bytes(text.data(), text.size()); }
  /// The integer's eight bytes, least significant first whatever the machine's order.
  void add(uint64_t number) {
    for (int i = 0; i < 8; ++i) {
      value_ = (value_ ^ ((number >> (8 * i)) & 0xff)) * 0x100000001b3u;
    }
  }
  uint64_t value() const { return value_; }

 private:
  uint64_t value_ = 0xcbf29ce484222325u;
};

/// A hash as checkpoints and messages spell it: 16 hexadecimal digits.
inline std::string hash_text(uint64_t hash) { return fmt::format("{:016x}", hash); }

}  // namespace sigtrain
