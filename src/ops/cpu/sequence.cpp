// Sequences put together from a shared prefix, tokens and positions, and taken down to one row.
#include "ops/cpu/cpu_ops.h"
#include "ops/cpu/partition.h"

namespace sigtrain {

template <typename Real>
void CpuOps<Real>::sequence_forward(const Tensor& prefix, const Tensor& x, const Tensor& positions,
                                    const Tensor& y) {
  const int64_t tokens = y.shape[1], width = y.columns();
  const int64_t own = x.shape[1], shared = tokens - own;
  const Real *prefix_rows = prefix.as<Real>(), *rows = x.as<Real>(),
             *position_rows = positions.as<Real>();
  Real* out = y.as<Real>();
  for_rows(y.rows(), width, [=](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const int64_t b = n / tokens, t = n % tokens;
      const Real* row =
          t < shared ? prefix_rows + t * width : rows + (b * own + t - shared) * width;
      if (position_rows) {
        const Real* position = position_rows + t * width;
#pragma omp simd
        for (int64_t c = 0; c < width; ++c) out[n * width + c] = row[c] + position[c];
      } else {
        std::copy_n(row, width, out + n * width);
      }
    }
  });
}

template <typename Real>
void CpuOps<Real>::sequence_backward(const Tensor& dy, const Tensor& dx, const Tensor& dprefix,
                                     const Tensor& dpositions) {
  const int64_t batch = dy.shape[0], tokens = dy.shape[1], width = dy.columns();
  const int64_t shared = dprefix ? dprefix.shape[0] : 0, own = tokens - shared;
  const Real* d_out = dy.as<Real>();
  Real *d_rows = dx.as<Real>(), *d_prefix = dprefix.as<Real>(),
       *d_positions = dpositions.as<Real>();
  for_rows(tokens, width * std::max<int64_t>(1, batch), [=](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t b = 0; b < batch; ++b) {
        const Real* row = d_out + (b * tokens + t) * width;
        if (t >= shared && d_rows) std::copy_n(row, width, d_rows + (b * own + t - shared) * width);
        if (t < shared) {
#pragma omp simd
          for (int64_t c = 0; c < width; ++c) d_prefix[t * width + c] += row[c];
        }
        if (d_positions) {
#pragma omp simd
          for (int64_t c = 0; c < width; ++c) d_positions[t * width + c] += row[c];
        }
      }
    }
  });
}

template <typename Real>
void CpuOps<Real>::pool_forward(ImagePool pool, const Tensor& x, const Tensor& y) {
  const int64_t tokens = x.shape[1], width = x.columns();
  const int64_t pooled = pool == ImagePool::mean ? tokens : 1;
  const auto share = static_cast<Real>(1.0 / static_cast<double>(pooled));
  const Real* rows = x.as<Real>();
  Real* out = y.as<Real>();
  for_rows(y.rows(), width * pooled, [=](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      Real* sum = out + b * width;
      std::copy_n(rows + b * tokens * width, width, sum);
      for (int64_t t = 1; t < pooled; ++t) {
        const Real* row = rows + (b * tokens + t) * width;
#pragma omp simd
        for (int64_t c = 0; c < width; ++c) sum[c] += row[c];
      }
#pragma omp simd
      for (int64_t c = 0; c < width; ++c) sum[c] *= share;
    }
  });
}

template <typename Real>
void CpuOps<Real>::pool_backward(ImagePool pool, const Tensor& dy, const Tensor& dx) {
  const int64_t tokens = dx.shape[1], width = dx.columns();
  const int64_t pooled = pool == ImagePool::mean ? tokens : 1;
  const auto share = static_cast<Real>(1.0 / static_cast<double>(pooled));
  const Real* d_out = dy.as<Real>();
  Real* d_rows = dx.as<Real>();
  for_rows(dx.rows(), width, [=](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const Real* row = d_out + n / tokens * width;
      const Real factor = n % tokens < pooled ? share : Real{0};
#pragma omp simd
      for (int64_t c = 0; c < width; ++c) d_rows[n * width + c] = factor * row[c];
    }
  });
}

#define SIGTRAIN_INSTANTIATE(Real)                                                           \
  template void CpuOps<Real>::sequence_forward(const Tensor&, const Tensor&, const Tensor&,  \
                                               const Tensor&);                               \
  template void CpuOps<Real>::sequence_backward(const Tensor&, const Tensor&, const Tensor&, \
                                                const Tensor&);                              \
  template void CpuOps<Real>::pool_forward(ImagePool, const Tensor&, const Tensor&);         \
  template void CpuOps<Real>::pool_backward(ImagePool, const Tensor&, const Tensor&);
SIGTRAIN_INSTANTIATE(float)
SIGTRAIN_INSTANTIATE(double)
#undef SIGTRAIN_INSTANTIATE

}  // namespace sigtrain
