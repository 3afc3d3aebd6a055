#include "tasks/damage_count.h"

#include <spdlog/spdlog.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "data/fnv.h"

namespace sigtrain {

DamageCount::DamageCount(int64_t size, uint64_t hash, double largest_share, std::string samples,
                         std::string key)
    : size_(size),
      hash_(hash),
      largest_share_(largest_share),
      samples_(std::move(samples)),
      key_(std::move(key)) {}

void DamageCount::add(ProcessGroup& group, const std::vector<DamagedSample>& found) {
  nlohmann::json news = nlohmann::json::array();
  for (const DamagedSample& sample : found) {
    if (damaged_.count(sample.index) == 0) news.push_back({sample.index, sample.text});
  }
  // Paths need not be UTF-8.
  const std::string own =
      news.empty() ? "" : news.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  std::string last;
  for (const std::string& of_rank : group.gather(own)) {
    if (of_rank.empty()) continue;
    for (const auto& sample : nlohmann::json::parse(of_rank)) {
      if (!damaged_.insert(sample.at(0).get<int64_t>()).second) continue;
      last = sample.at(1).get<std::string>();
      if (group.is_root())
        spdlog::warn("left out: {}; {} of {} {} so far", last, count(), size_, samples_);
    }
  }
  if (last.empty() || static_cast<double>(count()) <= largest_share_ * static_cast<double>(size_))
    return;
  throw AgreedFailure(fmt::format("{} of {} {} are damaged, more than {}, {}, allows; the last: {}",
                                  count(), size_, samples_, key_, largest_share_, last),
                      false, true);
}

nlohmann::json DamageCount::state() const {
  return {{"set", hash_text(hash_)}, {"damaged", damaged_}};
}

void DamageCount::restore(const nlohmann::json& state) {
  if (state.is_null() || state.at("set") != hash_text(hash_)) return;
  damaged_ = state.at("damaged").get<std::set<int64_t>>();
}

void DamageCounts::write_to(nlohmann::json& data_state) const {
  if (train) data_state["train_damage"] = train->state();
  if (validation) data_state["validation_damage"] = validation->state();
}

void DamageCounts::restore(const nlohmann::json& data_state) {
  if (train) train->restore(data_state.value("train_damage", nlohmann::json()));
  if (validation) validation->restore(data_state.value("validation_damage", nlohmann::json()));
}

}  // namespace sigtrain
