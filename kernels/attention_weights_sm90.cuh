// What stands between the products of Hopper's attention: products q.k in, weights (backward also
// their gradients) out, in the registers of a warpgroup's accumulators [64, Columns] (see
// wgmma_sm90.cuh for who holds what). This is all in which sigmoid and softmax differ.
//
// Forward, prepare_logits() masks (and adds ALiBi's distances), and weigh() turns logits into
// packed weights in one go: it guesses that the short way is right for the whole warp, and does the
// rest again where that was wrong.
//
// Backward, it comes in two parts. exponentiate() does one multiply-add and one exponential an
// element, while the tensor cores work; differentiate() does the rest, as plain arithmetic without
// anything to wait for.
#pragma once

#include "attention_policy.cuh"
#include "wgmma_sm90.cuh"

namespace sigtrain::kernels {

// ---- sigmoid
//
// The special-function unit gives 16 results a clock and the tensor cores take, at head_dim 64, 16
// logits a clock; every instruction more, of whatever kind, also takes time from the tensor cores
// (docs/flash_sigmoid.md). So what a logit costs in instructions decides the speed. From the
// exponential e = 2^(s log2 e) of the logit there are three ways on to sigmoid(s) = e / (1 + e). A
// warp takes the short one for a group of columns in which all its e are below 1/16. With b =
// -ln(seq_len) that is nearly all of them; which one is taken changes nothing but the last bits of
// bf16.
// (tanh.approx would cost as little as the short one, but its relative error is up to 1% at logits
// of -10 and 5% at -14, where b = -ln(seq_len) puts most of them.)

/// The short way, for e up to h. 1 / (1 + e) is replaced by the straight line a - b e of least
/// relative error on [0, h]: b = 1 / (1 + h + h^2 / 8), a = b (1 + h), relative error b h^2 / 8 =
/// 4.6e-4, an eighth of what rounding to bf16 does. In y = e / (1 + h), which costs nothing as the
/// constant of the logits takes the factor in, the line is a (1 - y). So the sigmoid is a constant
/// times y (1 - y), and its slope e / (1 + e)^2 another one times y (1 - y)^2, of twice the error;
/// constants are left to the end of what is summed.
struct ShortSigmoid {
  static constexpr float h = 0.0625f, b = 1.0f / (1.0f + h + h * h / 8.0f);
  /// log2(1 / (1 + h)): exponents with it are those of y.
  static constexpr float exponent_offset = -0.087462841f;
  static constexpr float largest_exponent = -4.0874628f;  // log2(h / (1 + h))
  static constexpr uint32_t largest_y = 0x3d713d71;       // h / (1 + h) as two bf16
  /// sigmoid(s) over y (1 - y), and its derivative over y (1 - y)^2.
  static constexpr float weight = (1.0f + h) * (1.0f + h) * b;
  static constexpr float slope = (1.0f + h) * weight * b;
};

/// sigmoid(s) of four logits, times `factor`, from their y; all four with one reciprocal, that of
/// the product of the denominators (so if one is NaN, all are). The clamp keeps that product
/// finite; sigmoid(s) is 1 to fp32 where it acts. Relative error a few parts in 10^7.
__device__ __forceinline__ void sigmoid_quad(float& e0, float& e1, float& e2, float& e3,
                                             float factor = 1.0f) {
  constexpr float unit = 1.0f + ShortSigmoid::h;
  const float a = min_or_nan(e0 * unit, 0x1p31f), b = min_or_nan(e1 * unit, 0x1p31f);
  const float c = min_or_nan(e2 * unit, 0x1p31f), d = min_or_nan(e3 * unit, 0x1p31f);
  const float one_b = 1.0f + b, one_d = 1.0f + d;
  const float a_one_b = a * one_b, c_one_d = c * one_d;
  const float ab = one_b + a_one_b, cd = one_d + c_one_d;  // (1 + a) (1 + b), (1 + c) (1 + d)
  const float r = reciprocal_fast(ab * cd) * factor;
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

/// Whether query - key has both signs in a tile.
__device__ __forceinline__ bool has_both_signs(int query, int query_count, int key, int key_count) {
  return query < key + key_count - 1 && query + query_count - 1 > key;
}

/// Whether weights need more than the fast path: a mask, or distances of both signs.
template <bool Alibi>
__device__ __forceinline__ bool is_edge(const VisibleBand& band, int query, int query_count,
                                        int key, int key_count) {
  return band.needs_mask(query, query_count, key, key_count) ||
         (Alibi && has_both_signs(query, query_count, key, key_count));
}

/// x, which is not known before y >= 0 is. For the order of instructions.
__device__ __forceinline__ float known_after(float x, float y) {
  return __uint_as_float(__float_as_uint(x) + (__float_as_uint(y) >> 31));
}

/// sigmoid of a thread's logits of `Columns` columns, in place and in two parts.
template <int Columns, bool Alibi>
class Sigmoids {
 public:
  /// Products in, y out; 0 where not visible.
  template <bool Edge, typename Position>
  __device__ void exponentiate(float (&s)[Columns / 2], const LogitFactors& factors,
                               const VisibleBand& band, const Position& at) {
    const LinearDistance<Position> linear(factors, at);
    // ptxas would begin with all multiply-adds; those of a group wait until the exponentials of the
    // last but one are begun. Worth 5% at head_dim 64.
    constexpr int in_group = 8;
    LogitFactors in_turn = factors;
#pragma unroll
    for (int i = 0; i < Columns / 2; i += 2) {
      if (!Edge && !Alibi && i % in_group == 0 && i >= 2 * in_group)
        in_turn.constant = known_after(factors.constant, s[i - in_group - 1]);
      float z[2];
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const int n = (i + j) / 4, e = (i + j) & 3;
        if (!Alibi)
          z[j] = in_turn.exponent(s[i + j]);
        else
          z[j] = Edge ? factors.exponent(s[i + j], at.distance(0, n, e))
                      : linear.exponent(factors, s[i + j], n, e);
        if (Edge && !at.visible(band, 0, n, e)) z[j] = -INFINITY;
      }
      // Of numbers below 0 the largest has the smallest bits, and numbers above 0 have smaller
      // ones.
      uint32_t& least = least_[i / group];
      least =
          __vimin3_u32(i % group == 0 ? ~0u : least, __float_as_uint(z[0]), __float_as_uint(z[1]));
      s[i] = exp2_fast(z[0]);
      s[i + 1] = exp2_fast(z[1]);
    }
  }
  /// What exponentiate() left in, weights out.
  __device__ void finish(float (&y)[Columns / 2]) const {
#pragma unroll
    for (int first = 0; first < Columns / 2; first += group) {
      if (is_small(first)) {
#pragma unroll
        for (int i = first; i < first + group; ++i) {
          const float weight = ShortSigmoid::weight * y[i];
          y[i] = fmaf(-weight, y[i], weight);
        }
      } else {
        finish_exactly(y, first, 1.0f);
      }
    }
  }
  /// What exponentiate() left and dP in; weights over ShortSigmoid::weight and dS = dP P (1 - P)
  /// over ShortSigmoid::slope out.
  __device__ void differentiate(float (&y)[Columns / 2], float (&ds)[Columns / 2]) const {
    constexpr float weight = ShortSigmoid::weight, slope = ShortSigmoid::slope;
#pragma unroll
    for (int first = 0; first < Columns / 2; first += group) {
      if (is_small(first)) {
#pragma unroll
        for (int i = first; i < first + group; ++i) {
          const float p = fmaf(-y[i], y[i], y[i]);
          ds[i] *= fmaf(-p, y[i], p);
          y[i] = p;
        }
      } else {
        finish_exactly(y, first, 1.0f / weight);
#pragma unroll
        for (int i = first; i < first + group; ++i)
          ds[i] *= y[i] * fmaf(-weight * weight / slope, y[i], weight / slope);
      }
    }
  }

 private:
  static constexpr int group =
      Columns % 64 == 0 ? 32 : 16;       // a thread's logits of 64 or 32 columns
  uint32_t least_[Columns / 2 / group];  // of the bits of a group's exponents

  __device__ bool is_small(int first) const {
    return __all_sync(0xffffffffu,
                      least_[first / group] >= __float_as_uint(ShortSigmoid::largest_exponent));
  }
  __device__ static void finish_exactly(float (&y)[Columns / 2], int first, float factor) {
#pragma unroll
    for (int i = first; i < first + group; i += 8) {
      // Of one row each: a query that is NaN shall not make another one so.
      sigmoid_quad(y[i], y[i + 1], y[i + 4], y[i + 5], factor);
      sigmoid_quad(y[i + 2], y[i + 3], y[i + 6], y[i + 7], factor);
    }
  }
};

/// Masks products, and with ALiBi makes exponents of them.
template <bool Edge, bool Alibi, int Count>
__device__ __forceinline__ void prepare_logits(float (&s)[Count], const LogitFactors& factors,
                                               const VisibleBand& band, const LogitPosition& at) {
  const LinearDistance<LogitPosition> linear(factors, at);
#pragma unroll
  for (int i = 0; i < Count; ++i) {
    if (Alibi)
      s[i] = Edge ? factors.exponent(s[i], at.distance(0, i / 4, i & 3))
                  : linear.exponent(factors, s[i], i / 4, i & 3);
    if (Edge && !at.visible(band, 0, i / 4, i & 3)) s[i] = -INFINITY;
  }
}

/// a b - c of packed numbers. ptxas makes one instruction of the two, which rounds once.
__device__ __forceinline__ uint32_t multiply_subtract(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t difference;
  asm("{\n"
      ".reg .b32 product;\n"
      "mul.bf16x2 product, %1, %2;\n"
      "sub.bf16x2 %0, product, %3;\n"
      "}\n"
      : "=r"(difference)
      : "r"(a), "r"(b), "r"(c));
  return difference;
}
__device__ __forceinline__ uint32_t multiply_packed(uint32_t a, uint32_t b) {
  uint32_t product;
  asm("mul.rn.bf16x2 %0, %1, %2;" : "=r"(product) : "r"(a), "r"(b));
  return product;
}

/// The middle way, for e up to 1/4, where for shorter sequences most groups with a large logit are:
/// a parabola for 1 / (1 + e), so that the sigmoid is ShortSigmoid::weight times y (1 - y (c - d
/// y)), of the same relative error. c and d are of least error among bf16 numbers.
struct MiddleSigmoid {
  static constexpr float c = 1.03125f, d = 0.77734375f;
  static constexpr uint32_t minus_c = 0xbf84bf84, minus_d = 0xbf47bf47;  // twice, in bf16
  static constexpr uint32_t largest_y = 0x3e713e71;  // 1/4 / (1 + h) as two bf16

