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

/// Which half of a row the gate is; the other half is the value that it multiplies.
enum class GateHalf { first, second };

/// y = value Function(gate), rows of x being the two halves.
template <typename Function, GateHalf kGate, typename Real>
void gated_forward(const Tensor& x, const Tensor& y) {
  const int64_t hidden = y.columns();
  const int64_t gate_at = kGate == GateHalf::first ? 0 : hidden, value_at = hidden - gate_at;
  const Real* in = x.as<Real>();
  Real* out = y.as<Real>();
  for_rows(y.rows(), hidden, [=](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const Real* x_row = in + n * 2 * hidden;
      const Real *value = x_row + value_at, *gate = x_row + gate_at;
      Real* row = out + n * hidden;
#pragma omp simd
      for (int64_t f = 0; f < hidden; ++f) row[f] = Function::value(gate[f]) * value[f];
    }
  });
}

template <typename Function, GateHalf kGate, typename Real>
void gated_backward(const Tensor& x, const Tensor& dy, const Tensor& dx) {
  const int64_t hidden = dy.columns();
  const int64_t gate_at = kGate == GateHalf::first ? 0 : hidden, value_at = hidden - gate_at;
  const Real *in = x.as<Real>(), *dout = dy.as<Real>();
  Real* gradient = dx.as<Real>();
  for_rows(dy.rows(), hidden, [=](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const Real *x_row = in + n * 2 * hidden, *dy_row = dout + n * hidden;
      const Real *value = x_row + value_at, *gate = x_row + gate_at;
      Real* dx_row = gradient + n * 2 * hidden;
      Real *d_value = dx_row + value_at, *d_gate = dx_row + gate_at;
#pragma omp simd
      for (int64_t f = 0; f < hidden; ++f) {
        const auto function = Function::both(gate[f]);
        const Real v = value[f], d = dy_row[f];
        d_value[f] = d * function.value;
        d_gate[f] = d * v * function.derivative;
      }
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
  gated_forward<Silu, GateHalf::first, Real>(x, y);
}

template <typename Real>
void CpuOps<Real>::swiglu_backward(const Tensor& x, const Tensor& dy, const Tensor& dx) {
  gated_backward<Silu, GateHalf::first, Real>(x, dy, dx);
}

template <typename Real>
void CpuOps<Real>::glu_forward(const Tensor& x, const Tensor& y) {
  gated_forward<Sigmoid, GateHalf::second, Real>(x, y);
}

template <typename Real>
void CpuOps<Real>::glu_backward(const Tensor& x, const Tensor& dy, const Tensor& dx) {
  gated_backward<Sigmoid, GateHalf::second, Real>(x, dy, dx);
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
