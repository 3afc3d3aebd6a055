// What a pass tells of its parameters, so that ranks can exchange weights and gradients behind it.
#pragma once

#include "nn/parameters.h"

namespace sigtrain {

class ParameterExchange {
 public:
  virtual ~ParameterExchange() = default;
  /// A layer is about to read the weight of this parameter.
  virtual void before_use(const Parameter& parameter) = 0;
  /// This micro-batch adds nothing more to the gradients of group `group` and the groups behind it.
  /// A model that does not tell is right too, but its exchange waits for the end of backward.
  virtual void gradients_complete(int group) = 0;
};

}  // namespace sigtrain