  /// -y (1 - y (c - d y)), the sigmoid over -ShortSigmoid::weight.
  __device__ static float minus(float y) { return fmaf(y * fmaf(-d, y, c), y, -y); }
  /// Of two packed numbers.
  __device__ static uint32_t minus(uint32_t y) {
    return multiply_subtract(multiply_packed(y, multiply_subtract(y, minus_d, minus_c)), y, y);
  }
};

/// In the forward pass the short way is one multiply-add of packed numbers: y is rounded to bf16
/// before it and y^2 - y after it. That makes the weights' relative error 2.4e-3 (root mean square)
/// and 8e-3 at most, where rounding them once has 1.7e-3 and 4e-3. A part of it is systematic where
/// y^2 is about what y is rounded by: weights of 0.0015 to 0.003 are 1.3e-3 too large, those of
/// 0.003 to 0.006 1.6e-3 too small.
template <int Keys, bool Alibi>
struct SigmoidWeights {
  static constexpr bool is_softmax = false;
  static constexpr float exponent_offset = ShortSigmoid::exponent_offset;
  static constexpr float factor = -ShortSigmoid::weight;  // weight over y^2 - y

  float sum[2] = {};
  /// What the largest y of a chunk must be for there to be nothing more to do; no number that y can
  /// be if sums are wanted.
  uint32_t largest_y;

