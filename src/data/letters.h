// The letters that speech is written in. Ids are 1, 2, ... in their order; 0 is CTC's blank.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace sigtrain {

class Letters {
 public:
  static constexpr int32_t blank = 0;

  /// Throws UsageError for letters that are no printable ASCII, come twice, or are capitals.
  explicit Letters(const std::string& letters);

  /// Ids, the blank among them.
  int64_t vocab_size() const { return static_cast<int64_t>(letters_.size()) + 1; }
  /// The ids of a transcript in lower case, its words one space apart; nothing where it has a
  /// letter that is none of these.
  std::optional<std::vector<int32_t>> encode(std::string_view transcript) const;
  std::string decode(const std::vector<int32_t>& ids) const;

 private:
  std::string letters_;
  std::array<int32_t, 256> ids_;
};

}  // namespace sigtrain
