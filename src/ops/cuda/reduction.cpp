// Reductions of a tensor to one number.
#include "kernels/reduction.h"

#include "ops/cuda/check.h"
#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/pointers.h"
#include "ops/cuda/scratch.h"

namespace sigtrain {
namespace {

double* partial_sums(Scratch& scratch, int64_t numel) {
  return scratch.take<double>(kernels::reduction_partials(numel));
}

void reduce(kernels::Reduction reduction, const Tensor& x, const Tensor& result, Scratch scratch,
            cudaStream_t stream, const char* operation) {
  double* partials = partial_sums(scratch, x.numel());
  if (x.dtype == DType::bf16) {
    kernels::reduce(reduction, bf16_pointer(x), x.numel(), partials, result.as<float>(), stream);
  } else {
    kernels::reduce(reduction, x.as<float>(), x.numel(), partials, result.as<float>(), stream);
  }
  check_launch(operation);
}

}  // namespace

void CudaOps::root_mean_square(const Tensor& x, const Tensor& result) {
  reduce(kernels::Reduction::root_mean_square, x, result, Scratch(workspace_, "root_mean_square"),
         stream_, "root_mean_square");
}

void CudaOps::mean(const Tensor& x, const Tensor& result) {
  reduce(kernels::Reduction::mean, x, result, Scratch(workspace_, "mean"), stream_, "mean");
}

void CudaOps::sum_of_squares(const Tensor& x, const Tensor& result) {
  reduce(kernels::Reduction::sum_of_squares, x, result, Scratch(workspace_, "sum_of_squares"),
         stream_, "sum_of_squares");
}

size_t CudaOps::reduction_workspace(int64_t numel) const {
  Scratch scratch;
  partial_sums(scratch, numel);
  return scratch.bytes();
}

}  // namespace sigtrain
