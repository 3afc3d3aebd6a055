// Residual add fused with RMSNorm (Zhang & Sennrich 2019) or LayerNorm (Ba et al. 2016).
#include <cmath>

#include "ops/cpu/cpu_ops.h"
#include "ops/cpu/partition.h"

namespace sigtrain {
namespace {

// The factors of branch.delta, row by row.
template <typename Real>
struct BranchScales {
  BranchScales(const ResidualBranch& branch, int64_t rows)
      : layer(branch.layer_scale.as<Real>()), sample(branch.sample_scale.as<Real>()) {
    if (sample) rows_per_sample = rows / branch.sample_scale.numel();
  }
  Real sample_of(int64_t row) const { return sample ? sample[row / rows_per_sample] : Real(1); }

  const Real* layer;
  const Real* sample;
  int64_t rows_per_sample = 1;
};

template <typename Real>
Real sum(const Real* x, int64_t n) {
  Real total = 0;
#pragma omp simd reduction(+ : total)
  for (int64_t c = 0; c < n; ++c) total += x[c];
  return total;
}

template <typename Real>
Real sum_of_squared_deviations(const Real* x, Real center, int64_t n) {
  Real total = 0;
#pragma omp simd reduction(+ : total)
  for (int64_t c = 0; c < n; ++c) total += (x[c] - center) * (x[c] - center);
  return total;
}

}  // namespace

template <typename Real>
void CpuOps<Real>::residual_norm_forward(const NormDesc& desc, const Tensor& residual,
                                         const ResidualBranch& branch, const Tensor& residual_out,
                                         const Tensor& weight, const Tensor& bias, const Tensor& y,
                                         const Tensor& mean, const Tensor& rstd) {
  const int64_t rows = residual.rows(), width = residual.columns();
  const Real *input = residual.as<Real>(), *delta = branch.delta.as<Real>();
  const BranchScales<Real> scales(branch, rows);
  const Real *gain = weight.as<Real>(), *shift = bias.as<Real>();
  Real *sum_out = residual_out.as<Real>(), *out = y.as<Real>();
  Real *means = mean.as<Real>(), *rstds = rstd.as<Real>();
  const bool centered = desc.kind == NormKind::layernorm;
  const Real eps = static_cast<Real>(desc.eps);

  for_rows(rows, width, [=](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const Real* x = input + n * width;
      if (delta) {
        const Real* added = delta + n * width;
        Real* total = sum_out + n * width;
        const Real sample_scale = scales.sample_of(n);
        if (scales.layer) {
#pragma omp simd
          for (int64_t c = 0; c < width; ++c)
            total[c] = x[c] + scales.layer[c] * sample_scale * added[c];
        } else {
#pragma omp simd
          for (int64_t c = 0; c < width; ++c) total[c] = x[c] + sample_scale * added[c];
        }
        x = total;
      }
      const Real center = centered ? sum(x, width) / width : Real(0);
      const Real r = 1 / std::sqrt(sum_of_squared_deviations(x, center, width) / width + eps);
      if (centered) means[n] = center;
      rstds[n] = r;
      Real* row = out + n * width;
      if (shift) {
#pragma omp simd
        for (int64_t c = 0; c < width; ++c) row[c] = (x[c] - center) * r * gain[c] + shift[c];
      } else {
#pragma omp simd
        for (int64_t c = 0; c < width; ++c) row[c] = (x[c] - center) * r * gain[c];
      }
    }
  });
}

