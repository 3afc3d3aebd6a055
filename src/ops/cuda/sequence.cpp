// Sequences put together from a shared prefix, tokens and positions, and taken down to one row.
#include "kernels/sequence.h"

#include "ops/cuda/check.h"
#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/pointers.h"

namespace sigtrain {
namespace {

kernels::SequenceShape shape_of(const Tensor& y, const Tensor& prefix) {
  return {y.shape[0], y.shape[1], prefix ? prefix.shape[0] : 0, y.columns()};
}

int64_t pooled_tokens(ImagePool pool, const Tensor& x) {
  return pool == ImagePool::mean ? x.shape[1] : 1;
}

}  // namespace

void CudaOps::sequence_forward(const Tensor& prefix, const Tensor& x, const Tensor& positions,
                               const Tensor& y) {
  kernels::sequence_forward(shape_of(y, prefix), bf16_pointer(prefix), bf16_pointer(x),
                            bf16_pointer(positions), bf16_pointer(y), stream_);
  check_launch("sequence_forward");
}

void CudaOps::sequence_backward(const Tensor& dy, const Tensor& dx, const Tensor& dprefix,
                                const Tensor& dpositions) {
  kernels::sequence_backward(shape_of(dy, dprefix), bf16_pointer(dy), bf16_pointer(dx),
                             dprefix.as<float>(), dpositions.as<float>(), stream_);
  check_launch("sequence_backward");
}

void CudaOps::pool_forward(ImagePool pool, const Tensor& x, const Tensor& y) {
  kernels::pool_forward(x.shape[0], x.shape[1], pooled_tokens(pool, x), x.columns(),
                        bf16_pointer(x), bf16_pointer(y), stream_);
  check_launch("pool_forward");
}

void CudaOps::pool_backward(ImagePool pool, const Tensor& dy, const Tensor& dx) {
  kernels::pool_backward(dx.shape[0], dx.shape[1], pooled_tokens(pool, dx), dx.columns(),
                         bf16_pointer(dy), bf16_pointer(dx), stream_);
  check_launch("pool_backward");
}

}  // namespace sigtrain
