// Images cut into patches.
#include "kernels/image_patches.h"

#include "ops/cuda/check.h"
#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/pointers.h"

namespace sigtrain {

void CudaOps::image_patches(int64_t patch_size, const Tensor& images, const Tensor& factors,
                            const Tensor& offsets, const Tensor& y) {
  kernels::ImagePatches call{};
  call.batch = images.shape[0];
  call.height = static_cast<int>(images.shape[1]);
  call.width = static_cast<int>(images.shape[2]);
  call.channels = static_cast<int>(images.shape[3]);
  call.patch_size = static_cast<int>(patch_size);
  call.images = images.as<uint8_t>();
  call.factors = factors.as<float>();
  call.offsets = offsets.as<float>();
  call.y = bf16_pointer(y);
  kernels::image_patches(call, stream_);
  check_launch("image_patches");
}

}  // namespace sigtrain