  __device__ explicit SigmoidWeights(const AttentionForward& call)
      : largest_y(call.row_sum ? ~0u : ShortSigmoid::largest_y) {
    compute_here(largest_y);
  }

  __device__ void weigh(uint32_t (&p)[Keys / 4], float (&s)[Keys / 2],
                        const LogitFactors& factors) {
    uint32_t most[2] = {ShortSigmoid::largest_y, ShortSigmoid::largest_y};
#pragma unroll
    for (int i = 0; i < Keys / 2; i += 4) {
#pragma unroll
      for (int j = i; j < i + 4; ++j) s[j] = exp2_fast(Alibi ? s[j] : factors.exponent(s[j]));
      const uint32_t y[2] = {pack_bf16(s[i], s[i + 1]), pack_bf16(s[i + 2], s[i + 3])};
      most[i / 4 & 1] = __vimax3_u16x2(most[i / 4 & 1], y[0], y[1]);  // of numbers above 0
      p[i / 2] = multiply_subtract(y[0], y[0], y[0]);
      p[i / 2 + 1] = multiply_subtract(y[1], y[1], y[1]);
    }
    pin(p);
    most[0] = __vimax3_u16x2(most[0], most[1], most[1]);
    if (!__all_sync(0xffffffffu, most[0] == largest_y)) {
      constexpr uint32_t middle = MiddleSigmoid::largest_y;
      const bool is_middle = __all_sync(0xffffffffu, __vmaxu2(most[0], middle) == middle);
      if (!is_middle) {
#pragma unroll
        for (int i = 0; i < Keys / 2; i += 8) {
          sigmoid_quad(s[i], s[i + 1], s[i + 4], s[i + 5], 1.0f / factor);
          sigmoid_quad(s[i + 2], s[i + 3], s[i + 6], s[i + 7], 1.0f / factor);
        }
#pragma unroll
        for (int i = 0; i < Keys / 4; ++i) p[i] = pack_bf16(s[2 * i], s[2 * i + 1]);
      } else if (!__all_sync(0xffffffffu, most[0] == ShortSigmoid::largest_y)) {
#pragma unroll
        for (int i = 0; i < Keys / 4; ++i)
          p[i] = MiddleSigmoid::minus(pack_bf16(s[2 * i], s[2 * i + 1]));
      }
      if (largest_y != ShortSigmoid::largest_y) {  // sums are wanted
#pragma unroll
        for (int i = 0; i < Keys / 2; ++i)
          sum[i >> 1 & 1] += is_middle ? MiddleSigmoid::minus(s[i]) : s[i];
      }
    }
  }

