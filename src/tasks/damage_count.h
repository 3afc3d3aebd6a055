// Counts the samples of a set that turned out damaged, over all ranks, and names each once.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "data/damaged_sample.h"
#include "dist/process_group.h"

namespace sigtrain {

class DamageCount {
 public:
  /// Of a set of `size` samples, no more than `largest_share` may be damaged: what the config calls
  /// `key`. `samples` is their name in the plural, `hash` tells one set from others.
  DamageCount(int64_t size, uint64_t hash, double largest_share, std::string samples,
              std::string key);

  /// What this rank found since the last call, known before or not; all ranks call it together, and
  /// count and name the same. Throws AgreedFailure on all of them when too many are damaged.
  void add(ProcessGroup& group, const std::vector<DamagedSample>& found);
  int64_t count() const { return static_cast<int64_t>(damaged_.size()); }

  /// What a checkpoint keeps, so that a resumed run goes on counting and names no sample again; all
  /// ranks restore the same. That of another set is left alone, and so is null.
  nlohmann::json state() const;
  void restore(const nlohmann::json& state);

 private:
  int64_t size_;
  uint64_t hash_;
  double largest_share_;
  std::string samples_, key_;
  std::set<int64_t> damaged_;
};

/// Those of a task's sets, absent for one that it does not have.
struct DamageCounts {
  std::optional<DamageCount> train, validation;

  /// To and from the data_state of a checkpoint.
  void write_to(nlohmann::json& data_state) const;
  void restore(const nlohmann::json& data_state);
};

}  // namespace sigtrain
