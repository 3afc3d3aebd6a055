// Token and position embedding.
#include "ops/cpu/cpu_ops.h"
#include "ops/cpu/partition.h"

namespace sigtrain {
namespace {

const int32_t* checked_tokens(const Tensor& tokens, int64_t vocab_size) {
  const int32_t* ids = tokens.as<int32_t>();
  for (int64_t n = 0; n < tokens.numel(); ++n) {
    if (ids[n] < 0 || ids[n] >= vocab_size) {
      throw Error(
          "token id {} in row {} of the batch is outside the vocabulary [0, {}): the data "
          "was tokenised with another vocabulary",
          ids[n], n, vocab_size);
    }
  }
  return ids;
}

}  // namespace

template <typename Real>
void CpuOps<Real>::embedding_forward(const Tensor& tokens, const Tensor& weight,
                                     const Tensor& positions, const Tensor& y) {
  const int64_t width = weight.columns();
  const int32_t* ids = checked_tokens(tokens, weight.rows());
  const Real *table = weight.as<Real>(), *position_table = positions.as<Real>();
  const int64_t seq_len = positions ? positions.rows() : 0;
  Real* out = y.as<Real>();
  for_rows(tokens.numel(), width, [=](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const Real* token_row = table + ids[n] * width;
      Real* row = out + n * width;
      if (position_table) {
        const Real* position_row = position_table + n % seq_len * width;
#pragma omp simd
        for (int64_t c = 0; c < width; ++c) row[c] = token_row[c] + position_row[c];
      } else {
        std::copy_n(token_row, width, row);
      }
    }
  });
}

template <typename Real>
void CpuOps<Real>::embedding_backward(const Tensor& tokens, const Tensor& dy, const Tensor& dweight,
                                      const Tensor& dpositions) {
  const int64_t rows = tokens.numel(), width = dweight.columns();
  const int32_t* ids = checked_tokens(tokens, dweight.rows());
  const Real* dout = dy.as<Real>();
  Real* dtable = dweight.as<Real>();
  // A token may occur in any row, so threads share columns, not rows, and add in row order.
  constexpr int64_t block_columns = 64;
  for_pieces(width, block_columns, [=](int64_t begin, int64_t end) {
    for (int64_t n = 0; n < rows; ++n) {
      const Real* row = dout + n * width;
      Real* sums = dtable + ids[n] * width;
#pragma omp simd
      for (int64_t c = begin; c < end; ++c) sums[c] += row[c];
    }
  });
  if (!dpositions) return;
  const int64_t seq_len = dpositions.rows();
  Real* dposition_table = dpositions.as<Real>();
  for_rows(std::min(rows, seq_len), width, [=](int64_t begin, int64_t end) {
    for (int64_t first = 0; first < rows; first += seq_len) {
      for (int64_t t = begin; t < std::min(end, rows - first); ++t) {
        const Real* row = dout + (first + t) * width;
        Real* sums = dposition_table + t * width;
#pragma omp simd
        for (int64_t c = 0; c < width; ++c) sums[c] += row[c];
      }
    }
  });
}

template <typename Real>
size_t CpuOps<Real>::embedding_backward_workspace(int64_t, int64_t, int64_t) const {
  return 0;
}

#define SIGTRAIN_INSTANTIATE(Real)                                                            \
  template void CpuOps<Real>::embedding_forward(const Tensor&, const Tensor&, const Tensor&,  \
                                                const Tensor&);                               \
  template void CpuOps<Real>::embedding_backward(const Tensor&, const Tensor&, const Tensor&, \
                                                 const Tensor&);                              \
  template size_t CpuOps<Real>::embedding_backward_workspace(int64_t, int64_t, int64_t) const;
SIGTRAIN_INSTANTIATE(float)
SIGTRAIN_INSTANTIATE(double)
#undef SIGTRAIN_INSTANTIATE

}  // namespace sigtrain
