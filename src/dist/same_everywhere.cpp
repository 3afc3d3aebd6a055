#include "dist/same_everywhere.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>

#include "config/fields.h"
#include "config/value_text.h"
#include "core/file_io.h"
#include "data/fnv.h"

namespace sigtrain {
namespace {

template <typename Value>
std::string text_of(const std::vector<Value>& values) {
  return fmt::format("[{}]", fmt::join(values, ", "));
}
template <typename Value>
std::string text_of(const Value& value) {
  return value_text(value);
}

}  // namespace

Facts program_and_config(const Config& config) {
  // The version alone would not tell apart two builds of it.
  const uint32_t checksum = FileReader("/proc/self/exe").digest().crc32c;
  Facts facts{{"the program", fmt::format("{} {:08x}", SIGTRAIN_VERSION, checksum)}};
  for_each_value(config, [&](const std::string& path, const auto&, const auto& value) {
    facts.emplace_back(path, text_of(value));
  });
  return facts;
}

void check_same_everywhere(ProcessGroup& group, const Facts& facts) {
  const std::string text =
      nlohmann::json(facts).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  // All of it travels only where something differs.
  Fnv64 hash;
  hash.add(text);
  const std::vector<std::string> hashes = group.gather(hash_text(hash.value()));
  if (std::equal(hashes.begin() + 1, hashes.end(), hashes.begin())) return;
  const std::vector<std::string> texts = group.gather(text);
  const auto first = nlohmann::json::parse(texts[0]).get<Facts>();
  for (size_t rank = 1; rank < texts.size(); ++rank) {
    const auto other = nlohmann::json::parse(texts[rank]).get<Facts>();
    for (size_t i = 0; i < std::min(first.size(), other.size()); ++i) {
      if (first[i] == other[i]) continue;
      throw AgreedFailure(
          fmt::format("rank {} has {} {}, rank 0 has {} {}: start all ranks with the same program, "
                      "config and data",
                      rank, other[i].first, other[i].second, first[i].first, first[i].second),
          true, true);
    }
  }
  throw AgreedFailure("the ranks do not run the same program", true, true);
}

}  // namespace sigtrain
