// Residual add and norm.
#include "kernels/norm.h"

#include "ops/cuda/check.h"
#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/pointers.h"
#include "ops/cuda/scratch.h"

namespace sigtrain {
namespace {

void check_width(int64_t width) {
  if (width > kernels::norm_largest_width) {
    throw Error("norm: the CUDA backend normalises rows of up to {} elements, not {}",
                kernels::norm_largest_width, width);
  }
}

kernels::NormBranch branch_pointers(const ResidualBranch& branch, int64_t rows) {
  kernels::NormBranch pointers{};
  pointers.delta = bf16_pointer(branch.delta);
  pointers.layer_scale = bf16_pointer(branch.layer_scale);
  pointers.sample_scale = branch.sample_scale.as<float>();
  pointers.rows_per_sample = branch.sample_scale ? rows / branch.sample_scale.numel() : rows;
  return pointers;
}

float* sum_partials(Scratch& scratch, int64_t rows, int64_t width) {
  return scratch.take<float>(kernels::residual_norm_backward_partials(rows, width));
}

}  // namespace

void CudaOps::residual_norm_forward(const NormDesc& desc, const Tensor& residual,
                                    const ResidualBranch& branch, const Tensor& residual_out,
                                    const Tensor& weight, const Tensor& bias, const Tensor& y,
                                    const Tensor& mean, const Tensor& rstd) {
  check_width(residual.columns());
  kernels::ResidualNormForward call{};
  call.rows = residual.rows();
  call.width = residual.columns();
  call.centered = desc.kind == NormKind::layernorm;
  call.eps = static_cast<float>(desc.eps);
  call.residual = bf16_pointer(residual);
  call.branch = branch_pointers(branch, call.rows);
  call.residual_out = bf16_pointer(residual_out);
  call.weight = bf16_pointer(weight);
  call.bias = bf16_pointer(bias);
  call.y = bf16_pointer(y);
  call.mean = mean.as<float>();
  call.rstd = rstd.as<float>();
  kernels::residual_norm_forward(call, stream_);
  check_launch("residual_norm_forward");
}

void CudaOps::residual_norm_backward(const NormDesc& desc, const Tensor& x, const Tensor& weight,
                                     const Tensor& mean, const Tensor& rstd, const Tensor& dy,
                                     bool accumulate, const Tensor& d_residual,
                                     const Tensor& dweight, const Tensor& dbias,
                                     const ResidualBranch& branch, const Tensor& d_delta,
                                     const Tensor& d_layer_scale) {
  check_width(x.columns());
  Scratch scratch(workspace_, "residual_norm_backward");
  kernels::ResidualNormBackward call{};
  call.rows = x.rows();
  call.width = x.columns();
  call.centered = desc.kind == NormKind::layernorm;
  call.accumulate = accumulate;
  call.x = bf16_pointer(x);
  call.weight = bf16_pointer(weight);
  call.mean = mean.as<float>();
  call.rstd = rstd.as<float>();
  call.dy = bf16_pointer(dy);
  call.d_residual = bf16_pointer(d_residual);
  call.branch = branch_pointers(branch, call.rows);
  call.d_delta = bf16_pointer(d_delta);
  call.dweight = dweight.as<float>();
  call.dbias = dbias.as<float>();
  call.d_layer_scale = d_layer_scale.as<float>();
  call.partials = sum_partials(scratch, call.rows, call.width);
  kernels::residual_norm_backward(call, stream_);
  check_launch("residual_norm_backward");
}

size_t CudaOps::residual_norm_backward_workspace(int64_t rows, int64_t width) const {
  Scratch scratch;
  sum_partials(scratch, rows, width);
  return scratch.bytes();
}

}  // namespace sigtrain
