// Which backend a run uses.
#pragma once

#include <memory>
#include <string>

#include "ops/ops.h"

namespace sigtrain {

/// `device` is auto, cpu or cuda; auto takes the GPU where this build and this machine have one.
/// Throws UsageError for another word, and if cuda is asked for but missing, saying what is
/// missing.
std::unique_ptr<Ops> make_backend(const std::string& device);

}  // namespace sigtrain
