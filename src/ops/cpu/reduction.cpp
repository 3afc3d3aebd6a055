// Reductions to one number: each piece in double, then the pieces in order.
#include <cmath>
#include <numeric>

#include "ops/cpu/cpu_ops.h"
#include "ops/cpu/partition.h"

namespace sigtrain {
namespace {

template <typename Real, typename Term>
double sum_terms(const Tensor& x, const Tensor& workspace, const char* operation,
                 const Term& term) {
  const Real* data = x.as<Real>();
  const int64_t pieces = ceil_div(x.numel(), kElementsPerPiece);
  double* partials = scratch<double>(workspace, pieces, operation);
  for_elements(x.numel(), [=](int64_t begin, int64_t end) {
    // Four sums at a time: one would wait for its own last addition.
    const int64_t quarter = (end - begin) / 4;
    const Real *x0 = data + begin, *x1 = x0 + quarter, *x2 = x1 + quarter, *x3 = x2 + quarter;
    double sum0 = 0, sum1 = 0, sum2 = 0, sum3 = 0;
#pragma omp simd reduction(+ : sum0, sum1, sum2, sum3)
    for (int64_t i = 0; i < quarter; ++i) {
      sum0 += term(static_cast<double>(x0[i]));
      sum1 += term(static_cast<double>(x1[i]));
      sum2 += term(static_cast<double>(x2[i]));
      sum3 += term(static_cast<double>(x3[i]));
    }
    for (int64_t i = begin + 4 * quarter; i < end; ++i) sum0 += term(static_cast<double>(data[i]));
    partials[begin / kElementsPerPiece] = (sum0 + sum1) + (sum2 + sum3);
  });
  double total = 0;
  for (int64_t piece = 0; piece < pieces; ++piece) total += partials[piece];
  return total;
}

// The sums of the counted stretches of x, each `stretch` rows of `width` elements of which the
// first lengths[i / stretches_per_length] count, in order.
template <typename Real, typename Term>
double sum_stretches(const Tensor& x, const Tensor& lengths, int64_t stretches, int64_t width,
                     const Tensor& workspace, const char* operation, const Term& term) {
  const Real* data = x.as<Real>();
  const int32_t* length = lengths.as<int32_t>();
  const int64_t per_stretch = x.numel() / stretches,
                per_length = stretches / std::max<int64_t>(1, lengths.numel());
  double* partials = scratch<double>(workspace, stretches, operation);
  for_pieces(stretches, 1, [&](int64_t i, int64_t) {
    const int64_t counted = std::min(per_stretch, length[i / per_length] * width);
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < counted; ++j)
      sum += term(static_cast<double>(data[i * per_stretch + j]));
    partials[i] = sum;
  });
  return std::accumulate(partials, partials + stretches, 0.0);
}

int64_t sum_of_lengths(const Tensor& lengths) {
  const int32_t* length = lengths.as<int32_t>();
  return std::accumulate(length, length + lengths.numel(), int64_t{0});
}

constexpr auto kSquare = [](double x) { return x * x; };
constexpr auto kIdentity = [](double x) { return x; };

}  // namespace

template <typename Real>
void CpuOps<Real>::root_mean_square(const Tensor& x, const Tensor& result) {
  const double sum = sum_terms<Real>(x, workspace_, "root_mean_square", kSquare);
  *result.as<Real>() = static_cast<Real>(std::sqrt(sum / x.numel()));
}

template <typename Real>
void CpuOps<Real>::mean(const Tensor& x, const Tensor& result) {
  const double sum = sum_terms<Real>(x, workspace_, "mean", kIdentity);
  *result.as<Real>() = static_cast<Real>(sum / x.numel());
}

template <typename Real>
void CpuOps<Real>::sum_of_squares(const Tensor& x, const Tensor& result) {
  *result.as<Real>() = static_cast<Real>(sum_terms<Real>(x, workspace_, "sum_of_squares", kSquare));
}

template <typename Real>
size_t CpuOps<Real>::reduction_workspace(int64_t numel) const {
  return ceil_div(numel, kElementsPerPiece) * sizeof(double);
}

template <typename Real>
void CpuOps<Real>::sequence_root_mean_square(const Tensor& x, const Tensor& lengths,
                                             const Tensor& result) {
  const int64_t counted = sum_of_lengths(lengths) * x.columns();
  const double sum = sum_stretches<Real>(x, lengths, lengths.numel(), x.columns(), workspace_,
                                         "sequence_root_mean_square", kSquare);
  *result.as<Real>() = counted ? static_cast<Real>(std::sqrt(sum / counted)) : Real(0);
}

template <typename Real>
void CpuOps<Real>::sequence_mean(const Tensor& x, const Tensor& lengths, const Tensor& result) {
  const int64_t counted = sum_of_lengths(lengths) * x.shape[1];
  const double sum = sum_stretches<Real>(x, lengths, x.shape[0] * x.shape[1], 1, workspace_,
                                         "sequence_mean", kIdentity);
  *result.as<Real>() = counted ? static_cast<Real>(sum / counted) : Real(0);
}

template <typename Real>
size_t CpuOps<Real>::sequence_reduction_workspace(int64_t sequences) const {
  return static_cast<size_t>(sequences) * sizeof(double);
}

#define SIGTRAIN_INSTANTIATE(Real)                                                        \
  template void CpuOps<Real>::root_mean_square(const Tensor&, const Tensor&);             \
  template void CpuOps<Real>::mean(const Tensor&, const Tensor&);                         \
  template void CpuOps<Real>::sum_of_squares(const Tensor&, const Tensor&);               \
  template size_t CpuOps<Real>::reduction_workspace(int64_t) const;                       \
  template void CpuOps<Real>::sequence_root_mean_square(const Tensor&, const Tensor&,     \
                                                        const Tensor&);                   \
  template void CpuOps<Real>::sequence_mean(const Tensor&, const Tensor&, const Tensor&); \
  template size_t CpuOps<Real>::sequence_reduction_workspace(int64_t) const;
SIGTRAIN_INSTANTIATE(float)
SIGTRAIN_INSTANTIATE(double)
#undef SIGTRAIN_INSTANTIATE

}  // namespace sigtrain
