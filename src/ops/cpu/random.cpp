// Dropout (Srivastava et al. 2014), stochastic depth (Huang et al. 2016) and layer drop (Fan et al.
// 2020).
#include "core/philox.h"
#include "ops/cpu/cpu_ops.h"
#include "ops/cpu/partition.h"

namespace sigtrain {

template <typename Real>
void CpuOps<Real>::dropout(const RandomStream& stream, double p, const Tensor& x, const Tensor& y) {
  const Real* in = x.as<Real>();
  Real* out = y.as<Real>();
  const float threshold = static_cast<float>(p);
  const Real scale = static_cast<Real>(1 / (1 - p));
  const uint64_t step = random_step_;
  // Philox blocks are drawn some at a time, apart from their use, so that both loops vectorise.
  constexpr int64_t batch = 64;
  static_assert(kElementsPerPiece % (4 * batch) == 0, "pieces start on whole Philox blocks");
  for_elements(x.numel(), [=](int64_t begin, int64_t end) {
    float uniform[4 * batch];
    for (int64_t first = begin; first < end; first += 4 * batch) {
#pragma omp simd
      for (int64_t j = 0; j < batch; ++j) {
        const Philox block = stream.block(static_cast<uint64_t>(first / 4 + j), step);
        uniform[4 * j] = uniform_from_bits(block.words[0]);
        uniform[4 * j + 1] = uniform_from_bits(block.words[1]);
        uniform[4 * j + 2] = uniform_from_bits(block.words[2]);
        uniform[4 * j + 3] = uniform_from_bits(block.words[3]);
      }
      const int64_t n = std::min(4 * batch, end - first);
#pragma omp simd
      for (int64_t i = 0; i < n; ++i)
        out[first + i] = uniform[i] >= threshold ? in[first + i] * scale : Real(0);
    }
  });
}

template <typename Real>
void CpuOps<Real>::stochastic_depth(const RandomStream& stream, double p, const Tensor& scale) {
  Real* scales = scale.as<Real>();
  for (int64_t b = 0; b < scale.numel(); ++b) {
    const float uniform =
        uniform_from_bits(stream.block(static_cast<uint64_t>(b), random_step_).words[0]);
    scales[b] = uniform >= static_cast<float>(p) ? static_cast<Real>(1 / (1 - p)) : Real(0);
  }
}

template <typename Real>
void CpuOps<Real>::layer_drop(const RandomStream& stream, double p, const Tensor& scale) {
  const float uniform = uniform_from_bits(stream.block(0, random_step_).words[0]);
  std::fill_n(scale.as<Real>(), scale.numel(),
              uniform >= static_cast<float>(p) ? Real(1) : Real(0));
}

#define SIGTRAIN_INSTANTIATE(Real)                                                                \
  template void CpuOps<Real>::dropout(const RandomStream&, double, const Tensor&, const Tensor&); \
  template void CpuOps<Real>::stochastic_depth(const RandomStream&, double, const Tensor&);       \
  template void CpuOps<Real>::layer_drop(const RandomStream&, double, const Tensor&);
SIGTRAIN_INSTANTIATE(float)
SIGTRAIN_INSTANTIATE(double)
#undef SIGTRAIN_INSTANTIATE

}  // namespace sigtrain
