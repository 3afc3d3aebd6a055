// What every attention kernel takes: shapes and device pointers, in plain structs.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

namespace sigtrain::kernels {

/// One call: logits S[i, j] = scale q_i.k_j + bias + head_bias[h] - alibi_slopes[h] |i - j|, seen
/// if j <= i (causal), |i - j| < window (window > 0) and j < key_lengths[b]; weights are
/// softmax(S) or sigmoid(S). Query head h reads key/value head h / (heads / kv_heads).
struct AttentionShape {
  int batch, seq_len, heads, kv_heads, head_dim;
  bool softmax, causal;
  int window;  // 0: none
  float scale, bias;
};

/// Element (row, head, d) lies at data + row * row_stride + head * head_dim + d, where row =
/// sequence * seq_len + position.
struct HeadsPointer {
  __nv_bfloat16* data;
  int64_t row_stride;
};

/// Null pointers leave optional arguments out; all memory is the caller's.
struct AttentionForward {
  AttentionShape shape;
  HeadsPointer q, k, v, out;
  const __nv_bfloat16* head_bias;  // optional [heads]
  const float* alibi_slopes;       // optional [heads]
  const int32_t* key_lengths;      // optional [batch]
  float* log_sum_exp;              // [batch, heads, seq_len], softmax only
  float* row_sum;                  // optional [batch, heads, seq_len]
  int* tickets;  // two zeros that the call may change while it runs, and leaves as zeros
};

/// `forward` holds the forward call's arguments: softmax reads its out and log_sum_exp.
struct AttentionBackward {
  AttentionForward forward;
  HeadsPointer d_out, dq, dk, dv;
  float* d_head_bias;  // optional [heads], added to
  void* workspace;
  bool deterministic;  // the same bits every time; kernels that are so anyway ignore it
};

}  // namespace sigtrain::kernels