  /// Nothing that was accumulated has to change.
  template <int Count>
  __device__ void rescale(float (&)[Count]) const {}

  /// The factor that completes the output of row 8 half, and that row's statistics.
  __device__ float finish(int half, const LogitFactors&, float& row_sum, float&) const {
    row_sum = fmaf(sum_lanes<3>(sum[half]), factor, 0.0f);  // not -0
    return factor;
  }
};

/// A running reference and sum for each row (Milakov & Gimelshein 2018), in units of log2(e); the
/// constant of the logits cancels: without ALiBi it enters log_sum_exp only.
///
/// The reference need not be the maximum: it is near enough while no weight exceeds 2^8. So
/// weights are computed from the reference at hand, and only where one of a warp's is larger (in
/// the first chunk, and seldom after it) is the maximum found, the weights computed again and the
/// output rescaled. (That the rescaling can be put off is FlashAttention-4's idea.)
template <int Keys, bool Alibi>
struct SoftmaxWeights {
  static constexpr bool is_softmax = true;
  static constexpr float exponent_offset = 0.0f;
  static constexpr uint32_t largest = 0x43804380;  // 2^8 as two bf16

  float sum[2] = {}, reference[2] = {-INFINITY, -INFINITY}, correction[2];
  bool corrects;

  __device__ explicit SoftmaxWeights(const AttentionForward&) {}

