// Windows of frames, and sinusoids at real positions.
#include <cmath>
#include <vector>

#include "ops/cpu/cpu_ops.h"
#include "ops/cpu/partition.h"

namespace sigtrain {

template <typename Real>
void CpuOps<Real>::unfold(const UnfoldDesc& desc, const Tensor& x, const Tensor& lengths,
                          const Tensor& y) {
  const float* frames = x.as<float>();
  const int32_t* length = lengths.as<int32_t>();
  Real* out = y.as<Real>();
  const int64_t width = desc.kernel * desc.channels;
  for_rows(desc.batch * desc.out_len, width, [=](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t b = row / desc.out_len;
      const int64_t first = row % desc.out_len * desc.stride - desc.padding;
      for (int64_t k = 0; k < desc.kernel; ++k) {
        Real* part = out + row * width + k * desc.channels;
        const int64_t frame = first + k;
        if (frame < 0 || frame >= std::min<int64_t>(length[b], desc.in_len)) {
          std::fill_n(part, desc.channels, Real(0));
        } else {
          std::copy_n(frames + (b * desc.in_len + frame) * desc.channels, desc.channels, part);
        }
      }
    }
  });
}

template <typename Real>
void CpuOps<Real>::add_sinusoids(const Tensor& positions, const Tensor& x) {
  const float* position = positions.as<float>();
  Real* rows = x.as<Real>();
  const int64_t width = x.columns(), half = width / 2;
  std::vector<double> frequencies(static_cast<size_t>(half));
  for (int64_t i = 0; i < half; ++i)
    frequencies[static_cast<size_t>(i)] = std::pow(10000.0, -static_cast<double>(i) / half);
  const double* frequency = frequencies.data();
  for_rows(x.rows(), width, [=](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      for (int64_t i = 0; i < half; ++i) {
        const double angle = position[n] * frequency[i];
        rows[n * width + i] += static_cast<Real>(std::sin(angle));
        rows[n * width + half + i] += static_cast<Real>(std::cos(angle));
      }
    }
  });
}

#define SIGTRAIN_INSTANTIATE(Real)                                                    \
  template void CpuOps<Real>::unfold(const UnfoldDesc&, const Tensor&, const Tensor&, \
                                     const Tensor&);                                  \
  template void CpuOps<Real>::add_sinusoids(const Tensor&, const Tensor&);
SIGTRAIN_INSTANTIATE(float)
SIGTRAIN_INSTANTIATE(double)
#undef SIGTRAIN_INSTANTIATE

}  // namespace sigtrain
