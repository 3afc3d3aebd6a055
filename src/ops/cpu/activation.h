// The elementwise functions behind a linear layer or on a gate, and their derivatives, free of
// branches so that loops over them vectorise.
#pragma once

#include <numbers>

#include "ops/cpu/vector_math.h"
#include "ops/ops.h"

namespace sigtrain {

/// Phi(x), the standard normal distribution function.
template <typename Real>
inline Real normal_cdf(Real x) {
  return Real(0.5) * (1 + fast_erf(x * static_cast<Real>(1 / std::numbers::sqrt2)));
}

/// x Phi(x) (Hendrycks & Gimpel 2016, the exact form), with derivative Phi(x) + x phi(x).
struct Gelu {
  template <typename Real>
  static Real value(Real x) {
    return x * normal_cdf(x);
  }
  template <typename Real>
  static Real derivative(Real x) {
    constexpr Real peak = static_cast<Real>(std::numbers::inv_sqrtpi / std::numbers::sqrt2);
    return normal_cdf(x) + x * (peak * fast_exp(Real(-0.5) * x * x));
  }
};

/// max(x, 0)^2 (So et al. 2021). Written so that NaN stays NaN.
struct Relu2 {
  template <typename Real>
  static Real value(Real x) {
    return x < 0 ? Real(0) : x * x;
  }
  template <typename Real>
  static Real derivative(Real x) {
    return x < 0 ? Real(0) : 2 * x;
  }
};

/// The gate's of GLU (Dauphin et al. 2017).
struct Sigmoid {
  template <typename Real>
  static Real value(Real x) {
    return sigmoid(x);
  }
  template <typename Real>
  static ValueAndDerivative<Real> both(Real x) {
    return sigmoid_and_derivative(x);
  }
};

/// x sigmoid(x), the gate's of SwiGLU (Shazeer 2020).
struct Silu {
  template <typename Real>
  static Real value(Real x) {
    return x * sigmoid(x);
  }
  template <typename Real>
  static ValueAndDerivative<Real> both(Real x) {
    const auto s = sigmoid_and_derivative(x);
    return {x * s.value, s.value + x * s.derivative};
  }
};

}  // namespace sigtrain
