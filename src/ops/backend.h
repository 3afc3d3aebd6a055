// Which backend a run uses.
#pragma once

#include <memory>
#include <string>

#include "ops/ops.h"

namespace sigtrain {

/// `device` is auto, cpu or cuda; auto takes the GPU where this build and this machine have one.
/// Process `local_rank` of this machine takes the GPU of that number, or the only one it sees.
/// Throws UsageError for another word, for more processes than GPUs, and if cuda is asked for but
/// missing, saying what is missing.
std::unique_ptr<Ops> make_backend(const std::string& device, int local_rank = 0);

/// A planning backend in the place of a GPU that is not here: it knows everything but the sizes of
/// workspaces.
std::unique_ptr<Ops> make_stand_in_for_cuda();

/// As make_backend, to plan for alone: if cuda is asked for but missing, its stand-in.
std::unique_ptr<Ops> make_backend_to_plan_for(const std::string& device, int local_rank = 0);

}  // namespace sigtrain
