#include "ops/backend.h"

#include <spdlog/spdlog.h>

#include "core/error.h"
#include "ops/cpu/cpu_ops.h"
#if defined(SIGTRAIN_HAS_CUDA)
#include "ops/cuda/cuda_ops.h"
#endif

namespace sigtrain {
namespace {

#if defined(SIGTRAIN_HAS_CUDA)
std::string cuda_missing() { return CudaOps::unavailable_reason(); }
std::unique_ptr<Ops> make_cuda() { return std::make_unique<CudaOps>(); }
#else
std::string cuda_missing() {
  return std::string("this build has no CUDA backend; ") + SIGTRAIN_CUDA_MISSING;
}
std::unique_ptr<Ops> make_cuda() { throw Error("{}", cuda_missing()); }
#endif

}  // namespace

std::unique_ptr<Ops> make_backend(const std::string& device) {
  if (device != "auto" && device != "cpu" && device != "cuda")
    throw UsageError("--device {}: expects auto, cpu or cuda", device);
  if (device != "cpu") {
    const std::string missing = cuda_missing();
    if (missing.empty()) return make_cuda();
    if (device == "cuda") throw UsageError("--device cuda: {}; or use --device cpu", missing);
    spdlog::debug("running on the CPU: {}", missing);
  }
  return std::make_unique<CpuOps<float>>();
}

}  // namespace sigtrain
