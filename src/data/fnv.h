// FNV-1a, 64 bits (Fowler, Noll and Vo; RFC 9923): a content hash that is the same on every
// machine. It guards against accidents (a cut file, another vocabulary), not against forgery.
#pragma once

#include <cstddef>
#include <cstdint>
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

}  // namespace sigtrain
