// What stands between the products of Hopper's attention: products q.k in, weights (backward also
// their gradients) out, in the registers of a warpgroup's accumulators [64, Columns] (see
// wgmma_sm90.cuh for who holds what). This is all in which sigmoid and softmax differ.
//
// It comes in two parts. exponentiate() does one multiply-add and one exponential an element, which
// keeps the special-function unit busy (a warp's 32 exponentials take it 8 clocks) while the tensor
// cores work; pack() or differentiate() does the rest, as plain arithmetic without anything to wait
// for, when the registers of the packed weights are free. Mixed, each element would wait for its
// own exponential and then for each of its own multiply-adds.
#pragma once

#include "attention_policy.cuh"

namespace sigtrain::kernels {

// ---- sigmoid
//
// The special-function unit gives 16 results a clock and the tensor cores take, at head_dim 64, 16
// logits a clock; every instruction more also takes turns with the tensor cores at the registers.
// So what a logit costs decides the speed. From the exponential e = 2^(s log2 e) of the logit there
// are two ways on to sigmoid(s) = e / (1 + e). A warp takes the short one for a group of columns in
// which all its e are below 1/16. With b = -ln(seq_len) that is nearly all of them; which one is
// taken changes nothing but the last bits.
// (tanh.approx would cost as little as the short one, but its relative error is up to 1% at logits
// of -10 and 5% at -14, where b = -ln(seq_len) puts most of them.)

/// What is exponentiated is z = s log2(e) + 4, whose sign tells whether e is below 1/16; so 16 e is
/// what comes out.
constexpr float small_offset = 4.0f;

/// sigmoid(s) from 16 e <= 1. 1 / (1 + e) is replaced by the straight line a - b e of least
/// relative error on [0, h], h = 1/16: b = 1 / (1 + h + h^2 / 8), a = b (1 + h), relative error b
/// h^2 / 8 = 4.6e-4, a quarter of what rounding to bf16 does.
__device__ __forceinline__ float sigmoid_small(float e) {
  constexpr float h = 0.0625f, b = 1.0f / (1.0f + h + h * h / 8.0f), a = b * (1.0f + h);
  return e * fmaf(-b * h * h, e, a * h);
}

/// sigmoid(s) of four logits from 16 e each, all four with one reciprocal, that of the product of
/// the denominators (so if one is NaN, all are). The clamp keeps that product finite; sigmoid(s) is
/// 1 to fp32 where it acts. Relative error a few parts in 10^7.
__device__ __forceinline__ void sigmoid_quad(float& e0, float& e1, float& e2, float& e3) {
  const float a = min_or_nan(e0 * 0.0625f, 0x1p31f), b = min_or_nan(e1 * 0.0625f, 0x1p31f);
  const float c = min_or_nan(e2 * 0.0625f, 0x1p31f), d = min_or_nan(e3 * 0.0625f, 0x1p31f);
  const float one_b = 1.0f + b, one_d = 1.0f + d;
  const float a_one_b = a * one_b, c_one_d = c * one_d;
  const float ab = one_b + a_one_b, cd = one_d + c_one_d;  // (1 + a) (1 + b), (1 + c) (1 + d)
  const float r = reciprocal_fast(ab * cd);
  const float over_ab = r * cd, over_cd = r * ab;
  e0 = a_one_b * over_ab;
  e1 = fmaf(b, a, b) * over_ab;
  e2 = c_one_d * over_cd;
  e3 = fmaf(d, c, d) * over_cd;
}

/// How the distance query - key changes along the columns of a thread's logits: they are keys in
/// the forward pass, queries in the backward pass.
template <typename Position>
constexpr int column_direction = 0;
template <>
constexpr int column_direction<LogitPosition> = -1;
template <>
constexpr int column_direction<TransposedPosition> = 1;

/// Exponents with ALiBi away from the diagonal, where |query - key| has one sign: a value for each
/// of a thread's two rows, and a slope along the columns.
template <typename Position>
struct LinearDistance {
  static constexpr int direction = column_direction<Position>;
  float row[2], slope;
  __device__ LinearDistance(const LogitFactors& factors, const Position& at) {
    slope = at.query > at.key ? factors.distance : -factors.distance;
#pragma unroll
    for (int half = 0; half < 2; ++half)
      row[half] = fmaf(static_cast<float>(at.query - at.key - direction * 8 * half), slope,
                       factors.constant);
  }
  __device__ float exponent(const LogitFactors& factors, float x, int n, int e) const {
    return fmaf(x, factors.product,
                fmaf(static_cast<float>(direction * (8 * n + (e & 1))), slope, row[e >> 1]));
  }
};

/// Whether weights need more than the fast path: a mask, or distances of both signs.
template <bool Alibi>
__device__ __forceinline__ bool is_edge(const VisibleBand& band, int query, int query_count,
                                        int key, int key_count) {
  const bool both_signs = query < key + key_count - 1 && query + query_count - 1 > key;
  return band.needs_mask(query, query_count, key, key_count) || (Alibi && both_signs);
}

/// sigmoid of a thread's logits of `Columns` columns, in place and in two parts.
template <int Columns, bool Alibi>
class Sigmoids {
 public:
  /// Products in, 16 times the exponentials out; 0 where not visible.
  template <bool Edge, typename Position>
  __device__ void exponentiate(float (&s)[Columns / 2], const LogitFactors& factors,
                               const VisibleBand& band, const Position& at) {
    const LinearDistance<Position> linear(factors, at);
#pragma unroll
    for (int i = 0; i < Columns / 2; ++i) {
      float z;
      if (!Alibi)
        z = factors.exponent(s[i]);
      else
        z = Edge ? factors.exponent(s[i], at.distance(0, i / 4, i & 3))
                 : linear.exponent(factors, s[i], i / 4, i & 3);
      if (Edge && !at.visible(band, 0, i / 4, i & 3)) z = -INFINITY;
      uint32_t& all = negative_[i / group];
      all = i % group == 0 ? __float_as_uint(z) : all & __float_as_uint(z);
      s[i] = exp2_fast(z);
    }
  }
  /// What exponentiate() left in, weights out.
  __device__ void finish(float (&e)[Columns / 2]) const {
#pragma unroll
    for (int first = 0; first < Columns / 2; first += group) {
      if (__all_sync(0xffffffffu, static_cast<int>(negative_[first / group]) < 0)) {
#pragma unroll
        for (int i = first; i < first + group; ++i) e[i] = sigmoid_small(e[i]);
      } else {
#pragma unroll
        for (int i = first; i < first + group; i += 8) {
          // Of one row each: a query that is NaN shall not make another one so.
          sigmoid_quad(e[i], e[i + 1], e[i + 4], e[i + 5]);
          sigmoid_quad(e[i + 2], e[i + 3], e[i + 6], e[i + 7]);
        }
      }
    }
  }

