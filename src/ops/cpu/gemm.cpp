#include "ops/cpu/gemm.h"

#include <cblas.h>

#include <algorithm>

namespace sigtrain {
namespace {

// OpenBLAS's own threads would split the sums by their number; ours split only the rows and columns
// of C.
const bool kBlasIsSingleThreaded = [] {
  openblas_set_num_threads(1);
  return true;
}();

CBLAS_TRANSPOSE cblas(Transpose transpose) {
  return transpose == Transpose::yes ? CblasTrans : CblasNoTrans;
}

/// How C is cut, by its shape alone.
struct Blocks {
  int64_t rows, columns;
  int64_t row_blocks, column_blocks;
};

Blocks cut(int64_t m, int64_t n) {
  // Blocks of 512 x 512 at most leave work for many cores; small matrices are cut further until
  // eight cores have some, but not below 128, where packing the operands would be a large share.
  constexpr int64_t largest = 512, smallest = 128, enough = 8;
  const auto ceil_div = [](int64_t a, int64_t b) { return (a + b - 1) / b; };
  int64_t row_blocks = std::max<int64_t>(1, ceil_div(m, largest)),
          column_blocks = std::max<int64_t>(1, ceil_div(n, largest));
  while (row_blocks * column_blocks < enough) {
    const bool rows_are_longer = m / row_blocks >= n / column_blocks;
    int64_t& pieces = rows_are_longer ? row_blocks : column_blocks;
    if ((rows_are_longer ? m : n) / (2 * pieces) < smallest) break;
    pieces *= 2;
  }
  // Equal pieces, on a multiple of the micro-kernels' tiles.
  const auto piece = [&](int64_t extent, int64_t count) {
    return std::max<int64_t>(32, ceil_div(ceil_div(extent, count), 32) * 32);
  };
  const int64_t rows = piece(m, row_blocks), columns = piece(n, column_blocks);
  return {rows, columns, ceil_div(m, rows), ceil_div(n, columns)};
}

}  // namespace

template <>
void gemm_tile(Transpose a_transpose, Transpose b_transpose, int64_t m, int64_t n, int64_t k,
               float alpha, const float* a, int64_t lda, const float* b, int64_t ldb, float beta,
               float* c, int64_t ldc) {
  cblas_sgemm(CblasRowMajor, cblas(a_transpose), cblas(b_transpose), m, n, k, alpha, a, lda, b, ldb,
              beta, c, ldc);
}

template <>
void gemm_tile(Transpose a_transpose, Transpose b_transpose, int64_t m, int64_t n, int64_t k,
               double alpha, const double* a, int64_t lda, const double* b, int64_t ldb,
               double beta, double* c, int64_t ldc) {
  cblas_dgemm(CblasRowMajor, cblas(a_transpose), cblas(b_transpose), m, n, k, alpha, a, lda, b, ldb,
              beta, c, ldc);
}

template <typename Real>
void gemm(Transpose a_transpose, Transpose b_transpose, int64_t m, int64_t n, int64_t k, Real alpha,
          const Real* a, int64_t lda, const Real* b, int64_t ldb, Real beta, Real* c, int64_t ldc) {
  const Blocks blocks = cut(m, n);
#pragma omp parallel for collapse(2) schedule(dynamic, 1)
  for (int64_t i = 0; i < blocks.row_blocks; ++i) {
    for (int64_t j = 0; j < blocks.column_blocks; ++j) {
      const int64_t row = i * blocks.rows, column = j * blocks.columns;
      const Real* a_block = a + (a_transpose == Transpose::yes ? row : row * lda);
      const Real* b_block = b + (b_transpose == Transpose::yes ? column * ldb : column);
      gemm_tile<Real>(a_transpose, b_transpose, std::min(blocks.rows, m - row),
                      std::min(blocks.columns, n - column), k, alpha, a_block, lda, b_block, ldb,
                      beta, c + row * ldc + column, ldc);
    }
  }
}

template void gemm(Transpose, Transpose, int64_t, int64_t, int64_t, float, const float*, int64_t,
                   const float*, int64_t, float, float*, int64_t);
template void gemm(Transpose, Transpose, int64_t, int64_t, int64_t, double, const double*, int64_t,
                   const double*, int64_t, double, double*, int64_t);

}  // namespace sigtrain
