// Per-head RMSNorm of q and k (Henry et al. 2020), then rotary position embedding (Su et al. 2021).
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace sigtrain::kernels {

/// rows = batch * seq_len. Rows of qkv are (heads q, kv_heads k, kv_heads v) of head_dim.
struct QkShape {
  int64_t rows, seq_len;
  int heads, kv_heads, head_dim;
  float eps;
};

struct QkNormRopeForward {
  QkShape shape;
  const __nv_bfloat16* qkv;       // [rows, (heads + 2 kv_heads) head_dim]
  const __nv_bfloat16* q_weight;  // optional [head_dim]; both or neither
  const __nv_bfloat16* k_weight;
  const float* rope;      // optional [seq_len, head_dim]: cosines, then sines, of half the head
  __nv_bfloat16* qk_out;  // [rows, (heads + kv_heads) head_dim]
  float* rstd;            // [rows, heads + kv_heads], with weights
};

struct QkNormRopeBackward {
  QkShape shape;
  const __nv_bfloat16* qkv;
  const __nv_bfloat16* q_weight;
  const __nv_bfloat16* k_weight;
  const float* rope;
  const float* rstd;
  __nv_bfloat16* d_qkv;  // as qkv; its q and k columns are replaced
  float* dq_weight;      // [head_dim], added to, with weights
  float* dk_weight;
  float* partials;  // qk_norm_rope_backward_partials(shape) floats, with weights
};

/// Head dimensions that are multiples of 16, up to 512: lanes work on both halves of a head, 8
/// elements of each.
bool qk_norm_rope_supports(int64_t head_dim);
/// All bfloat16 and rope pointers start on 16 bytes.
void qk_norm_rope_forward(const QkNormRopeForward& call, cudaStream_t stream);
void qk_norm_rope_backward(const QkNormRopeBackward& call, cudaStream_t stream);
int64_t qk_norm_rope_backward_partials(const QkShape& shape);

}  // namespace sigtrain::kernels
