// Images cut into patches, each a row.
#include "ops/cpu/cpu_ops.h"
#include "ops/cpu/partition.h"

namespace sigtrain {

template <typename Real>
void CpuOps<Real>::image_patches(int64_t patch_size, const Tensor& images, const Tensor& factors,
                                 const Tensor& offsets, const Tensor& y) {
  const int64_t height = images.shape[1], width = images.shape[2], channels = images.shape[3];
  const int64_t across = width / patch_size, patches = height / patch_size * across;
  const uint8_t* pixels = images.as<uint8_t>();
  const Real *factor = factors.as<Real>(), *offset = offsets.as<Real>();
  Real* rows = y.as<Real>();
  for_rows(images.shape[0] * patches, y.columns(), [=](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const int64_t image = n / patches, patch = n % patches;
      const int64_t top = patch / across * patch_size, left = patch % across * patch_size;
      Real* value = rows + n * channels * patch_size * patch_size;
      for (int64_t c = 0; c < channels; ++c) {
        for (int64_t i = 0; i < patch_size; ++i) {
          const uint8_t* row = pixels + ((image * height + top + i) * width + left) * channels + c;
          for (int64_t j = 0; j < patch_size; ++j)
            *value++ = factor[c] * static_cast<Real>(row[j * channels]) + offset[c];
        }
      }
    }
  });
}

template void CpuOps<float>::image_patches(int64_t, const Tensor&, const Tensor&, const Tensor&,
                                           const Tensor&);
template void CpuOps<double>::image_patches(int64_t, const Tensor&, const Tensor&, const Tensor&,
                                            const Tensor&);

}  // namespace sigtrain
