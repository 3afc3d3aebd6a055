// Elementwise kernels. Sizes are in elements; pointers need only the alignment of their elements:
// those on 16 bytes take the wide path.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "core/philox.h"

namespace sigtrain::kernels {

/// x[i] = value, by the bits of an element of 2, 4 or 8 bytes.
void fill(void* x, int64_t count, int element_bytes, uint64_t bits, cudaStream_t stream);
void convert(const float* x, __nv_bfloat16* y, int64_t count, cudaStream_t stream);
void convert(const __nv_bfloat16* x, float* y, int64_t count, cudaStream_t stream);
/// y += x
void add(const __nv_bfloat16* x, __nv_bfloat16* y, int64_t count, cudaStream_t stream);

/// y = x Phi(x), the exact GELU (Hendrycks & Gimpel 2016). y may be x.
void gelu_forward(const __nv_bfloat16* x, __nv_bfloat16* y, int64_t count, cudaStream_t stream);
/// dx [rows, width] *= GELU'(x), and sums[c] (optional) += sum over rows of dx, for which
/// `partials` has activation_backward_partials(rows, width) floats.
void gelu_backward(const __nv_bfloat16* x, __nv_bfloat16* dx, int64_t rows, int64_t width,
                   float* sums, float* partials, cudaStream_t stream);
/// y = max(x, 0)^2 (So et al. 2021). y may be x.
void relu2_forward(const __nv_bfloat16* x, __nv_bfloat16* y, int64_t count, cudaStream_t stream);
/// dx *= 2 max(x, 0), and sums likewise.
void relu2_backward(const __nv_bfloat16* x, __nv_bfloat16* dx, int64_t rows, int64_t width,
                    float* sums, float* partials, cudaStream_t stream);
int64_t activation_backward_partials(int64_t rows, int64_t width);

/// y [rows, hidden] = silu(gate) up, rows of x [rows, 2 hidden] being (gate, up) (Shazeer 2020).
void swiglu_forward(const __nv_bfloat16* x, __nv_bfloat16* y, int64_t rows, int64_t hidden,
                    cudaStream_t stream);
void swiglu_backward(const __nv_bfloat16* x, const __nv_bfloat16* dy, __nv_bfloat16* dx,
                     int64_t rows, int64_t hidden, cudaStream_t stream);

/// y [rows, hidden] = value sigmoid(gate), rows of x [rows, 2 hidden] being (value, gate) (Dauphin
/// et al. 2017).
void glu_forward(const __nv_bfloat16* x, __nv_bfloat16* y, int64_t rows, int64_t hidden,
                 cudaStream_t stream);
void glu_backward(const __nv_bfloat16* x, const __nv_bfloat16* dy, __nv_bfloat16* dx, int64_t rows,
                  int64_t hidden, cudaStream_t stream);

/// *value = step, in stream order.
void set_random_step(uint64_t* value, uint64_t step, cudaStream_t stream);
/// ++*value, in stream order.
void next_random_step(uint64_t* value, cudaStream_t stream);
/// y = uniform >= p ? x / (1 - p) : 0; element i takes word i % 4 of block i / 4 of `random` at
/// *step. y may be x.
void dropout(RandomStream random, const uint64_t* step, double p, const __nv_bfloat16* x,
             __nv_bfloat16* y, int64_t count, cudaStream_t stream);
/// scale[b] = uniform >= p ? 1 / (1 - p) : 0, from word 0 of block b.
void stochastic_depth(RandomStream random, const uint64_t* step, double p, float* scale,
                      int64_t count, cudaStream_t stream);
/// scale[b] = uniform >= p ? 1 : 0 for all b alike, from word 0 of block 0.
void layer_drop(RandomStream random, const uint64_t* step, double p, float* scale, int64_t count,
                cudaStream_t stream);

}  // namespace sigtrain::kernels
