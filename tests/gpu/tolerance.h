// How far the GPU's results may lie from CpuOps<double>'s on the same inputs, and why. Inputs are
// rounded to bfloat16 (or float) first, so that only the computation differs.
//
// Unit roundoffs: bfloat16 keeps 8 significant bits, so rounding a result moves it by at most 2^-8
// of itself; float keeps 24, 2^-24.
//
// - A result that is rounded to bfloat16 once: bf16_roundoff of itself. What the float arithmetic
// in
//   front of it adds is `operations` float roundoffs of the largest term: for n additions in any
//   order at most n - 1 of them, and a few for exponentials and roots that are good to two units in
//   the last place.
// - A result computed from an intermediate that was itself rounded to bfloat16: one more
//   bf16_roundoff of the intermediate, times the largest derivative with respect to it.
// - fp32 results (statistics, gradients of parameters) are not rounded to bfloat16; they carry the
//   second kind of error only where they sum rounded intermediates.
// - Fast exponentials, reciprocals and reciprocal roots (__expf, __fdividef, rsqrtf) are good to
//   2^-20 for arguments of the tests' size.
#pragma once

#include <cmath>

namespace sigtrain {

constexpr double bf16_roundoff = 0x1p-8;
constexpr double float_roundoff = 0x1p-24;
constexpr double fast_function = 0x1p-20;

/// |gpu - cpu| <= relative |cpu| + absolute.
struct Tolerance {
  double relative = 0.0;
  double absolute = 0.0;

  Tolerance operator+(const Tolerance& other) const {
    return {relative + other.relative, absolute + other.absolute};
  }
};

/// The same bits, or values that both formats represent.
constexpr Tolerance exact{};

/// Rounded to bfloat16 once; `largest` is the size of the largest term of its formula.
inline Tolerance rounded(double largest) { return {bf16_roundoff, 16.0 * fast_function * largest}; }

/// A float sum of `terms` products of sizes up to `largest_product`.
inline Tolerance summed(double terms, double largest_product) {
  return {4.0 * float_roundoff, terms * float_roundoff * largest_product};
}

/// A sum of `terms` values that each were rounded to bfloat16 or contain values that were:
/// roundings are independent, so the sum's error grows as the root of their number; six standard
/// deviations of uniformly distributed roundings (whose deviation is 1/sqrt(3) of the bound).
inline Tolerance summed_roundings(double terms, double largest_term) {
  return {0.0, 6.0 / std::sqrt(3.0) * std::sqrt(terms) * bf16_roundoff * largest_term};
}

/// What the kernel's normal distribution function adds to x Phi(x) and its derivative: 3.8e-6 of
/// itself by its fit (kernels/elementwise.cu), and by the two roundings of the exponent x^2 / 2, at
/// most 88 where exp does not vanish in float, 88 * 2 * 2^-24 = 1.05e-5; in all below 2^-16. Below
/// the least normal float, 2^-126, results are 0. The derivative's two terms, each up to
/// `largest_term`, may cancel.
inline Tolerance gelu_tolerance(double largest_term) {
  return {0x1p-16, 0x1p-16 * largest_term + 0x1p-120};
}

}  // namespace sigtrain
