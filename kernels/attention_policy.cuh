// What stands between the two products of attention: the only part in which sigmoid and softmax
// differ.
//
// Every exponential is a power of two: log2(e) and the sign are folded into the factors of the
// logit, so that a logit costs one multiply-add, and with ALiBi an addition and two multiply-adds.
#pragma once

#include "attention.h"
#include "attention_geometry.cuh"
#include "mma_sm80.cuh"

namespace sigtrain::kernels {

constexpr float log2_e = 1.4426950408889634f;
constexpr float ln_2 = 0.6931471805599453f;

/// True if a call needs the kernels with ALiBi. So does a scale that is not positive: they make no
/// use of its sign.
inline bool needs_distance(const AttentionForward& call) {
  return call.alibi_slopes != nullptr || !(call.shape.scale > 0.0f);
}

/// exponent = product * q.k + constant + distance * |i - j|
struct LogitFactors {
  float product, constant, distance;

  __device__ LogitFactors(const AttentionForward& call, int head, float sign) {
    const float bias =
        call.shape.bias + (call.head_bias ? __bfloat162float(call.head_bias[head]) : 0.0f);
    product = sign * log2_e * call.shape.scale;
    constant = sign * log2_e * bias;
    distance = call.alibi_slopes ? -sign * log2_e * call.alibi_slopes[head] : 0.0f;
  }
  __device__ float exponent(float x) const { return fmaf(x, product, constant); }
  __device__ float exponent(float x, float signed_distance) const {
    return fmaf(x, product, fmaf(fabsf(signed_distance), distance, constant));
  }
};

/// sigmoid(s) = 1 / (1 + 2^e) with e = -s log2(e), of two logits at once: 1/a = b/(ab) and
/// 1/b = a/(ab) share one reciprocal. That makes three special-function operations for two
/// elements instead of four, and those limit attention at head_dim 64. Accurate to a few parts in
/// 10^7 wherever sigmoid(s) > 2^-63; below, the clamp that keeps ab finite makes it 2^-63.
/// (tanh.approx would need one operation an element, but loses all accuracy below s = -8, just
/// where logits start at bias -ln(seq_len).)
__device__ __forceinline__ void sigmoid_pair(float e0, float e1, float& p0, float& p1) {
  const float a = 1.0f + exp2_fast(min_or_nan(e0, 63.0f));
  const float b = 1.0f + exp2_fast(min_or_nan(e1, 63.0f));
  const float r = reciprocal_fast(a * b);
  p0 = r * b;
  p1 = r * a;
}

/// Where a thread's accumulators lie among the logits: element (m, n, e) is of query
/// query + 16 m + 8 (e / 2) and key key + 8 n + e % 2.
struct LogitPosition {
  int query, key;
  __device__ bool visible(const VisibleBand& band, int m, int n, int e) const {
    return band.sees(query + 16 * m + 8 * (e >> 1), key + 8 * n + (e & 1));
  }
  __device__ float distance(int m, int n, int e) const {
    return static_cast<float>(query - key) +
           static_cast<float>(16 * m + 8 * (e >> 1) - 8 * n - (e & 1));
  }
};

/// The backward pass has its logits transposed: element (m, n, e) is of key key + 16 m + 8 (e / 2)
/// and query query + 8 n + e % 2.
struct TransposedPosition {
  int query, key;
  __device__ bool visible(const VisibleBand& band, int m, int n, int e) const {
    return band.sees(query + 8 * n + (e & 1), key + 16 * m + 8 * (e >> 1));
  }
  __device__ float distance(int m, int n, int e) const {
    return static_cast<float>(query - key) +
           static_cast<float>(8 * n + (e & 1) - 16 * m - 8 * (e >> 1));
  }
};

/// Products q.k in, sigmoid weights out, 0 where the key is not visible.
template <bool Masked, bool Alibi, int Rows, int Tiles, typename Position>
__device__ __forceinline__ void sigmoid_of_products(float (&s)[Rows][Tiles][4],
                                                    const LogitFactors& factors,
                                                    const VisibleBand& band, const Position& at) {
#pragma unroll
  for (int n = 0; n < Tiles; ++n) {
#pragma unroll
    for (int m = 0; m < Rows; ++m) {
#pragma unroll
      for (int e = 0; e < 4; e += 2) {
        float& s0 = s[m][n][e];
        float& s1 = s[m][n][e + 1];
        const float e0 = Alibi ? factors.exponent(s0, at.distance(m, n, e)) : factors.exponent(s0);
        const float e1 =
            Alibi ? factors.exponent(s1, at.distance(m, n, e + 1)) : factors.exponent(s1);
        sigmoid_pair(e0, e1, s0, s1);
        if (Masked) {
          if (!at.visible(band, m, n, e)) s0 = 0.0f;
          if (!at.visible(band, m, n, e + 1)) s1 = 0.0f;
        }
      }
    }
  }
}

/// Sigmoid: elementwise. No state but the sums of weights, for those who ask.
template <int Rows>
struct SigmoidPolicy {
  static constexpr bool is_softmax = false;
  static constexpr float exponent_sign = -1.0f;

