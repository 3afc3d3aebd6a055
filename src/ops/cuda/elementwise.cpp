// The gated activations, dropout, stochastic depth and layer drop.
#include "kernels/elementwise.h"

#include "ops/cuda/check.h"
#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/pointers.h"

namespace sigtrain {

void CudaOps::swiglu_forward(const Tensor& x, const Tensor& y) {
  kernels::swiglu_forward(bf16_pointer(x), bf16_pointer(y), y.rows(), y.columns(), stream_);
  check_launch("swiglu_forward");
}

void CudaOps::swiglu_backward(const Tensor& x, const Tensor& dy, const Tensor& dx) {
  kernels::swiglu_backward(bf16_pointer(x), bf16_pointer(dy), bf16_pointer(dx), dy.rows(),
                           dy.columns(), stream_);
  check_launch("swiglu_backward");
}

void CudaOps::glu_forward(const Tensor& x, const Tensor& y) {
  kernels::glu_forward(bf16_pointer(x), bf16_pointer(y), y.rows(), y.columns(), stream_);
  check_launch("glu_forward");
}

void CudaOps::glu_backward(const Tensor& x, const Tensor& dy, const Tensor& dx) {
  kernels::glu_backward(bf16_pointer(x), bf16_pointer(dy), bf16_pointer(dx), dy.rows(),
                        dy.columns(), stream_);
  check_launch("glu_backward");
}

void CudaOps::dropout(const RandomStream& stream, double p, const Tensor& x, const Tensor& y) {
  kernels::dropout(stream, &state_->random_step, p, bf16_pointer(x), bf16_pointer(y), x.numel(),
                   stream_);
  check_launch("dropout");
}

void CudaOps::stochastic_depth(const RandomStream& stream, double p, const Tensor& scale) {
  kernels::stochastic_depth(stream, &state_->random_step, p, scale.as<float>(), scale.numel(),
                            stream_);
  check_launch("stochastic_depth");
}

void CudaOps::layer_drop(const RandomStream& stream, double p, const Tensor& scale) {
  kernels::layer_drop(stream, &state_->random_step, p, scale.as<float>(), scale.numel(), stream_);
  check_launch("layer_drop");
}

}  // namespace sigtrain
