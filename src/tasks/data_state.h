// What a resumed run is told where its data are not those of its checkpoint.
#pragma once

#include <initializer_list>
#include <nlohmann/json_fwd.hpp>
#include <string_view>

namespace sigtrain {

/// Warns of each of the keys that both have, the checkpoint's data_state and this run's, and in
/// which they differ. That is allowed, but the run then goes on at other `parts` of the data
/// ("samples") than an unbroken one.
void warn_of_other_data(const nlohmann::json& checkpoint, const nlohmann::json& own,
                        std::initializer_list<const char*> keys, std::string_view parts);

}  // namespace sigtrain
