// Vocabulary projection and cross-entropy, over chunks of rows: the logits of a chunk become their
// own gradient in place, and never those of all rows exist.
#include <limits>

#include "ops/cpu/cpu_ops.h"
#include "ops/cpu/gemm.h"
#include "ops/cpu/partition.h"
#include "ops/cpu/vector_math.h"

namespace sigtrain {
namespace {

struct RowResult {
  double objective, nll;
  bool correct;
};

// Logits in. Out: with `gradient` the gradient of the row's objective times desc.gradient_scale,
// else nothing of use. Everything is relative to the largest logit, so that no size of logits
// overflows or cancels.
template <typename Real>
RowResult row_loss(const CrossEntropyDesc& desc, bool gradient, int32_t target, int64_t vocab_size,
                   Real* logits) {
  Real largest = -std::numeric_limits<Real>::infinity();
#pragma omp simd reduction(max : largest)
  for (int64_t j = 0; j < vocab_size; ++j) largest = logits[j] > largest ? logits[j] : largest;
  const Real target_logit = logits[target];
  const bool correct =
      target_logit == largest && std::find(logits, logits + target, largest) == logits + target;

  Real sum_exp = 0, sum_logits = 0;
#pragma omp simd reduction(+ : sum_exp, sum_logits)
  for (int64_t j = 0; j < vocab_size; ++j) {
    const Real logit = logits[j] - largest, e = fast_exp(logit);
    logits[j] = e;
    sum_exp += e;
    sum_logits += logit;
  }
  const double log_sum_exp = std::log(static_cast<double>(sum_exp));
  const double log_z = largest + log_sum_exp;
  const double nll = log_sum_exp - (static_cast<double>(target_logit) - largest);
  const double uniform_nll = log_sum_exp - sum_logits / static_cast<double>(vocab_size);
  const double smoothing = desc.label_smoothing;

  if (gradient) {
    const double scale = desc.gradient_scale;
    const auto of_exp = static_cast<Real>(scale * (1.0 + 2.0 * desc.z_loss * log_z) / sum_exp);
    const auto uniform = static_cast<Real>(scale * smoothing / static_cast<double>(vocab_size));
#pragma omp simd
    for (int64_t j = 0; j < vocab_size; ++j) logits[j] = logits[j] * of_exp - uniform;
    logits[target] -= static_cast<Real>(scale * (1.0 - smoothing));
  }
  return {(1.0 - smoothing) * nll + smoothing * uniform_nll + desc.z_loss * log_z * log_z, nll,
          correct};
}

// Where the choice is ours: rows enough to share dx = dlogits weight among threads and to make
// reading the weight again for every chunk a small share of the work (at 512 rows a quarter slower,
// at 2048 no faster), and more of them while a small vocabulary's logits stay in cache.
int64_t rows_per_chunk(const CrossEntropyDesc& desc, int64_t rows, int64_t vocab_size,
                       size_t element_size) {
  if (desc.chunk_rows > 0) return std::min(desc.chunk_rows, rows);
  constexpr int64_t chunk_bytes = int64_t{4} << 20, fewest_rows = 1024;
  const int64_t fitting =
      chunk_bytes / std::max<int64_t>(1, vocab_size * static_cast<int64_t>(element_size));
  return std::min(rows, std::max(fewest_rows, fitting));
}

// The results of a chunk's rows lie in front of its logits.
template <typename Real>
int64_t result_elements(int64_t chunk) {
  return ceil_div(chunk * static_cast<int64_t>(sizeof(RowResult)), 64) * 64 /
         static_cast<int64_t>(sizeof(Real));
}

void check_targets(const CrossEntropyDesc& desc, const int32_t* targets, int64_t rows,
                   int64_t vocab_size) {
  for (int64_t i = 0; i < rows; ++i) {
    if (targets[i] == desc.ignore_index || (targets[i] >= 0 && targets[i] < vocab_size)) continue;
    throw Error(
        "cross-entropy: the target of row {} is {}, which is neither in the vocabulary [0, {}) nor "
        "ignore_index {}: the data and the model's vocab_size do not belong together",
        i, targets[i], vocab_size, desc.ignore_index);
  }
}

}  // namespace

template <typename Real>
size_t CpuOps<Real>::vocab_cross_entropy_workspace(const CrossEntropyDesc& desc, int64_t rows,
                                                   int64_t, int64_t vocab_size) const {
  const int64_t chunk = rows_per_chunk(desc, rows, vocab_size, sizeof(Real));
  return (result_elements<Real>(chunk) + chunk * vocab_size) * sizeof(Real);
}

template <typename Real>
void CpuOps<Real>::vocab_cross_entropy(const CrossEntropyDesc& desc, const Tensor& x,
                                       const Tensor& weight, const Tensor& targets,
                                       const Tensor& sums, const Tensor& dx,
                                       const Tensor& dweight) {
  const int64_t rows = targets.numel(), width = weight.columns(), vocab_size = weight.rows();
  const int32_t* target = targets.as<int32_t>();
  const Real* inputs = x.as<Real>();
  const Real* weights = weight.as<Real>();
  Real* d_inputs = dx.as<Real>();
  Real* d_weights = dweight.as<Real>();
  check_targets(desc, target, rows, vocab_size);

  const int64_t chunk = rows_per_chunk(desc, rows, vocab_size, sizeof(Real));
  Real* memory = scratch<Real>(workspace_, result_elements<Real>(chunk) + chunk * vocab_size,
                               "vocab_cross_entropy");
  auto* results = reinterpret_cast<RowResult*>(memory);
  Real* logits = memory + result_elements<Real>(chunk);

  double totals[loss_sum_slots] = {};
  for (int64_t begin = 0; begin < rows; begin += chunk) {
    const int64_t count = std::min(chunk, rows - begin);
    const int32_t* chunk_targets = target + begin;
    const Real* chunk_inputs = inputs + begin * width;
    gemm<Real>(Transpose::no, Transpose::yes, count, vocab_size, width, Real{1}, chunk_inputs,
               width, weights, width, Real{0}, logits, vocab_size);
    for_rows(count, vocab_size, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) {
        Real* row = logits + i * vocab_size;
        if (chunk_targets[i] != desc.ignore_index) {
          results[i] = row_loss(desc, d_inputs != nullptr, chunk_targets[i], vocab_size, row);
        } else {
          std::fill_n(row, vocab_size, Real{0});
        }
      }
    });
    for (int64_t i = 0; i < count; ++i) {
      if (chunk_targets[i] == desc.ignore_index) continue;
      totals[loss_sum_objective] += results[i].objective;
      totals[loss_sum_nll] += results[i].nll;
      totals[loss_sum_count] += 1.0;
      totals[loss_sum_correct] += results[i].correct ? 1.0 : 0.0;
    }
    if (!d_inputs) continue;
    gemm<Real>(Transpose::no, Transpose::no, count, width, vocab_size, Real{1}, logits, vocab_size,
               weights, width, Real{0}, d_inputs + begin * width, width);
    gemm<Real>(Transpose::yes, Transpose::no, vocab_size, width, count, Real{1}, logits, vocab_size,
               chunk_inputs, width, Real{1}, d_weights, width);
  }
  for (int slot = 0; slot < loss_sum_slots; ++slot)
    sums.as<Real>()[slot] += static_cast<Real>(totals[slot]);
}

template size_t CpuOps<float>::vocab_cross_entropy_workspace(const CrossEntropyDesc&, int64_t,
                                                             int64_t, int64_t) const;
template size_t CpuOps<double>::vocab_cross_entropy_workspace(const CrossEntropyDesc&, int64_t,
                                                              int64_t, int64_t) const;
template void CpuOps<float>::vocab_cross_entropy(const CrossEntropyDesc&, const Tensor&,
                                                 const Tensor&, const Tensor&, const Tensor&,
                                                 const Tensor&, const Tensor&);
template void CpuOps<double>::vocab_cross_entropy(const CrossEntropyDesc&, const Tensor&,
                                                  const Tensor&, const Tensor&, const Tensor&,
                                                  const Tensor&, const Tensor&);

}  // namespace sigtrain
