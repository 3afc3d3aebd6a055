// What environments of launchers say.
#include "dist/launcher.h"

#include <gtest/gtest.h>

#include <map>

namespace sigtrain {
namespace {

Launch launch_in(const std::map<std::string, std::string>& environment) {
  return read_launch([&](const char* name) {
    const auto found = environment.find(name);
    return found == environment.end() ? nullptr : found->second.c_str();
  });
}

TEST(Launcher, IsToldByItsVariables) {
  const Launch open_mpi = launch_in({{"OMPI_COMM_WORLD_RANK", "5"},
                                     {"OMPI_COMM_WORLD_SIZE", "16"},
                                     {"OMPI_COMM_WORLD_LOCAL_RANK", "1"}});
  EXPECT_EQ(open_mpi.launcher, "Open MPI's mpirun");
  EXPECT_EQ(open_mpi.ranks, 16);
  EXPECT_EQ(open_mpi.local_rank, 1);
  const Launch mpich = launch_in({{"PMI_RANK", "0"}, {"PMI_SIZE", "2"}, {"MPI_LOCALRANKID", "0"}});
  EXPECT_EQ(mpich.ranks, 2);
  EXPECT_EQ(mpich.local_rank, 0);
  const Launch slurm =
      launch_in({{"SLURM_PROCID", "9"}, {"SLURM_STEP_NUM_TASKS", "64"}, {"SLURM_LOCALID", "1"}});
  EXPECT_EQ(slurm.launcher, "srun");
  EXPECT_EQ(slurm.ranks, 64);
  EXPECT_EQ(slurm.local_rank, 1);
}

TEST(Launcher, OneRankOfMpirunIsLaunched) {
  const Launch launch = launch_in({{"OMPI_COMM_WORLD_RANK", "0"}, {"OMPI_COMM_WORLD_SIZE", "1"}});
  EXPECT_TRUE(launch.is_launched());
  EXPECT_EQ(launch.local_rank, -1) << "not told";
}

TEST(Launcher, AProcessOnItsOwnIsNot) {
  EXPECT_FALSE(launch_in({}).is_launched());
  // In the script of sbatch, and in a shell that srun opened.
  EXPECT_FALSE(launch_in({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "8"}}).is_launched());
  EXPECT_FALSE(launch_in({{"SLURM_PROCID", "0"}, {"SLURM_STEP_NUM_TASKS", "1"}}).is_launched());
  EXPECT_FALSE(
      launch_in({{"OMPI_COMM_WORLD_RANK", "x"}, {"OMPI_COMM_WORLD_SIZE", "4"}}).is_launched());
}

}  // namespace
}  // namespace sigtrain
