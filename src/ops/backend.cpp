#include "ops/backend.h"

#include "core/error.h"
#include "ops/cpu/cpu_ops.h"

namespace sigtrain {

std::unique_ptr<Ops> make_backend(const std::string& device) {
  if (device == "cuda") {
    throw UsageError("--device cuda: this build has no CUDA backend; use --device cpu");
  }
  if (device != "auto" && device != "cpu")
    throw UsageError("--device {}: expects auto, cpu or cuda", device);
  return std::make_unique<CpuOps<float>>();
}

}  // namespace sigtrain