 private:
  static constexpr int group =
      Columns % 64 == 0 ? 32 : 16;  // a thread's logits of 64 or 32 columns
  uint32_t
      negative_[Columns / 2 / group];  // sign bit: all of the thread's z of a group are negative
};

template <int Keys, bool Alibi>
struct SigmoidWeights {
  static constexpr bool is_softmax = false;
  static constexpr float exponent_offset = small_offset;

  Sigmoids<Keys, Alibi> sigmoids;
  float sum[2] = {};
  bool wants_sum;

  __device__ explicit SigmoidWeights(const AttentionForward& call) : wants_sum(call.row_sum) {}

  template <bool Edge>
  __device__ void exponentiate(float (&s)[Keys / 2], const LogitFactors& factors,
                               const VisibleBand& band, const LogitPosition& at) {
    sigmoids.template exponentiate<Edge>(s, factors, band, at);
  }

  __device__ void pack(uint32_t (&p)[Keys / 4], float (&e)[Keys / 2]) {
    sigmoids.finish(e);
#pragma unroll
    for (int i = 0; i < Keys / 4; ++i) p[i] = pack_bf16(e[2 * i], e[2 * i + 1]);
    if (wants_sum) {
#pragma unroll
      for (int i = 0; i < Keys / 2; ++i) sum[i >> 1 & 1] += e[i];
    }
  }

  /// Nothing that was accumulated has to change.
  template <int Count>
  __device__ void rescale(float (&)[Count]) const {}

  /// The factor that completes the output of row 8 half, and that row's statistics.
  __device__ float finish(int half, const LogitFactors&, float& row_sum, float&) const {
    row_sum = sum_lanes<3>(sum[half]);
    return 1.0f;
  }
};

/// A running maximum and sum for each row (Milakov & Gimelshein 2018), in units of log2(e); the
/// constant of the logits cancels: without ALiBi it enters log_sum_exp only.
template <int Keys, bool Alibi>
struct SoftmaxWeights {
  static constexpr bool is_softmax = true;
  static constexpr float exponent_offset = 0.0f;

  float sum[2] = {}, largest[2] = {-INFINITY, -INFINITY}, correction[2] = {1.0f, 1.0f};

  __device__ explicit SoftmaxWeights(const AttentionForward&) {}

