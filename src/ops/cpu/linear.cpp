// Linear layers: the matrix products are BLAS's; bias and activation are added in one pass behind.
#include "ops/cpu/activation.h"
#include "ops/cpu/cpu_ops.h"
#include "ops/cpu/gemm.h"
#include "ops/cpu/partition.h"

namespace sigtrain {
namespace {

// z += bias (where given);  y = Function(z).
template <typename Function, typename Real>
void add_bias_and_activate(const Real* bias, int64_t rows, int64_t width, Real* z, Real* y) {
  for_rows(rows, width, [=](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      Real *z_row = z + n * width, *y_row = y + n * width;
      if (bias) {
#pragma omp simd
        for (int64_t o = 0; o < width; ++o) z_row[o] += bias[o];
      }
#pragma omp simd
      for (int64_t o = 0; o < width; ++o) y_row[o] = Function::value(z_row[o]);
    }
  });
}

template <typename Real>
void add_bias(const Real* bias, int64_t rows, int64_t width, Real* y) {
  for_rows(rows, width, [=](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      Real* row = y + n * width;
#pragma omp simd
      for (int64_t o = 0; o < width; ++o) row[o] += bias[o];
    }
  });
}

template <typename Function, typename Real>
void multiply_by_derivative(const Real* pre_activation, int64_t count, Real* dx) {
  for_elements(count, [=](int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) dx[i] *= Function::derivative(pre_activation[i]);
  });
}

/// sums[c] += sum over rows of x [rows, width], with chunks' sums in `partials`.
template <typename Real>
void add_column_sums(const Real* x, int64_t rows, int64_t width, Real* partials, Real* result) {
  const RowChunks chunks(rows);
  chunks.for_each([=](int64_t chunk, int64_t begin, int64_t end) {
    Real* sums = partials + chunk * width;
    std::fill_n(sums, width, Real(0));
    for (int64_t n = begin; n < end; ++n) {
      const Real* row = x + n * width;
#pragma omp simd
      for (int64_t c = 0; c < width; ++c) sums[c] += row[c];
    }
  });
  add_partials(partials, chunks.count, width, width, result);
}

}  // namespace

template <typename Real>
void CpuOps<Real>::linear_forward(const Tensor& x, const Tensor& weight, const Tensor& bias,
                                  Activation activation, const Tensor& pre_activation,
                                  const Tensor& y) {
  const int64_t rows = x.rows(), in = weight.columns(), out = weight.rows();
  Real* y_data = y.as<Real>();
  Real* z = activation == Activation::none ? y_data : pre_activation.as<Real>();
  const Real* bias_data = bias.as<Real>();
  gemm<Real>(Transpose::no, Transpose::yes, rows, out, in, 1, x.as<Real>(), in, weight.as<Real>(),
             in, 0, z, out);
  switch (activation) {
    case Activation::none:
      if (bias_data) add_bias(bias_data, rows, out, y_data);
      break;
    case Activation::gelu:
      add_bias_and_activate<Gelu>(bias_data, rows, out, z, y_data);
      break;
    case Activation::relu2:
      add_bias_and_activate<Relu2>(bias_data, rows, out, z, y_data);
      break;
  }
}

template <typename Real>
void CpuOps<Real>::linear_backward(const Tensor& x, const Tensor& weight, const Tensor& dy,
                                   Activation activation, const Tensor& pre_activation,
                                   const Tensor& dx, const Tensor& dweight, const Tensor& dbias,
                                   const Tensor& dbias_before) {
  const int64_t rows = x.rows(), in = weight.columns(), out = weight.rows();
  const Real* dout = dy.as<Real>();
  gemm<Real>(Transpose::yes, Transpose::no, out, in, rows, 1, dout, out, x.as<Real>(), in, 1,
             dweight.as<Real>(), in);
  const auto partials = [&](int64_t width) {
    return scratch<Real>(workspace_, RowChunks(rows).count * width, "linear_backward");
  };
  if (dbias) add_column_sums(dout, rows, out, partials(out), dbias.as<Real>());
  if (!dx) return;
  Real* gradient = dx.as<Real>();
  gemm<Real>(Transpose::no, Transpose::no, rows, in, out, 1, dout, out, weight.as<Real>(), in, 0,
             gradient, in);
  switch (activation) {
    case Activation::none:
      break;
    case Activation::gelu:
      multiply_by_derivative<Gelu>(pre_activation.as<Real>(), rows * in, gradient);
      break;
    case Activation::relu2:
      multiply_by_derivative<Relu2>(pre_activation.as<Real>(), rows * in, gradient);
      break;
  }
  if (dbias_before) add_column_sums(gradient, rows, in, partials(in), dbias_before.as<Real>());
}

template <typename Real>
size_t CpuOps<Real>::linear_backward_workspace(int64_t rows, int64_t in, int64_t out) const {
  return RowChunks(rows).count * std::max(in, out) * sizeof(Real);
}

#define SIGTRAIN_INSTANTIATE(Real)                                                          \
  template void CpuOps<Real>::linear_forward(const Tensor&, const Tensor&, const Tensor&,   \
                                             Activation, const Tensor&, const Tensor&);     \
  template void CpuOps<Real>::linear_backward(const Tensor&, const Tensor&, const Tensor&,  \
                                              Activation, const Tensor&, const Tensor&,     \
                                              const Tensor&, const Tensor&, const Tensor&); \
  template size_t CpuOps<Real>::linear_backward_workspace(int64_t, int64_t, int64_t) const;
SIGTRAIN_INSTANTIATE(float)
SIGTRAIN_INSTANTIATE(double)
#undef SIGTRAIN_INSTANTIATE

}  // namespace sigtrain
