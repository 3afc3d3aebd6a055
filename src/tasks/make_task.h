// The task of a run, as its config names it.
#pragma once

#include <memory>

#include "config/schema.h"
#include "tasks/task.h"

namespace sigtrain {

/// Fills in what the config leaves to the data or to other settings (a vocabulary or a number of
/// classes of 0, the tokens of an image), and builds the task's model. Reads of the data no more
/// than that; throws what opening it throws.
std::unique_ptr<Task> make_task(Config& config);

}  // namespace sigtrain