// With xhat = (x - mean) rstd and g = dy weight:
//   dx = rstd (g - [layernorm: average of g] - xhat * average of g xhat).
template <typename Real>
void CpuOps<Real>::residual_norm_backward(const NormDesc& desc, const Tensor& x,
                                          const Tensor& weight, const Tensor& mean,
                                          const Tensor& rstd, const Tensor& dy, bool accumulate,
                                          const Tensor& d_residual, const Tensor& dweight,
                                          const Tensor& dbias, const ResidualBranch& branch,
                                          const Tensor& d_delta, const Tensor& d_layer_scale) {
  const int64_t rows = x.rows(), width = x.columns();
  const BranchScales<Real> scales(branch, rows);
  const Real *input = x.as<Real>(), *gain = weight.as<Real>(), *dout = dy.as<Real>();
  const Real *rstds = rstd.as<Real>(), *delta = branch.delta.as<Real>();
  const bool centered = desc.kind == NormKind::layernorm;
  const Real* means = centered ? mean.as<Real>() : nullptr;
  Real *dx = d_residual.as<Real>(), *ddelta = d_delta.as<Real>();
  const bool with_bias = bool(dbias), with_layer_scale = bool(d_layer_scale);

  const RowChunks chunks(rows);
  Real* partials = scratch<Real>(workspace_, chunks.count * 3 * width, "residual_norm_backward");
  chunks.for_each([=](int64_t chunk, int64_t begin, int64_t end) {
    Real* weight_sums = partials + chunk * 3 * width;
    Real *bias_sums = weight_sums + width, *layer_scale_sums = bias_sums + width;
    std::fill_n(weight_sums, 3 * width, Real(0));
    for (int64_t n = begin; n < end; ++n) {
      const Real *x_row = input + n * width, *dy_row = dout + n * width;
      Real* dx_row = dx + n * width;
      const Real center = centered ? means[n] : Real(0), r = rstds[n];
      Real g_sum = 0, g_xhat_sum = 0;
#pragma omp simd reduction(+ : g_sum, g_xhat_sum)
      for (int64_t c = 0; c < width; ++c) {
        const Real xhat = (x_row[c] - center) * r, g = dy_row[c] * gain[c];
        g_sum += g;
        g_xhat_sum += g * xhat;
        weight_sums[c] += dy_row[c] * xhat;
      }
      if (with_bias) {
#pragma omp simd
        for (int64_t c = 0; c < width; ++c) bias_sums[c] += dy_row[c];
      }
      const Real g_mean = centered ? g_sum / width : Real(0), g_xhat_mean = g_xhat_sum / width;
      const auto gradient = [=](int64_t c) {
        return r * (dy_row[c] * gain[c] - g_mean - (x_row[c] - center) * r * g_xhat_mean);
      };
      if (accumulate) {
#pragma omp simd
        for (int64_t c = 0; c < width; ++c) dx_row[c] += gradient(c);
      } else {
#pragma omp simd
        for (int64_t c = 0; c < width; ++c) dx_row[c] = gradient(c);
      }

      const Real sample_scale = scales.sample_of(n);
      if (with_layer_scale) {
        const Real* delta_row = delta + n * width;
#pragma omp simd
        for (int64_t c = 0; c < width; ++c)
          layer_scale_sums[c] += sample_scale * delta_row[c] * dx_row[c];
      }
      if (ddelta) {
        Real* ddelta_row = ddelta + n * width;
        if (scales.layer) {
#pragma omp simd
          for (int64_t c = 0; c < width; ++c)
            ddelta_row[c] = scales.layer[c] * sample_scale * dx_row[c];
        } else {
#pragma omp simd
          for (int64_t c = 0; c < width; ++c) ddelta_row[c] = sample_scale * dx_row[c];
        }
      }
    }
  });
  add_partials(partials, chunks.count, 3 * width, width, dweight.as<Real>());
  if (dbias) add_partials(partials + width, chunks.count, 3 * width, width, dbias.as<Real>());
  if (d_layer_scale) {
    add_partials(partials + 2 * width, chunks.count, 3 * width, width, d_layer_scale.as<Real>());
  }
}

template <typename Real>
size_t CpuOps<Real>::residual_norm_backward_workspace(int64_t rows, int64_t width) const {
  return RowChunks(rows).count * 3 * width * sizeof(Real);
}

#define SIGTRAIN_INSTANTIATE(Real)                                                                \
  template void CpuOps<Real>::residual_norm_forward(                                              \
      const NormDesc&, const Tensor&, const ResidualBranch&, const Tensor&, const Tensor&,        \
      const Tensor&, const Tensor&, const Tensor&, const Tensor&);                                \
  template void CpuOps<Real>::residual_norm_backward(                                             \
      const NormDesc&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, \
      bool, const Tensor&, const Tensor&, const Tensor&, const ResidualBranch&, const Tensor&,    \
      const Tensor&);                                                                             \
  template size_t CpuOps<Real>::residual_norm_backward_workspace(int64_t, int64_t) const;
SIGTRAIN_INSTANTIATE(float)
SIGTRAIN_INSTANTIATE(double)
#undef SIGTRAIN_INSTANTIATE

}  // namespace sigtrain
