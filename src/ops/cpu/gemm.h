// Matrix products of row-major matrices through CBLAS.
#pragma once

#include <cstdint>

namespace sigtrain {

enum class Transpose : bool { no, yes };

/// C = alpha op(A) op(B) + beta C with op(A) [m, k], op(B) [k, n], C [m, n] and leading dimensions
/// lda, ldb, ldc (elements between rows as stored). One thread; for the tiles of attention and
/// other code that is already parallel.
template <typename Real>
void gemm_tile(Transpose a_transpose, Transpose b_transpose, int64_t m, int64_t n, int64_t k,
               Real alpha, const Real* a, int64_t lda, const Real* b, int64_t ldb, Real beta,
               Real* c, int64_t ldc);

/// The same over all threads of OpenMP: C is cut into blocks by its shape alone, so that the result
/// is the same bits for any number of threads. Not to be called inside a parallel region.
template <typename Real>
void gemm(Transpose a_transpose, Transpose b_transpose, int64_t m, int64_t n, int64_t k, Real alpha,
          const Real* a, int64_t lda, const Real* b, int64_t ldb, Real beta, Real* c, int64_t ldc);

}  // namespace sigtrain
