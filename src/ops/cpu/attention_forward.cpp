// Attention forward, one tile of queries at a time: O = P V with P = sigmoid(S), or with the online
// softmax (Milakov & Gimelshein 2018; FlashAttention, Dao et al. 2022) P = softmax(S).
#include <limits>

#include "ops/cpu/attention_tiles.h"
#include "ops/cpu/cpu_ops.h"
#include "ops/cpu/gemm.h"
#include "ops/cpu/vector_math.h"

namespace sigtrain {
namespace {

// A thread's scratch: a tile of logits, then for each of its rows the largest logit and the sum of
// P so far.
constexpr int64_t kTileElements = kAttentionQueryTile * kAttentionKeyTile;
constexpr int64_t kThreadElements = padded_elements(kTileElements + 2 * kAttentionQueryTile);

// Products in, P out; returns the sum of P.
template <typename Real>
Real sigmoid_row(const LogitRow<Real>& row, Real* values) {
  Real sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int32_t j = row.first; j < row.last; ++j) {
    const Real p = row.sees(j) ? sigmoid(row.logit(values[j], j)) : Real{0};
    values[j] = p;
    sum += p;
  }
  return sum;
}

// Products in, logits out (-inf where not visible); returns their maximum.
template <typename Real>
Real logit_row(const LogitRow<Real>& row, Real* values) {
  constexpr Real unseen = -std::numeric_limits<Real>::infinity();
  Real largest = unseen;
#pragma omp simd reduction(max : largest)
  for (int32_t j = row.first; j < row.last; ++j) {
    const Real logit = row.sees(j) ? row.logit(values[j], j) : unseen;
    values[j] = logit;
    largest = logit > largest ? logit : largest;
  }
  return largest;
}

// Logits in, exp(logit - largest) out; returns their sum.
template <typename Real>
Real exp_row(const LogitRow<Real>& row, Real largest, Real* values) {
  Real sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int32_t j = row.first; j < row.last; ++j) {
    const Real p = fast_exp(values[j] - largest);
    values[j] = p;
    sum += p;
  }
  return sum;
}

template <typename Real>
void scale_row(Real* row, int64_t count, Real factor) {
#pragma omp simd
  for (int64_t d = 0; d < count; ++d) row[d] *= factor;
}

template <typename Real>
class ForwardTile {
 public:
  ForwardTile(AttentionKind kind, const AttentionLogits<Real>& logits,
              const HeadMatrices<Real>& out, int64_t batch, int64_t head, PositionRange queries,
              Real* thread_scratch)
      : kind_(kind),
        logits_(logits),
        out_(out),
        batch_(batch),
        head_(head),
        queries_(queries),
        values_(thread_scratch),
        largest_(values_ + kTileElements),
        sum_(largest_ + kAttentionQueryTile) {}

  /// Writes the output of the queries and, where not null, log_sum_exp and row_sum from their first
  /// query on.
  void run(Real* log_sum_exp, Real* row_sum) {
    const PositionRange keys = logits_.visible_keys(batch_, queries_);
    if (keys.size() == 0) out_.set_zero(batch_, head_, queries_);
    std::fill_n(largest_, queries_.size(), -std::numeric_limits<Real>::infinity());
    std::fill_n(sum_, queries_.size(), Real{0});
    for_key_tiles(keys, [&](PositionRange tile) { add_keys(tile, tile.begin == keys.begin); });
    if (kind_ == AttentionKind::softmax) normalise(log_sum_exp);
    if (row_sum) std::copy_n(sum_, queries_.size(), row_sum);
  }