  float sum[Rows][2] = {};
  bool wants_sum;

  __device__ explicit SigmoidPolicy(const AttentionForward& call) : wants_sum(call.row_sum) {}

  /// Products q.k in, weights out. The accumulated output stays as it is.
  template <bool Masked, bool Alibi, int Tiles, int OutTiles>
  __device__ void weigh(float (&s)[Rows][Tiles][4], float (&)[Rows][OutTiles][4],
                        const LogitFactors& factors, const VisibleBand& band,
                        const LogitPosition& at) {
    sigmoid_of_products<Masked, Alibi>(s, factors, band, at);
    if (wants_sum) {
#pragma unroll
      for (int m = 0; m < Rows; ++m)
#pragma unroll
        for (int n = 0; n < Tiles; ++n)
#pragma unroll
          for (int e = 0; e < 4; ++e) sum[m][e >> 1] += s[m][n][e];
    }
  }

  /// The factor that completes the output of row 16 m + 8 half, and that row's statistics.
  __device__ float finish(int m, int half, const LogitFactors&, float& row_sum, float&) const {
    row_sum = sum_lanes<3>(sum[m][half]);
    return 1.0f;
  }
};

/// Softmax: a running maximum and sum for each row (Milakov & Gimelshein 2018), in units of
/// log2(e); the constant of the logits cancels, and enters log_sum_exp only.
template <int Rows>
struct SoftmaxPolicy {
  static constexpr bool is_softmax = true;
  static constexpr float exponent_sign = 1.0f;

  float sum[Rows][2] = {};
  float largest[Rows][2];

  __device__ explicit SoftmaxPolicy(const AttentionForward&) {
#pragma unroll
    for (int m = 0; m < Rows; ++m) largest[m][0] = largest[m][1] = -INFINITY;
  }

