#include "ops/cpu/gemm.h"

#include <cblas.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <string_view>

extern "C" char* openblas_get_corename();

namespace sigtrain {
namespace {

// OpenBLAS's own threads would split the sums by their number; ours split only the rows and columns
// of C.
const bool blas_is_single_threaded = [] {
  openblas_set_num_threads(1);
  return true;
}();

CBLAS_TRANSPOSE cblas(Transpose transpose) {
  return transpose == Transpose::yes ? CblasTrans : CblasNoTrans;
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
  // A block large enough that packing its operands is a small share, small enough that two to four
  // dozen cores find work.
  constexpr int64_t block_rows = 512, block_columns = 512;
  const int64_t row_blocks = (m + block_rows - 1) / block_rows,
                column_blocks = (n + block_columns - 1) / block_columns;
#pragma omp parallel for collapse(2) schedule(dynamic, 1)
  for (int64_t i = 0; i < row_blocks; ++i) {
    for (int64_t j = 0; j < column_blocks; ++j) {
      const int64_t row = i * block_rows, column = j * block_columns;
      const Real* a_block = a + (a_transpose == Transpose::yes ? row : row * lda);
      const Real* b_block = b + (b_transpose == Transpose::yes ? column * ldb : column);
      gemm_tile<Real>(a_transpose, b_transpose, std::min(block_rows, m - row),
                      std::min(block_columns, n - column), k, alpha, a_block, lda, b_block, ldb,
                      beta, c + row * ldc + column, ldc);
    }
  }
}

template void gemm(Transpose, Transpose, int64_t, int64_t, int64_t, float, const float*, int64_t,
                   const float*, int64_t, float, float*, int64_t);
template void gemm(Transpose, Transpose, int64_t, int64_t, int64_t, double, const double*, int64_t,
                   const double*, int64_t, double, double*, int64_t);

void select_blas_kernels(char** argv) {
#if defined(__x86_64__)
  if (std::getenv("OPENBLAS_CORETYPE") || !__builtin_cpu_supports("avx512dq") ||
      !__builtin_cpu_supports("avx512vl"))
    return;
  const std::string_view core = openblas_get_corename();
  if (core != "Haswell" && core != "Zen") return;
  setenv("OPENBLAS_CORETYPE", "SkylakeX", 1);
  execv("/proc/self/exe", argv);  // on failure: go on with the slower kernels
  unsetenv("OPENBLAS_CORETYPE");
#endif
}

}  // namespace sigtrain
