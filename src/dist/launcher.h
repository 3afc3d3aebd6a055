// What the launcher of this process says of it in the environment: mpirun of Open MPI or MPICH, or
// Slurm's srun.
#pragma once

#include <functional>
#include <string>

namespace sigtrain {

struct Launch {
  std::string launcher;  // empty: started alone
  int ranks = 1;
  int local_rank = -1;  // -1: not told

  bool is_launched() const { return !launcher.empty(); }
};

/// `variable` gives the value of an environment variable, or null; as std::getenv does.
Launch read_launch(const std::function<const char*(const char*)>& variable);
/// Of this process's environment.
Launch read_launch();

}  // namespace sigtrain
