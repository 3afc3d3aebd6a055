#include "tasks/data_state.h"

#include <spdlog/spdlog.h>

#include <nlohmann/json.hpp>

namespace sigtrain {

void warn_of_other_data(const nlohmann::json& checkpoint, const nlohmann::json& own,
                        std::initializer_list<const char*> keys, std::string_view parts) {
  for (const char* key : keys) {
    if (!checkpoint.contains(key) || !own.contains(key) || checkpoint.at(key) == own.at(key))
      continue;
    spdlog::warn("the checkpoint was trained with {} {}, this run has {}: it goes on at other {}",
                 key, checkpoint.at(key).dump(), own.at(key).dump(), parts);
  }
}

}  // namespace sigtrain
