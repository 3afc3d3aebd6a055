// Residual add fused with RMSNorm (Zhang & Sennrich 2019) or LayerNorm (Ba et al. 2016), with
// LayerScale and stochastic depth on the branch that is added.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace sigtrain::kernels {

/// Rows up to this width: a thread owns 8 elements of a row, a block has 1024 threads.
constexpr int64_t norm_largest_width = 8192;

/// The branch that is added to the residual stream; null pointers leave factors out.
struct NormBranch {
  const __nv_bfloat16* delta;        // [rows, width]
  const __nv_bfloat16* layer_scale;  // [width]
  const float* sample_scale;         // [rows / rows_per_sample]
  int64_t rows_per_sample;
};

struct ResidualNormForward {
  int64_t rows, width;
  bool centered;  // LayerNorm
  float eps;
  const __nv_bfloat16* residual;  // [rows, width]
  NormBranch branch;              // delta null: residual_out is not written
  __nv_bfloat16* residual_out;    // [rows, width], may be residual
  const __nv_bfloat16* weight;    // [width]
  const __nv_bfloat16* bias;      // optional [width]
  __nv_bfloat16* y;               // [rows, width]
  float* mean;                    // [rows], centered only
  float* rstd;                    // [rows]
};

struct ResidualNormBackward {
  int64_t rows, width;
  bool centered, accumulate;
  const __nv_bfloat16* x;  // [rows, width]
  const __nv_bfloat16* weight;
  const float* mean;
  const float* rstd;
  const __nv_bfloat16* dy;    // [rows, width]
  __nv_bfloat16* d_residual;  // [rows, width]
  NormBranch branch;          // delta is read if d_layer_scale is present
  __nv_bfloat16* d_delta;     // optional [rows, width]
  float* dweight;             // [width], added to
  float* dbias;               // optional [width], added to
  float* d_layer_scale;       // optional [width], added to
  float* partials;            // residual_norm_backward_partials(rows, width) floats
};

void residual_norm_forward(const ResidualNormForward& call, cudaStream_t stream);
void residual_norm_backward(const ResidualNormBackward& call, cudaStream_t stream);
int64_t residual_norm_backward_partials(int64_t rows, int64_t width);

}  // namespace sigtrain::kernels
