// Windows of frames and sinusoids at real positions.
#include "kernels/frames.h"

#include "ops/cuda/check.h"
#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/pointers.h"

namespace sigtrain {

void CudaOps::unfold(const UnfoldDesc& desc, const Tensor& x, const Tensor& lengths,
                     const Tensor& y) {
  kernels::unfold({desc.batch, desc.in_len, desc.out_len, desc.channels, desc.kernel, desc.stride,
                   desc.padding, x.as<float>(), lengths.as<int32_t>(), bf16_pointer(y)},
                  stream_);
  check_launch("unfold");
}

void CudaOps::add_sinusoids(const Tensor& positions, const Tensor& x) {
  kernels::add_sinusoids(positions.as<float>(), bf16_pointer(x), x.rows(), x.columns(), stream_);
  check_launch("add_sinusoids");
}

}  // namespace sigtrain