  template <bool Edge>
  __device__ void exponentiate(float (&s)[Keys / 2], const LogitFactors& factors,
                               const VisibleBand& band, const LogitPosition& at) {
    // Without ALiBi the maximum is taken of the products themselves, so that scaling and
    // subtraction are one multiply-add; needs_distance() keeps scales that would turn the order
    // round away.
    if (Alibi) {
      const LinearDistance<LogitPosition> linear(factors, at);
#pragma unroll
      for (int i = 0; i < Keys / 2; ++i) {
        s[i] = Edge ? factors.exponent(s[i], at.distance(0, i / 4, i & 3))
                    : linear.exponent(factors, s[i], i / 4, i & 3);
      }
    }
    const float product = Alibi ? 1.0f : factors.product;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float here = -INFINITY;
#pragma unroll
      for (int n = 0; n < Keys / 8; ++n) {
#pragma unroll
        for (int e = 2 * half; e < 2 * half + 2; ++e) {
          if (Edge && !at.visible(band, 0, n, e)) s[4 * n + e] = -INFINITY;
          here = fmaxf(here, s[4 * n + e]);
        }
      }
      here = max_lanes<3>(here) * product;
      const float now = fmaxf(largest[half], here);
      // A row that has seen no key yet: any finite number keeps its weights 0 and not NaN.
      const float reference = Edge && now == -INFINITY ? 0.0f : now;
      correction[half] = exp2_fast(largest[half] - reference);
      largest[half] = now;
      float total = 0.0f;
#pragma unroll
      for (int n = 0; n < Keys / 8; ++n) {
#pragma unroll
        for (int e = 2 * half; e < 2 * half + 2; ++e) {
          s[4 * n + e] = exp2_fast(fmaf(s[4 * n + e], product, -reference));
          total += s[4 * n + e];
        }
      }
      sum[half] = fmaf(sum[half], correction[half], total);
    }
  }

  __device__ void pack(uint32_t (&p)[Keys / 4], const float (&s)[Keys / 2]) const {
#pragma unroll
    for (int i = 0; i < Keys / 4; ++i) p[i] = pack_bf16(s[2 * i], s[2 * i + 1]);
  }

  template <int Count>
  __device__ void rescale(float (&out)[Count]) const {
#pragma unroll
    for (int i = 0; i < Count; ++i) out[i] *= correction[i >> 1 & 1];
  }

  __device__ float finish(int half, const LogitFactors& factors, float& row_sum,
                          float& log_sum_exp) const {
    const float total = sum_lanes<3>(sum[half]);
    row_sum = total > 0.0f ? 1.0f : 0.0f;
    const float constant = Alibi ? 0.0f : factors.constant;  // with ALiBi the maximum holds it
    log_sum_exp = total > 0.0f ? (largest[half] + log2f(total) + constant) * ln_2 : -INFINITY;
    return total > 0.0f ? 1.0f / total : 0.0f;
  }
};

// ---- the backward pass: logits are transposed, a row is a key and a column a query

/// dS = dP P (1 - P). Nothing but q, k, v and d_out is read.
template <int Queries, bool Alibi>
struct SigmoidGradientSm90 {
  static constexpr bool is_softmax = false;
  static constexpr float exponent_offset = small_offset;

  Sigmoids<Queries, Alibi> sigmoids;

  template <bool Edge>
  __device__ void exponentiate(float (&s)[Queries / 2], const LogitFactors& factors,
                               const VisibleBand& band, const TransposedPosition& at,
                               SharedAddress) {
    sigmoids.template exponentiate<Edge>(s, factors, band, at);
  }
  /// What exponentiate() left and dP in, P and dS out.
  __device__ void differentiate(float (&p)[Queries / 2], float (&ds)[Queries / 2],
                                SharedAddress) const {
    sigmoids.finish(p);
#pragma unroll
    for (int i = 0; i < Queries / 2; ++i) ds[i] *= fmaf(-p[i], p[i], p[i]);
  }
};

/// dS = P (dP - D). `statistics` holds log2 of the sum of exponentials and D = rowsum(dO O) of the
/// tile's queries, beginning with the thread's first.
template <int Queries, bool Alibi>
struct SoftmaxGradientSm90 {
  static constexpr bool is_softmax = true;
  static constexpr float exponent_offset = 0.0f;

  template <bool Edge>
  __device__ void exponentiate(float (&s)[Queries / 2], const LogitFactors& factors,
                               const VisibleBand& band, const TransposedPosition& at,
                               SharedAddress statistics) const {
    const LinearDistance<TransposedPosition> linear(factors, at);
#pragma unroll
    for (int n = 0; n < Queries / 8; ++n) {
      const float4 of = load_shared_float4(statistics + n * 64);
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        float& x = s[4 * n + e];
        const float log2_sum = e & 1 ? of.z : of.x;
        if (!Alibi)
          x = fmaf(x, factors.product, factors.constant - log2_sum);
        else
          x = (Edge ? factors.exponent(x, at.distance(0, n, e))
                    : linear.exponent(factors, x, n, e)) -
              log2_sum;
        if (Edge && !at.visible(band, 0, n, e)) x = -INFINITY;
        x = exp2_fast(x);
      }
    }
  }
  __device__ void differentiate(const float (&p)[Queries / 2], float (&ds)[Queries / 2],
                                SharedAddress statistics) const {
#pragma unroll
    for (int n = 0; n < Queries / 8; ++n) {
      const float4 of = load_shared_float4(statistics + n * 64);
#pragma unroll
      for (int e = 0; e < 4; ++e)
        ds[4 * n + e] = p[4 * n + e] * (ds[4 * n + e] - (e & 1 ? of.w : of.y));
    }
  }
};

}  // namespace sigtrain::kernels
