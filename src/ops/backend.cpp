#include "ops/backend.h"

#include <spdlog/spdlog.h>

#include "core/error.h"
#include "ops/cpu/cpu_ops.h"
#include "ops/planning_ops.h"
#if defined(SIGTRAIN_HAS_CUDA)
#include "ops/cuda/cuda_ops.h"
#endif

namespace sigtrain {
namespace {

#if defined(SIGTRAIN_HAS_CUDA)
std::string cuda_missing() { return CudaOps::unavailable_reason(); }
std::unique_ptr<Ops> make_cuda(int local_rank) {
  // Launchers that give every process a GPU of its own show it that one alone.
  const int gpus = CudaOps::count();
  if (gpus > 1 && local_rank >= gpus) {
    throw UsageError(
        "this is process {} of this machine (counted from 0), which has {} GPUs: start "
        "as many processes as GPUs, or use --device cpu",
        local_rank, gpus);
  }
  return std::make_unique<CudaOps>(gpus > 1 ? local_rank : 0);
}
#else
std::string cuda_missing() {
  return std::string("this build has no CUDA backend; ") + SIGTRAIN_CUDA_MISSING;
}
std::unique_ptr<Ops> make_cuda(int) { throw Error("{}", cuda_missing()); }
#endif

}  // namespace

std::unique_ptr<Ops> make_backend(const std::string& device, int local_rank) {
  if (device != "auto" && device != "cpu" && device != "cuda")
    throw UsageError("--device {}: expects auto, cpu or cuda", device);
  if (device != "cpu") {
    const std::string missing = cuda_missing();
    if (missing.empty()) return make_cuda(local_rank);
    if (device == "cuda") throw UsageError("--device cuda: {}; or use --device cpu", missing);
    spdlog::debug("running on the CPU: {}", missing);
  }
  return std::make_unique<CpuOps<float>>();
}

// Its name and dtypes are CudaOps', which builds without CUDA lack.
std::unique_ptr<Ops> make_stand_in_for_cuda() {
  return std::make_unique<PlanningOps>("cuda", DType::bf16, DType::f32);
}

std::unique_ptr<Ops> make_backend_to_plan_for(const std::string& device, int local_rank) {
  if (device == "cuda" && !cuda_missing().empty()) return make_stand_in_for_cuda();
  return make_backend(device, local_rank);
}

}  // namespace sigtrain
