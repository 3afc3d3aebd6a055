// Sums over the rows of matrices, in a fixed order: bias gradients, and the second stage of kernels
// that sum over rows.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <initializer_list>

namespace sigtrain::kernels {

/// A sum over `rows` rows, `stride` floats apart, that is added to `result`.
struct PartialSums {
  const float* partials;
  int64_t rows, stride;
  float* result;  // null: nothing to do
};
constexpr int most_partial_sums = 3;

/// result[c] += sum over r < rows of partials[r * stride + c], c < width, for each of `sums` (no
/// more than most_partial_sums) in one launch.
void add_partial_sums(std::initializer_list<PartialSums> sums, int64_t width, cudaStream_t stream);

/// result[c] += sum over rows of x [rows, width]. `partials` has column_sum_partials(rows, width)
/// floats.
void add_column_sums(const __nv_bfloat16* x, int64_t rows, int64_t width, float* result,
                     float* partials, cudaStream_t stream);
int64_t column_sum_partials(int64_t rows, int64_t width);

}  // namespace sigtrain::kernels
