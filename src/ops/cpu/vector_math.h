// exp, sigmoid and erf without branches or calls in float, so that `#pragma omp simd` loops over
// them vectorise; in double they are the standard library's, which the reference needs.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace sigtrain {

/// e^x. float: within 2 ulp; 0 where the result is below the smallest normal number (x < -87.33),
/// since denormals slow down the products that follow; infinity from 88.37 on, where the result
/// passes 2^127.5; NaN for NaN.
template <typename Real>
inline Real fast_exp(Real x) {
  return std::exp(x);
}

template <>
inline float fast_exp(float x) {
  constexpr float smallest = -87.33F, largest = 88.37F;
  // x = n ln 2 + r with |r| <= ln 2 / 2. Adding 1.5 * 2^23 leaves n in the low bits of the sum.
  constexpr float log2_e = 1.44269504F, round_to_integer = 12582912.0F;
  constexpr float ln2_high = 0.693359375F, ln2_low = -2.12194440e-4F;
  const float shifted = std::fma(x, log2_e, round_to_integer);
  const float n = shifted - round_to_integer;
  const float r = std::fma(n, -ln2_low, std::fma(n, -ln2_high, x));
  // Minimax fit of (e^r - 1 - r) / r^2, weighted by e^-r: 3.1e-9 of relative error in e^r.
  float p = 0.001381452791F;
  p = std::fma(p, r, 0.008368746293F);
  p = std::fma(p, r, 0.04166839104F);
  p = std::fma(p, r, 0.1666652039F);
  p = std::fma(p, r, 0.4999999343F);
  p = std::fma(p * r, r, r) + 1.0F;
  constexpr uint32_t exponent_of_one = 127U << 23;
  const float power =
      p * std::bit_cast<float>((std::bit_cast<uint32_t>(shifted) << 23) + exponent_of_one);
  // Outside the range the power is meaningless, but harmless to compute; no comparison holds for
  // NaN, which passes through.
  const float nonzero = x < smallest ? 0.0F : power;
  return x > largest ? std::numeric_limits<float>::infinity() : nonzero;
}

template <typename Real>
struct ValueAndDerivative {
  Real value, derivative;
};

/// sigmoid(x) and its derivative, both to a few ulp wherever they are normal numbers: 1 - value
/// would have lost all digits of the derivative at large x.
template <typename Real>
inline ValueAndDerivative<Real> sigmoid_and_derivative(Real x) {
  const Real e = fast_exp(-std::abs(x)), q = 1 / (1 + e);
  return {(x > 0 ? Real{1} : e) * q, e * q * q};
}

/// 1 / (1 + e^-x). float: relative error below 3e-7 for x >= -87, 0 further down.
template <typename Real>
inline Real sigmoid(Real x) {
  const Real e = fast_exp(-std::abs(x));
  return (x > 0 ? Real{1} : e) / (1 + e);
}

/// The error function. float: relative error below 3e-7.
template <typename Real>
inline Real fast_erf(Real x) {
  return std::erf(x);
}

template <>
inline float fast_erf(float x) {
  const float a = std::abs(x), square = x * x;
  // |x| < 1: minimax fit of erf(x) / x in x^2, 4.0e-8.
  float near = -0.0005631824956F;
  near = std::fma(near, square, 0.004917662864F);
  near = std::fma(near, square, -0.02671142347F);
  near = std::fma(near, square, 0.1128018505F);
  near = std::fma(near, square, -0.3761232707F);
  near = std::fma(near, square, 1.128379123F);
  // 1 <= |x| < 4: minimax fit of -log(erfc(x)), 1.1e-9 in erf; from 4 on erf rounds to 1.
  const float b = a < 4.0F ? a : 4.0F;
  float far = -0.0001863601354F;
  far = std::fma(far, b, 0.002947477503F);
  far = std::fma(far, b, -0.02183736079F);
  far = std::fma(far, b, 0.1031053126F);
  far = std::fma(far, b, 0.638146482F);
  far = std::fma(far, b, 1.127088192F);
  far = std::fma(far, b, 0.000341772817F);
  const float tail = std::copysign(1.0F - fast_exp(-far), x);
  return a >= 1.0F ? tail : x * near;
}

}  // namespace sigtrain
