// Token and position embedding.
#include "kernels/embedding.h"

#include <limits>

#include "ops/cuda/check.h"
#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/pointers.h"
#include "ops/cuda/scratch.h"

namespace sigtrain {
namespace {

void take_scratch(Scratch& scratch, int64_t rows, int64_t width, kernels::EmbeddingBackward& call) {
  for (auto& keys : call.keys) keys = scratch.take<uint32_t>(rows);
  for (auto& order : call.order) order = scratch.take<int32_t>(rows);
  call.partials = scratch.take<float>(kernels::embedding_backward_partials(rows, width));
}

}  // namespace

void CudaOps::embedding_forward(const Tensor& tokens, const Tensor& weight, const Tensor& positions,
                                const Tensor& y) {
  kernels::EmbeddingForward call{};
  call.rows = tokens.numel();
  call.width = weight.columns();
  call.vocab_size = weight.rows();
  call.seq_len = positions ? positions.rows() : 0;
  call.tokens = tokens.as<int32_t>();
  call.weight = bf16_pointer(weight);
  call.positions = bf16_pointer(positions);
  call.y = bf16_pointer(y);
  call.fault = &state_->fault;
  kernels::embedding_forward(call, stream_);
  check_launch("embedding_forward");
}

void CudaOps::embedding_backward(const Tensor& tokens, const Tensor& dy, const Tensor& dweight,
                                 const Tensor& dpositions) {
  if (tokens.numel() > std::numeric_limits<int32_t>::max())
    throw Error("embedding_backward: {} rows at a time are too many", tokens.numel());
  Scratch scratch(workspace_, "embedding_backward");
  kernels::EmbeddingBackward call{};
  call.rows = tokens.numel();
  call.width = dweight.columns();
  call.vocab_size = dweight.rows();
  call.seq_len = dpositions ? dpositions.rows() : 0;
  call.tokens = tokens.as<int32_t>();
  call.dy = bf16_pointer(dy);
  call.dweight = dweight.as<float>();
  call.dpositions = dpositions.as<float>();
  call.fault = &state_->fault;
  take_scratch(scratch, call.rows, call.width, call);
  kernels::embedding_backward(call, stream_);
  check_launch("embedding_backward");
}

size_t CudaOps::embedding_backward_workspace(int64_t rows, int64_t, int64_t width) const {
  Scratch scratch;
  kernels::EmbeddingBackward call{};
  take_scratch(scratch, rows, width, call);
  return scratch.bytes();
}

}  // namespace sigtrain
