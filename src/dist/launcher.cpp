#include "dist/launcher.h"

#include <cstdlib>
#include <string_view>

namespace sigtrain {
namespace {

struct Variables {
  const char* launcher;
  const char* rank;
  const char* ranks;
  const char* local_rank;
};

// The first whose rank and number of ranks are both set. Slurm's SLURM_NTASKS is not asked: it is
// set for a batch script too, which runs once; SLURM_STEP_NUM_TASKS is of what srun started.
constexpr Variables kKnown[] = {
    {"Open MPI's mpirun", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE",
     "OMPI_COMM_WORLD_LOCAL_RANK"},
    {"MPICH's mpirun", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"},
    {"srun", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"},
};

int number(const char* text, int otherwise) {
  if (text == nullptr) return otherwise;
  char* end = nullptr;
  const long value = std::strtol(text, &end, 10);
  return end != text && *end == '\0' && value >= 0 && value < 1 << 24 ? static_cast<int>(value)
                                                                      : otherwise;
}

}  // namespace

Launch read_launch(const std::function<const char*(const char*)>& variable) {
  for (const Variables& known : kKnown) {
    const int ranks = number(variable(known.ranks), 0);
    if (ranks < 1 || number(variable(known.rank), -1) < 0) continue;
    // What is started alone in a shell that srun opened is no rank of anything.
    if (std::string_view(known.launcher) == "srun" && ranks == 1) continue;
    return {known.launcher, ranks, number(variable(known.local_rank), -1)};
  }
  return {};
}

Launch read_launch() {
  return read_launch([](const char* name) { return std::getenv(name); });
}

}  // namespace sigtrain
