// What a loader says of a sample that it could not read.
#pragma once

#include <cstdint>
#include <string>

namespace sigtrain {

struct DamagedSample {
  int64_t index = 0;  // in its set
  std::string text;   // its file, and what is wrong with it
};

}  // namespace sigtrain
