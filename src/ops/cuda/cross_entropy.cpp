// Vocabulary projection and cross-entropy, over chunks of rows: cuBLASLt writes a chunk's logits,
// one kernel turns them into their own gradient, and two products take it on to x and the weight.
#include "kernels/cross_entropy.h"

#include <algorithm>

#include "ops/cuda/check.h"
#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/pointers.h"
#include "ops/cuda/scratch.h"

namespace sigtrain {
namespace {

static_assert(loss_sum_objective == 0 && loss_sum_nll == 1 && loss_sum_count == 2 &&
              loss_sum_correct == 3 && loss_sum_slots == 4);

/// Rows of logits start on 16 bytes.
int64_t row_stride(int64_t vocab_size) { return (vocab_size + 7) / 8 * 8; }

// Each chunk reads and writes the whole gradient of the weight: the larger it is, the less often.
int64_t rows_per_chunk(const CrossEntropyDesc& desc, int64_t rows, int64_t vocab_size) {
  if (desc.chunk_rows > 0) return std::min(desc.chunk_rows, rows);
  constexpr int64_t chunk_bytes = int64_t{256} << 20, multiple = 128;
  const int64_t fitting = chunk_bytes / (row_stride(vocab_size) * 2) / multiple * multiple;
  return std::min(rows, std::max(multiple, fitting));
}

struct Buffers {
  Buffers(Scratch& scratch, const CrossEntropyDesc& desc, int64_t rows, int64_t vocab_size)
      : chunk(rows_per_chunk(desc, rows, vocab_size)),
        results(scratch.take<kernels::CrossEntropyRow>(rows)),
        logits(scratch.take<__nv_bfloat16>(chunk * row_stride(vocab_size))) {}

  int64_t chunk;
  kernels::CrossEntropyRow* results;  // of all rows
  __nv_bfloat16* logits;              // of a chunk
};

}  // namespace

void CudaOps::vocab_cross_entropy(const CrossEntropyDesc& desc, const Tensor& x,
                                  const Tensor& weight, const Tensor& targets, const Tensor& sums,
                                  const Tensor& dx, const Tensor& dweight) {
  const int64_t rows = targets.numel(), width = weight.columns(), vocab_size = weight.rows();
  Scratch scratch(workspace_, "vocab_cross_entropy");
  const Buffers buffers(scratch, desc, rows, vocab_size);
  const int64_t stride = row_stride(vocab_size);

  for (int64_t begin = 0; begin < rows; begin += buffers.chunk) {
    const int64_t count = std::min(buffers.chunk, rows - begin);
    const __nv_bfloat16* chunk_x = bf16_pointer(x) + begin * width;
    MatmulCall projection;
    projection.transpose_b = true;
    projection.m = count, projection.n = vocab_size, projection.k = width;
    projection.a = chunk_x, projection.lda = width;
    projection.b = bf16_pointer(weight), projection.ldb = width;
    projection.c = buffers.logits, projection.ldc = stride;
    (*matmul_)(projection);

    kernels::CrossEntropy call{};
    call.settings = {desc.ignore_index, desc.label_smoothing, desc.z_loss, desc.gradient_scale};
    call.rows = count;
    call.vocab_size = vocab_size;
    call.row_stride = stride;
    call.logits = buffers.logits;
    call.gradient = bool(dx);
    call.targets = targets.as<int32_t>() + begin;
    call.first_row = begin;
    call.results = buffers.results + begin;
    call.fault = &state_->fault;
    kernels::cross_entropy(call, stream_);
    if (!dx) continue;

    MatmulCall to_x;
    to_x.m = count, to_x.n = width, to_x.k = vocab_size;
    to_x.a = buffers.logits, to_x.lda = stride;
    to_x.b = bf16_pointer(weight), to_x.ldb = width;
    to_x.c = bf16_pointer(dx) + begin * width, to_x.ldc = width;
    (*matmul_)(to_x);
    MatmulCall to_weight;
    to_weight.transpose_a = true;
    to_weight.m = vocab_size, to_weight.n = width, to_weight.k = count;
    to_weight.a = buffers.logits, to_weight.lda = stride;
    to_weight.b = chunk_x, to_weight.ldb = width;
    to_weight.c = dweight.as<float>(), to_weight.ldc = width;
    to_weight.c_is_float = true;
    to_weight.accumulate = true;
    (*matmul_)(to_weight);
  }
  kernels::add_cross_entropy_rows(buffers.results, rows, sums.as<float>(), stream_);
  check_launch("vocab_cross_entropy");
}

size_t CudaOps::vocab_cross_entropy_workspace(const CrossEntropyDesc& desc, int64_t rows, int64_t,
                                              int64_t vocab_size) const {
  Scratch scratch;
  const Buffers buffers(scratch, desc, rows, vocab_size);
  return scratch.bytes();
}

}  // namespace sigtrain