  /// Products q.k in, weights relative to the running maximum out; what was accumulated so far is
  /// rescaled to it.
  template <bool Masked, bool Alibi, int Tiles, int OutTiles>
  __device__ void weigh(float (&s)[Rows][Tiles][4], float (&out)[Rows][OutTiles][4],
                        const LogitFactors& factors, const VisibleBand& band,
                        const LogitPosition& at) {
    // Without ALiBi the maximum is taken of the products themselves, so that scaling and
    // subtraction are one multiply-add; needs_distance() keeps scales that would turn the order
    // round away from here.
    if (Alibi) {
#pragma unroll
      for (int m = 0; m < Rows; ++m)
#pragma unroll
        for (int n = 0; n < Tiles; ++n)
#pragma unroll
          for (int e = 0; e < 4; ++e)
            s[m][n][e] =
                fmaf(s[m][n][e], factors.product, fabsf(at.distance(m, n, e)) * factors.distance);
    }
    const float product = Alibi ? 1.0f : factors.product;
#pragma unroll
    for (int m = 0; m < Rows; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float here = -INFINITY;
#pragma unroll
        for (int n = 0; n < Tiles; ++n) {
#pragma unroll
          for (int e = 2 * half; e < 2 * half + 2; ++e) {
            if (Masked && !at.visible(band, m, n, e)) s[m][n][e] = -INFINITY;
            here = fmaxf(here, s[m][n][e]);
          }
        }
        here = max_lanes<3>(here) * product;
        const float before = largest[m][half];
        const float now = fmaxf(before, here);
        // A row that has seen no key yet: any finite number keeps its weights 0 and not NaN.
        const float reference = Masked && now == -INFINITY ? 0.0f : now;
        const float correction = exp2_fast(before - reference);
        largest[m][half] = now;
        float total = 0.0f;
#pragma unroll
        for (int n = 0; n < Tiles; ++n) {
#pragma unroll
          for (int e = 2 * half; e < 2 * half + 2; ++e) {
            s[m][n][e] = exp2_fast(fmaf(s[m][n][e], product, -reference));
            total += s[m][n][e];
          }
        }
        sum[m][half] = fmaf(sum[m][half], correction, total);
#pragma unroll
        for (int n = 0; n < OutTiles; ++n) {
          out[m][n][2 * half] *= correction;
          out[m][n][2 * half + 1] *= correction;
        }
      }
    }
  }

  __device__ float finish(int m, int half, const LogitFactors& factors, float& row_sum,
                          float& log_sum_exp) const {
    const float total = sum_lanes<3>(sum[m][half]);
    row_sum = total > 0.0f ? 1.0f : 0.0f;
    log_sum_exp =
        total > 0.0f ? (largest[m][half] + log2f(total) + factors.constant) * ln_2 : -INFINITY;
    return total > 0.0f ? 1.0f / total : 0.0f;
  }
};

/// Backward of sigmoid: dS = P (1 - P) dP. Nothing but q, k, v and d_out is read.
struct SigmoidGradient {
  static constexpr bool is_softmax = false;
  static constexpr float exponent_sign = -1.0f;

  /// Products q.k in, weights out.
  template <bool Masked, bool Alibi, int Rows, int Tiles>
  __device__ static void weigh(float (&p)[Rows][Tiles][4], const LogitFactors& factors,
                               const VisibleBand& band, const TransposedPosition& at,
                               SharedAddress) {
    sigmoid_of_products<Masked, Alibi>(p, factors, band, at);
  }
  /// dS / (dP - offset), given the weight.
  __device__ static float slope(float p) { return fmaf(-p, p, p); }
  __device__ static float logit_gradient(float slope, float dp, float) { return slope * dp; }
};

/// Backward of softmax: dS = P (dP - D). `statistics` holds, for each query of the tile from query
/// on, log2 of the sum of exponentials and D = rowsum(dO O).
struct SoftmaxGradient {
  static constexpr bool is_softmax = true;
  static constexpr float exponent_sign = 1.0f;

  template <bool Masked, bool Alibi, int Rows, int Tiles>
  __device__ static void weigh(float (&p)[Rows][Tiles][4], const LogitFactors& factors,
                               const VisibleBand& band, const TransposedPosition& at,
                               SharedAddress statistics) {
#pragma unroll
    for (int n = 0; n < Tiles; ++n) {
      const float4 of = load_shared_float4(statistics + n * 64);
#pragma unroll
      for (int m = 0; m < Rows; ++m) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const float offset = factors.constant - (e & 1 ? of.z : of.x);
          float& value = p[m][n][e];
          value = exp2_fast(
              fmaf(value, factors.product,
                   Alibi ? fmaf(fabsf(at.distance(m, n, e)), factors.distance, offset) : offset));
          if (Masked && !at.visible(band, m, n, e)) value = 0.0f;
        }
      }
    }
  }
  __device__ static float slope(float p) { return p; }
  __device__ static float logit_gradient(float slope, float dp, float dot) {
    return slope * (dp - dot);
  }
};

}  // namespace sigtrain::kernels