  __device__ void weigh(uint32_t (&p)[Keys / 4], float (&s)[Keys / 2],
                        const LogitFactors& factors) {
    // Without ALiBi the maximum is taken of the products themselves, so that scaling and
    // subtraction are one multiply-add; needs_distance() keeps scales that would turn the order
    // round away.
    const float product = Alibi ? 1.0f : factors.product;
    const float sum_before[2] = {sum[0], sum[1]};
    uint32_t most[2] = {largest, largest};  // as integers, numbers above 0 are in order, below NaN
#pragma unroll
    for (int i = 0; i < Keys / 2; i += 4) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float e0 = exp2_fast(fmaf(s[i + 2 * half], product, -reference[half]));
        const float e1 = exp2_fast(fmaf(s[i + 2 * half + 1], product, -reference[half]));
        sum[half] += e0;
        sum[half] += e1;
        p[i / 2 + half] = pack_bf16(e0, e1);
      }
      most[i / 4 & 1] = __vimax3_u16x2(most[i / 4 & 1], p[i / 2], p[i / 2 + 1]);
    }
    pin(p);
    corrects = __any_sync(0xffffffffu, __vimax3_u16x2(most[0], most[1], most[1]) != largest);
    if (corrects) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float here = -INFINITY;
#pragma unroll
        for (int n = 0; n < Keys / 8; ++n)
          here = fmaxf(fmaxf(here, s[4 * n + 2 * half]), s[4 * n + 2 * half + 1]);
        const float now = fmaxf(reference[half], max_lanes<3>(here) * product);
        // A row that has seen no key yet: any finite number keeps its weights 0 and not NaN.
        const float offset = now == -INFINITY ? 0.0f : now;
        correction[half] = exp2_fast(reference[half] - offset);
        reference[half] = now;
        sum[half] = sum_before[half] * correction[half];
#pragma unroll
        for (int n = 0; n < Keys / 8; ++n) {
          float& s0 = s[4 * n + 2 * half];
          float& s1 = s[4 * n + 2 * half + 1];
          s0 = exp2_fast(fmaf(s0, product, -offset));
          s1 = exp2_fast(fmaf(s1, product, -offset));
          sum[half] += s0 + s1;
          p[2 * n + half] = pack_bf16(s0, s1);
        }
      }
    }
  }

  template <int Count>
  __device__ void rescale(float (&out)[Count]) const {
    if (corrects) {
#pragma unroll
      for (int i = 0; i < Count; ++i) out[i] *= correction[i >> 1 & 1];
    }
  }

  __device__ float finish(int half, const LogitFactors& factors, float& row_sum,
                          float& log_sum_exp) const {
    const float total = sum_lanes<3>(sum[half]);
    row_sum = total > 0.0f ? 1.0f : 0.0f;
    const float constant = Alibi ? 0.0f : factors.constant;  // with ALiBi the maximum holds it
    log_sum_exp = total > 0.0f ? (reference[half] + log2f(total) + constant) * ln_2 : -INFINITY;
    return total > 0.0f ? 1.0f / total : 0.0f;
  }
};

// ---- the backward pass

