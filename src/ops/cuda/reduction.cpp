// Reductions of a tensor to one number.
#include "kernels/reduction.h"

#include "kernels/frames.h"
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

void CudaOps::sequence_root_mean_square(const Tensor& x, const Tensor& lengths,
                                        const Tensor& result) {
  Scratch scratch(workspace_, "sequence_root_mean_square");
  const int64_t batch = lengths.numel();
  kernels::sequence_root_mean_square(bf16_pointer(x), lengths.as<int32_t>(), batch, 1,
                                     x.rows() / batch, x.columns(), scratch.take<double>(batch),
                                     result.as<float>(), stream_);
  check_launch("sequence_root_mean_square");
}

void CudaOps::sequence_mean(const Tensor& x, const Tensor& lengths, const Tensor& result) {
  Scratch scratch(workspace_, "sequence_mean");
  const int64_t batch = x.shape[0], inner = x.shape[1];
  kernels::sequence_mean(x.as<float>(), lengths.as<int32_t>(), batch, inner, x.shape[2], 1,
                         scratch.take<double>(batch * inner), result.as<float>(), stream_);
  check_launch("sequence_mean");
}

size_t CudaOps::reduction_workspace(int64_t numel) const {
  Scratch scratch;
  partial_sums(scratch, numel);
  return scratch.bytes();
}

size_t CudaOps::sequence_reduction_workspace(int64_t sequences) const {
  Scratch scratch;
  scratch.take<double>(sequences);
  return scratch.bytes();
}

}  // namespace sigtrain
