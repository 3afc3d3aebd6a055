// Activations by themselves: those of activation.h, and the gated ones: SwiGLU (Shazeer
// 2020) and GLU (Dauphin et al. 2017).
#include "ops/cpu/activation.h"

#include "ops/cpu/cpu_ops.h"
#include "ops/cpu/partition.h"
#include "ops/cpu/vector_math.h"

namespace sigtrain {
namespace {

template <typename Function, typename Real>
void apply(const Tensor& x, const Tensor& y) {
  const Real* in = x.as<Real>();
  Real* out = y.as<Real>();
  // Row by row, as linear_forward goes, so that the bits are its bits.
  const int64_t width = y.columns();
  for_rows(y.rows(), width, [=](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const Real* in_row = in + n * width;
      Real* out_row = out + n * width;
#pragma omp simd
      for (int64_t i = 0; i < width; ++i) out_row[i] = Function::value(in_row[i]);
    }
  });
}

}  // namespace

template <typename Real>
void CpuOps<Real>::activation_forward(Activation activation, const Tensor& x, const Tensor& y) {
  switch (activation) {
    case Activation::none:
      break;
    case Activation::gelu:
      return apply<Gelu, Real>(x, y);
    case Activation::relu2:
      return apply<Relu2, Real>(x, y);
  }
  throw Error("activation_forward needs an activation");
}

template <typename Real>
void CpuOps<Real>::swiglu_forward(const Tensor& x, const Tensor& y) {
  const int64_t hidden = y.columns();
  const Real* in = x.as<Real>();
  Real* out = y.as<Real>();
  for_rows(y.rows(), hidden, [=](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const Real *gate = in + n * 2 * hidden, *up = gate + hidden;
      Real* row = out + n * hidden;
#pragma omp simd
      for (int64_t f = 0; f < hidden; ++f) row[f] = gate[f] * sigmoid(gate[f]) * up[f];
    }
  });
}

// silu'(g) = sigmoid(g) + g sigmoid'(g)
template <typename Real>
void CpuOps<Real>::swiglu_backward(const Tensor& x, const Tensor& dy, const Tensor& dx) {
  const int64_t hidden = dy.columns();
  const Real *in = x.as<Real>(), *dout = dy.as<Real>();
  Real* gradient = dx.as<Real>();
  for_rows(dy.rows(), hidden, [=](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const Real *gate = in + n * 2 * hidden, *up = gate + hidden, *dy_row = dout + n * hidden;
      Real *d_gate = gradient + n * 2 * hidden, *d_up = d_gate + hidden;
#pragma omp simd
      for (int64_t f = 0; f < hidden; ++f) {
        const Real g = gate[f], u = up[f], d = dy_row[f];
        const auto s = sigmoid_and_derivative(g);
        d_gate[f] = d * u * (s.value + g * s.derivative);
        d_up[f] = d * g * s.value;
      }
    }
  });
}

template <typename Real>
void CpuOps<Real>::glu_forward(const Tensor& x, const Tensor& y) {
  const int64_t hidden = y.columns();
  const Real* in = x.as<Real>();
  Real* out = y.as<Real>();
  for_rows(y.rows(), hidden, [=](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const Real *value = in + n * 2 * hidden, *gate = value + hidden;
      Real* row = out + n * hidden;
#pragma omp simd
      for (int64_t f = 0; f < hidden; ++f) row[f] = value[f] * sigmoid(gate[f]);
    }
  });
}

template <typename Real>
void CpuOps<Real>::glu_backward(const Tensor& x, const Tensor& dy, const Tensor& dx) {
  const int64_t hidden = dy.columns();
  const Real *in = x.as<Real>(), *dout = dy.as<Real>();
  Real* gradient = dx.as<Real>();
  for_rows(dy.rows(), hidden, [=](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const Real *value = in + n * 2 * hidden, *gate = value + hidden, *dy_row = dout + n * hidden;
      Real *d_value = gradient + n * 2 * hidden, *d_gate = d_value + hidden;
#pragma omp simd
      for (int64_t f = 0; f < hidden; ++f) {
        const auto s = sigmoid_and_derivative(gate[f]);
        d_value[f] = dy_row[f] * s.value;
        d_gate[f] = dy_row[f] * value[f] * s.derivative;
      }
    }
  });
}

#define SIGTRAIN_INSTANTIATE(Real)                                                          \
  template void CpuOps<Real>::activation_forward(Activation, const Tensor&, const Tensor&); \
  template void CpuOps<Real>::swiglu_forward(const Tensor&, const Tensor&);                 \
  template void CpuOps<Real>::swiglu_backward(const Tensor&, const Tensor&, const Tensor&); \
  template void CpuOps<Real>::glu_forward(const Tensor&, const Tensor&);                    \
  template void CpuOps<Real>::glu_backward(const Tensor&, const Tensor&, const Tensor&);
SIGTRAIN_INSTANTIATE(float)
SIGTRAIN_INSTANTIATE(double)
#undef SIGTRAIN_INSTANTIATE

}  // namespace sigtrain