/// What softmax reads of each query: log2 of its sum of exponentials, and D = rowsum(dO O). At the
/// `n`-th group of 8 columns of a thread's logits, for its element e of 4. Of queries in columns,
/// from shared memory, beginning with the thread's first.
struct ColumnStatistics {
  struct Group {
    float4 of;
    __device__ float log2_sum(int e) const { return e & 1 ? of.z : of.x; }
    __device__ float dot(int e) const { return e & 1 ? of.w : of.y; }
  };
  SharedAddress begin;
  __device__ Group at(int n) const { return {load_shared_float4(begin + n * 64)}; }
};
/// The same of queries in rows: a thread has two.
struct RowStatistics {
  float2 of[2] = {};
  __device__ const RowStatistics& at(int) const { return *this; }
  __device__ float log2_sum(int e) const { return of[e >> 1].x; }
  __device__ float dot(int e) const { return of[e >> 1].y; }
};

/// dS = dP P (1 - P). Nothing but q, k, v and d_out is read.
template <int Columns, bool Alibi>
struct SigmoidGradientSm90 {
  static constexpr bool is_softmax = false;
  static constexpr float exponent_offset = ShortSigmoid::exponent_offset;
  using Formula = SigmoidGradient;
  /// What weights and dS are multiples of where differentiate() has left them.
  static constexpr float weight_unit = ShortSigmoid::weight, slope_unit = ShortSigmoid::slope;
  /// Makes 2^15 of the largest slope.
  static constexpr float slopes_up = 0x1p17f;

  Sigmoids<Columns, Alibi> sigmoids;

  template <bool Edge, typename Position, typename Statistics>
  __device__ void exponentiate(float (&s)[Columns / 2], const LogitFactors& factors,
                               const VisibleBand& band, const Position& at, const Statistics&) {
    sigmoids.template exponentiate<Edge>(s, factors, band, at);
  }
  /// What exponentiate() left in, P out.
  __device__ void finish(float (&p)[Columns / 2]) const { sigmoids.finish(p); }
  /// What exponentiate() left and dP in, P and dS out, in their units.
  template <typename Statistics>
  __device__ void differentiate(float (&p)[Columns / 2], float (&ds)[Columns / 2],
                                const Statistics&) const {
    sigmoids.differentiate(p, ds);
  }
};

/// dS = P (dP - D).
template <int Columns, bool Alibi>
struct SoftmaxGradientSm90 {
  static constexpr bool is_softmax = true;
  static constexpr float exponent_offset = 0.0f;
  using Formula = SoftmaxGradient;
  static constexpr float weight_unit = 1.0f, slope_unit = 1.0f;
  static constexpr float slopes_up = 0x1p15f;

  template <bool Edge, typename Position, typename Statistics>
  __device__ void exponentiate(float (&s)[Columns / 2], const LogitFactors& factors,
                               const VisibleBand& band, const Position& at,
                               const Statistics& statistics) const {
    const LinearDistance<Position> linear(factors, at);
#pragma unroll
    for (int n = 0; n < Columns / 8; ++n) {
      const auto of = statistics.at(n);
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        float& x = s[4 * n + e];
        if (!Alibi)
          x = fmaf(x, factors.product, factors.constant - of.log2_sum(e));
        else
          x = (Edge ? factors.exponent(x, at.distance(0, n, e))
                    : linear.exponent(factors, x, n, e)) -
              of.log2_sum(e);
        if (Edge && !at.visible(band, 0, n, e)) x = -INFINITY;
        x = exp2_fast(x);
      }
    }
  }
  __device__ void finish(float (&)[Columns / 2]) const {}
  template <typename Statistics>
  __device__ void differentiate(const float (&p)[Columns / 2], float (&ds)[Columns / 2],
                                const Statistics& statistics) const {
#pragma unroll
    for (int n = 0; n < Columns / 8; ++n) {
      const auto of = statistics.at(n);
#pragma unroll
      for (int e = 0; e < 4; ++e)
        ds[4 * n + e] =
            Formula::logit_gradient(Formula::slope(p[4 * n + e]), ds[4 * n + e], of.dot(e));
    }
  }
};

}  // namespace sigtrain::kernels
