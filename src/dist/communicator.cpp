#include "dist/communicator.h"

#if defined(SIGTRAIN_HAS_MPI)
#include "dist/mpi_communicator.h"
#endif
#if defined(SIGTRAIN_HAS_NCCL)
#include "dist/nccl_communicator.h"
#include "ops/cuda/cuda_ops.h"
#endif

namespace sigtrain {

std::unique_ptr<Communicator> make_communicator(ProcessGroup& group, Ops& ops) {
  if (!group.is_distributed()) return std::make_unique<LocalCommunicator>(group);
  if (ops.name() == "cuda") {
#if defined(SIGTRAIN_HAS_NCCL)
    return std::make_unique<NcclCommunicator>(group, dynamic_cast<CudaOps&>(ops));
#else
    together(group, [&] {
      if (group.size() == 1) return;
      throw UsageError(
          "{} ranks were started on GPUs, but this build has no NCCL: {}; or use "
          "--device cpu",
          group.size(), SIGTRAIN_NCCL_MISSING);
    });
    return std::make_unique<LocalCommunicator>(group);
#endif
  }
#if defined(SIGTRAIN_HAS_MPI)
  if (auto* mpi = dynamic_cast<MpiGroup*>(&group)) return std::make_unique<MpiCommunicator>(*mpi);
#endif
  throw Error("the {} backend has no way to exchange tensors between ranks", ops.name());
}

}  // namespace sigtrain
