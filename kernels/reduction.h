// Reductions of a tensor to one number, the same bits every time.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace sigtrain::kernels {

enum class Reduction { sum_of_squares, root_mean_square, mean };

/// `partials` has reduction_partials(count) doubles. Terms are added in float inside a thread, in
/// double beyond it: a square beyond the range of float makes the result infinite.
void reduce(Reduction reduction, const float* x, int64_t count, double* partials, float* result,
            cudaStream_t stream);
void reduce(Reduction reduction, const __nv_bfloat16* x, int64_t count, double* partials,
            float* result, cudaStream_t stream);
int64_t reduction_partials(int64_t count);

}  // namespace sigtrain::kernels
