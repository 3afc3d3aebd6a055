// Attention backward: P is computed again from q and k, a tile at a time, and
//   sigmoid: dS = dP P (1 - P);   softmax: dS = P (dP - D) with D = rowsum(dO O)
//   dV = P^T dO,  dQ = scale dS K,  dK = scale dS^T Q,  d_head_bias = sum dS,  where dP = dO V^T.
#include "ops/cpu/attention_tiles.h"
#include "ops/cpu/cpu_ops.h"
#include "ops/cpu/gemm.h"
#include "ops/cpu/vector_math.h"

namespace sigtrain {
namespace {

// A thread's scratch: a tile of logits and one of their gradients.
constexpr int64_t kTileElements = kAttentionQueryTile * kAttentionKeyTile;
constexpr int64_t kThreadElements = 2 * kTileElements;

// Products q.k and dP in, P and dS out; returns the sum of dS.
template <typename Real>
Real sigmoid_row(const LogitRow<Real>& row, Real* p, Real* ds) {
  Real sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int32_t j = row.first; j < row.last; ++j) {
    const auto [value, derivative] = sigmoid_and_derivative(row.logit(p[j], j));
    const Real d_logit = row.sees(j) ? ds[j] * derivative : Real{0};
    p[j] = row.sees(j) ? value : Real{0};
    ds[j] = d_logit;
    sum += d_logit;
  }
  return sum;
}

template <typename Real>
Real softmax_row(const LogitRow<Real>& row, Real log_sum_exp, Real d_dot_out, Real* p, Real* ds) {
  Real sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int32_t j = row.first; j < row.last; ++j) {
    const Real value = row.sees(j) ? fast_exp(row.logit(p[j], j) - log_sum_exp) : Real{0};
    const Real d_logit = row.sees(j) ? value * (ds[j] - d_dot_out) : Real{0};
    p[j] = value;
    ds[j] = d_logit;
    sum += d_logit;
  }
  return sum;
}

template <typename Real>
Real dot(const Real* a, const Real* b, int64_t count) {
  Real sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t d = 0; d < count; ++d) sum += a[d] * b[d];
  return sum;
}

/// The gradients of one key and value head: all query heads that share it, in order.
template <typename Real>
struct BackwardHead {
  /// Writes dk, dv and the group's dq, and where not null the sum over dS of each head.
  void run(Real* d_bias) const {
    dk.set_zero(batch, kv_head, {0, desc.seq_len});
    dv.set_zero(batch, kv_head, {0, desc.seq_len});
    const int64_t group = desc.heads / desc.kv_heads;
    for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
      double sum = 0.0;
      for (int64_t t = 0; t < logits.query_tiles(); ++t)
        sum += add_queries(head, logits.queries(t));
      if (d_bias) d_bias[batch * desc.heads + head] = static_cast<Real>(sum);
    }
  }

  double add_queries(int64_t head, PositionRange queries) const {
    const PositionRange keys = logits.visible_keys(batch, queries);
    if (keys.size() == 0) dq.set_zero(batch, head, queries);
    Real d_dot_out[kAttentionQueryTile] = {};
    if (desc.kind == AttentionKind::softmax) {
      for (int64_t i = queries.begin; i < queries.end; ++i)
        d_dot_out[i - queries.begin] =
            dot(d_out.row(batch, head, i), out.row(batch, head, i), desc.head_dim);
    }
    double sum = 0.0;
    for_key_tiles(keys, [&](PositionRange tile) {
      sum += add_tile(head, queries, tile, tile.begin == keys.begin, d_dot_out);
    });
    return sum;
  }

  double add_tile(int64_t head, PositionRange queries, PositionRange tile, bool is_first,
                  const Real* d_dot_out) const {
    constexpr int64_t stride = kAttentionKeyTile;
    const int64_t rows = queries.size(), columns = tile.size(), dim = desc.head_dim;
    const Real* q_rows = logits.q.row(batch, head, queries.begin);
    const Real* k_rows = logits.k.row(batch, kv_head, tile.begin);
    const Real* d_out_rows = d_out.row(batch, head, queries.begin);
    gemm_tile<Real>(Transpose::no, Transpose::yes, rows, columns, dim, logits.scale, q_rows,
                    logits.q.row_stride, k_rows, logits.k.row_stride, Real{0}, p, stride);
    gemm_tile<Real>(Transpose::no, Transpose::yes, rows, columns, dim, Real{1}, d_out_rows,
                    d_out.row_stride, logits.v.row(batch, kv_head, tile.begin), logits.v.row_stride,
                    Real{0}, ds, stride);
    const double sum = differentiate(head, queries, tile, d_dot_out);
    gemm_tile<Real>(Transpose::yes, Transpose::no, columns, dim, rows, Real{1}, p, stride,
                    d_out_rows, d_out.row_stride, Real{1}, dv.row(batch, kv_head, tile.begin),
                    dv.row_stride);
    gemm_tile<Real>(Transpose::yes, Transpose::no, columns, dim, rows, logits.scale, ds, stride,
                    q_rows, logits.q.row_stride, Real{1}, dk.row(batch, kv_head, tile.begin),
                    dk.row_stride);
    gemm_tile<Real>(Transpose::no, Transpose::no, rows, dim, columns, logits.scale, ds, stride,
                    k_rows, logits.k.row_stride, is_first ? Real{0} : Real{1},
                    dq.row(batch, head, queries.begin), dq.row_stride);
    return sum;
  }

  /// Products q.k to P and dP to dS, over a whole tile; returns the sum of dS.
  double differentiate(int64_t head, PositionRange queries, PositionRange tile,
                       const Real* d_dot_out) const {
    const Real bias = logits.bias(head), slope = logits.slope(head);
    double sum = 0.0;
    for (int64_t i = 0; i < queries.size(); ++i) {
      const int64_t query = queries.begin + i;
      const LogitRow<Real> row(tile, logits.visible_keys(batch, query), query, bias, slope);
      Real* p_row = p + i * kAttentionKeyTile;
      Real* ds_row = ds + i * kAttentionKeyTile;
      sum += desc.kind == AttentionKind::sigmoid
                 ? sigmoid_row(row, p_row, ds_row)
                 : softmax_row(row, log_sum_exp[(batch * desc.heads + head) * desc.seq_len + query],
                               d_dot_out[i], p_row, ds_row);
      row.clear_outside(p_row, tile.size());
      row.clear_outside(ds_row, tile.size());
    }
    return sum;
  }

  const AttentionDesc& desc;
  const AttentionLogits<Real>& logits;
  const HeadMatrices<Real>&out, d_out, dq, dk, dv;
  const Real* log_sum_exp;
  int64_t batch, kv_head;
  Real* p;
  Real* ds;
};

}  // namespace