 private:
  void add_keys(PositionRange tile, bool is_first) {
    const int64_t rows = queries_.size(), columns = tile.size(), dim = out_.head_dim;
    const int64_t kv_head = logits_.kv_head(head_);
    gemm_tile<Real>(Transpose::no, Transpose::yes, rows, columns, dim, logits_.scale,
                    logits_.q.row(batch_, head_, queries_.begin), logits_.q.row_stride,
                    logits_.k.row(batch_, kv_head, tile.begin), logits_.k.row_stride, Real{0},
                    values_, kAttentionKeyTile);
    const Real bias = logits_.bias(head_), slope = logits_.slope(head_);
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t query = queries_.begin + i;
      const LogitRow<Real> row(tile, logits_.visible_keys(batch_, query), query, bias, slope);
      Real* values = values_ + i * kAttentionKeyTile;
      if (kind_ == AttentionKind::sigmoid) {
        sum_[i] += sigmoid_row(row, values);
      } else if (!row.empty()) {
        add_softmax_row(row, i, values);
      }
      row.clear_outside(values, columns);
    }
    gemm_tile<Real>(Transpose::no, Transpose::no, rows, dim, columns, Real{1}, values_,
                    kAttentionKeyTile, logits_.v.row(batch_, kv_head, tile.begin),
                    logits_.v.row_stride, is_first ? Real{0} : Real{1},
                    out_.row(batch_, head_, queries_.begin), out_.row_stride);
  }

  void add_softmax_row(const LogitRow<Real>& row, int64_t i, Real* values) {
    const Real largest_here = logit_row(row, values);
    if (largest_here > largest_[i]) {
      // What was summed so far was relative to the old maximum; before the first key it is 0.
      if (sum_[i] > 0) {
        const Real correction = fast_exp(largest_[i] - largest_here);
        sum_[i] *= correction;
        scale_row(out_.row(batch_, head_, queries_.begin + i), out_.head_dim, correction);
      }
      largest_[i] = largest_here;
    }
    sum_[i] += exp_row(row, largest_[i], values);
  }

  void normalise(Real* log_sum_exp) {
    for (int64_t i = 0; i < queries_.size(); ++i) {
      if (log_sum_exp) log_sum_exp[i] = largest_[i] + std::log(sum_[i]);
      if (sum_[i] == 0) continue;  // no key was visible: the output is 0
      const Real factor = 1 / sum_[i];
      scale_row(out_.row(batch_, head_, queries_.begin + i), out_.head_dim, factor);
      sum_[i] *= factor;
    }
  }

  AttentionKind kind_;
  const AttentionLogits<Real>& logits_;
  const HeadMatrices<Real>& out_;
  int64_t batch_, head_;
  PositionRange queries_;
  Real* values_;
  Real* largest_;
  Real* sum_;
};

}  // namespace

template <typename Real>
size_t CpuOps<Real>::attention_forward_workspace(const AttentionDesc&) const {
  return omp_get_max_threads() * kThreadElements * sizeof(Real);
}

template <typename Real>
void CpuOps<Real>::attention_forward(const AttentionDesc& desc, const AttentionInputs& inputs,
                                     const HeadsView& out, const Tensor& log_sum_exp,
                                     const Tensor& row_sum) {
  const AttentionLogits<Real> logits(desc, inputs);
  const HeadMatrices<Real> outputs(desc, out);
  Real* log_sum_exps = log_sum_exp.as<Real>();
  Real* row_sums = row_sum.as<Real>();
  Real* threads_scratch =
      scratch<Real>(workspace_, omp_get_max_threads() * kThreadElements, "attention_forward");
  const int64_t tiles = logits.query_tiles();
#pragma omp parallel for collapse(3) schedule(dynamic, 1)
  for (int64_t batch = 0; batch < desc.batch; ++batch) {
    for (int64_t head = 0; head < desc.heads; ++head) {
      for (int64_t t = 0; t < tiles; ++t) {
        // The last queries see the most keys under a causal mask: begin with the longest work.
        const PositionRange queries = logits.queries(tiles - 1 - t);
        const int64_t row = (batch * desc.heads + head) * desc.seq_len + queries.begin;
        ForwardTile<Real>(desc.kind, logits, outputs, batch, head, queries,
                          threads_scratch + omp_get_thread_num() * kThreadElements)
            .run(log_sum_exps ? log_sum_exps + row : nullptr, row_sums ? row_sums + row : nullptr);
      }
    }
  }
}

template size_t CpuOps<float>::attention_forward_workspace(const AttentionDesc&) const;
template size_t CpuOps<double>::attention_forward_workspace(const AttentionDesc&) const;
template void CpuOps<float>::attention_forward(const AttentionDesc&, const AttentionInputs&,
                                               const HeadsView&, const Tensor&, const Tensor&);
template void CpuOps<double>::attention_forward(const AttentionDesc&, const AttentionInputs&,
                                                const HeadsView&, const Tensor&, const Tensor&);

}  // namespace sigtrain
