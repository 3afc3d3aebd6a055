// Images of bytes cut into patches, normalised on the way.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace sigtrain::kernels {

struct ImagePatches {
  int64_t batch;
  int height, width, channels, patch_size;
  const uint8_t* images;  // [batch, height, width, channels]
  const float* factors;   // [channels]: y = factor x + offset
  const float* offsets;
  __nv_bfloat16* y;  // [batch patches, channels patch_size^2]
};

void image_patches(const ImagePatches& call, cudaStream_t stream);

}  // namespace sigtrain::kernels
