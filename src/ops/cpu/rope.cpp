// Per-head RMSNorm of q and k (Henry et al. 2020, as in Dehghani et al. 2023) and rotary position
// embedding (Su et al. 2021).
#include <cmath>

#include "ops/cpu/cpu_ops.h"
#include "ops/cpu/partition.h"

namespace sigtrain {
namespace {

// Rotates the pairs (z[d], z[d + half]) by the angles of a position, or back.
template <typename Real>
void rotate(const Real* rope_row, Real direction, int64_t half, Real* z) {
  const Real *cosines = rope_row, *sines = rope_row + half;
#pragma omp simd
  for (int64_t d = 0; d < half; ++d) {
    const Real a = z[d], b = z[d + half], sine = direction * sines[d];
    z[d] = a * cosines[d] - b * sine;
    z[d + half] = b * cosines[d] + a * sine;
  }
}

}  // namespace

template <typename Real>
void CpuOps<Real>::qk_norm_rope_forward(const QkNormRopeDesc& desc, const Tensor& qkv,
                                        const Tensor& q_weight, const Tensor& k_weight,
                                        const Tensor& rope, const Tensor& qk_out,
                                        const Tensor& rstd) {
  const int64_t dim = desc.head_dim, seq_len = desc.seq_len, q_heads = desc.heads;
  const int64_t heads = q_heads + desc.kv_heads, qkv_width = (heads + desc.kv_heads) * dim;
  const Real *in = qkv.as<Real>(), *q_gain = q_weight.as<Real>(), *k_gain = k_weight.as<Real>();
  const Real* angles = rope.as<Real>();
  Real *out = qk_out.as<Real>(), *rstds = rstd.as<Real>();
  const Real eps = static_cast<Real>(desc.eps);

  for_rows(desc.batch * seq_len, heads * dim, [=](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      for (int64_t h = 0; h < heads; ++h) {
        const Real *x = in + n * qkv_width + h * dim, *gain = h < q_heads ? q_gain : k_gain;
        Real* z = out + (n * heads + h) * dim;
        if (gain) {
          Real squares = 0;
#pragma omp simd reduction(+ : squares)
          for (int64_t d = 0; d < dim; ++d) squares += x[d] * x[d];
          const Real r = 1 / std::sqrt(squares / dim + eps);
          rstds[n * heads + h] = r;
#pragma omp simd
          for (int64_t d = 0; d < dim; ++d) z[d] = x[d] * r * gain[d];
        } else {
          std::copy_n(x, dim, z);
        }
        if (angles) rotate(angles + n % seq_len * dim, Real(1), dim / 2, z);
      }
    }
  });
}

template <typename Real>
void CpuOps<Real>::qk_norm_rope_backward(const QkNormRopeDesc& desc, const Tensor& qkv,
                                         const Tensor& q_weight, const Tensor& k_weight,
                                         const Tensor& rope, const Tensor& rstd,
                                         const Tensor& d_qkv, const Tensor& dq_weight,
                                         const Tensor& dk_weight) {
  const int64_t dim = desc.head_dim, seq_len = desc.seq_len, q_heads = desc.heads;
  const int64_t heads = q_heads + desc.kv_heads, qkv_width = (heads + desc.kv_heads) * dim;
  const Real *in = qkv.as<Real>(), *q_gain = q_weight.as<Real>(), *k_gain = k_weight.as<Real>();
  const Real *angles = rope.as<Real>(), *rstds = rstd.as<Real>();
  Real* gradient = d_qkv.as<Real>();

  // A weight's gradient sums over rows and heads: in double, for there are many.
  const RowChunks chunks(desc.batch * seq_len);
  double* partials =
      q_gain ? scratch<double>(workspace_, chunks.count * 2 * dim, "qk_norm_rope_backward")
             : nullptr;
  chunks.for_each([=](int64_t chunk, int64_t begin, int64_t end) {
    double* chunk_sums = partials + chunk * 2 * dim;
    if (q_gain) std::fill_n(chunk_sums, 2 * dim, 0.0);
    for (int64_t n = begin; n < end; ++n) {
      for (int64_t h = 0; h < heads; ++h) {
        const bool is_q = h < q_heads;
        const Real *x = in + n * qkv_width + h * dim, *gain = is_q ? q_gain : k_gain;
        Real* dz = gradient + n * qkv_width + h * dim;
        if (angles) rotate(angles + n % seq_len * dim, Real(-1), dim / 2, dz);
        if (!gain) continue;
        double* weight_sums = chunk_sums + (is_q ? 0 : dim);
        const Real r = rstds[n * heads + h];
        Real g_xhat_sum = 0;
#pragma omp simd reduction(+ : g_xhat_sum)
        for (int64_t d = 0; d < dim; ++d) {
          const Real dz_xhat = dz[d] * (x[d] * r);
          weight_sums[d] += dz_xhat;
          g_xhat_sum += dz_xhat * gain[d];
        }
        const Real g_xhat_mean = g_xhat_sum / dim;
#pragma omp simd
        for (int64_t d = 0; d < dim; ++d) dz[d] = r * (dz[d] * gain[d] - x[d] * r * g_xhat_mean);
      }
    }
  });
  if (!q_gain) return;
  add_partials(partials, chunks.count, 2 * dim, dim, dq_weight.as<Real>());
  add_partials(partials + dim, chunks.count, 2 * dim, dim, dk_weight.as<Real>());
}

template <typename Real>
size_t CpuOps<Real>::qk_norm_rope_backward_workspace(const QkNormRopeDesc& desc) const {
  return RowChunks(desc.batch * desc.seq_len).count * 2 * desc.head_dim * sizeof(double);
}

#define SIGTRAIN_INSTANTIATE(Real)                                                              \
  template void CpuOps<Real>::qk_norm_rope_forward(const QkNormRopeDesc&, const Tensor&,        \
                                                   const Tensor&, const Tensor&, const Tensor&, \
                                                   const Tensor&, const Tensor&);               \
  template void CpuOps<Real>::qk_norm_rope_backward(                                            \
      const QkNormRopeDesc&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,        \
      const Tensor&, const Tensor&, const Tensor&, const Tensor&);                              \
  template size_t CpuOps<Real>::qk_norm_rope_backward_workspace(const QkNormRopeDesc&) const;
SIGTRAIN_INSTANTIATE(float)
SIGTRAIN_INSTANTIATE(double)
#undef SIGTRAIN_INSTANTIATE

}  // namespace sigtrain