template <typename Real>
size_t CpuOps<Real>::attention_backward_workspace(const AttentionDesc& desc) const {
  return (omp_get_max_threads() * kThreadElements + desc.batch * desc.heads) * sizeof(Real);
}

template <typename Real>
void CpuOps<Real>::attention_backward(const AttentionDesc& desc, const AttentionInputs& inputs,
                                      const HeadsView& out, const Tensor& log_sum_exp,
                                      const HeadsView& d_out, const HeadsView& dq,
                                      const HeadsView& dk, const HeadsView& dv,
                                      const Tensor& d_head_bias) {
  const AttentionLogits<Real> logits(desc, inputs);
  const HeadMatrices<Real> outputs(desc, out), d_outputs(desc, d_out), dqs(desc, dq), dks(desc, dk),
      dvs(desc, dv);
  const Real* log_sum_exps = log_sum_exp.as<Real>();
  Real* d_head_biases = d_head_bias.as<Real>();
  const int64_t threads_elements = omp_get_max_threads() * kThreadElements;
  Real* threads_scratch =
      scratch<Real>(workspace_, threads_elements + desc.batch * desc.heads, "attention_backward");
  Real* d_bias_partials = d_head_biases ? threads_scratch + threads_elements : nullptr;
#pragma omp parallel for collapse(2) schedule(dynamic, 1)
  for (int64_t batch = 0; batch < desc.batch; ++batch) {
    for (int64_t kv_head = 0; kv_head < desc.kv_heads; ++kv_head) {
      Real* p = threads_scratch + omp_get_thread_num() * kThreadElements;
      BackwardHead<Real>{desc, logits,       outputs, d_outputs, dqs, dks,
                         dvs,  log_sum_exps, batch,   kv_head,   p,   p + kTileElements}
          .run(d_bias_partials);
    }
  }
  if (d_head_biases)
    add_partials(d_bias_partials, desc.batch, desc.heads, desc.heads, d_head_biases);
}

template size_t CpuOps<float>::attention_backward_workspace(const AttentionDesc&) const;
template size_t CpuOps<double>::attention_backward_workspace(const AttentionDesc&) const;
template void CpuOps<float>::attention_backward(const AttentionDesc&, const AttentionInputs&,
                                                const HeadsView&, const Tensor&, const HeadsView&,
                                                const HeadsView&, const HeadsView&,
                                                const HeadsView&, const Tensor&);
template void CpuOps<double>::attention_backward(const AttentionDesc&, const AttentionInputs&,
                                                 const HeadsView&, const Tensor&, const HeadsView&,
                                                 const HeadsView&, const HeadsView&,
                                                 const HeadsView&, const Tensor&);

}  // namespace sigtrain
