#include <algorithm>

#include "image_patches.h"
#include "launch.h"
#include "vector.cuh"

namespace sigtrain::kernels {
namespace {

// One block a patch, one thread for kStep neighbouring values of a patch's row: 8 make one wide
// store. The bytes a warp reads lie in a few lines, which the first-level cache keeps for the other
// channels.
template <int kStep>
__global__ void image_patches_kernel(ImagePatches call) {
  const int across = call.width / call.patch_size;
  const int patches = call.height / call.patch_size * across;
  const int64_t image = blockIdx.x / patches;
  const int patch = static_cast<int>(blockIdx.x % patches);
  const int top = patch / across * call.patch_size, left = patch % across * call.patch_size;
  const int area = call.patch_size * call.patch_size, columns = call.channels * area;
  const uint8_t* corner =
      call.images + ((image * call.height + top) * call.width + left) * call.channels;
  bf16* out = call.y + int64_t{blockIdx.x} * columns;
  for (int i = threadIdx.x * kStep; i < columns; i += blockDim.x * kStep) {
    const int channel = i / area, row = i % area / call.patch_size, column = i % call.patch_size;
    const float factor = call.factors[channel], offset = call.offsets[channel];
    const uint8_t* pixel = corner + (int64_t{row} * call.width + column) * call.channels + channel;
    if constexpr (kStep == vector_size) {
      float values[vector_size];
#pragma unroll
      for (int j = 0; j < vector_size; ++j)
        values[j] = fmaf(factor, static_cast<float>(pixel[j * call.channels]), offset);
      store(out + i, values);
    } else {
      out[i] = from_float<bf16>(fmaf(factor, static_cast<float>(*pixel), offset));
    }
  }
}

}  // namespace

void image_patches(const ImagePatches& call, cudaStream_t stream) {
  const int64_t patches =
      call.batch * (call.height / call.patch_size) * (call.width / call.patch_size);
  if (patches <= 0) return;
  const int columns = call.channels * call.patch_size * call.patch_size;
  const bool wide = call.patch_size % vector_size == 0 && aligned16(call.y);
  const int threads = static_cast<int>(
      std::min<int64_t>(256, round_up(ceil_div(columns, wide ? vector_size : 1), 32)));
  if (wide) {
    image_patches_kernel<vector_size><<<static_cast<unsigned>(patches), threads, 0, stream>>>(call);
  } else {
    image_patches_kernel<1><<<static_cast<unsigned>(patches), threads, 0, stream>>>(call);
  }
}

}  // namespace sigtrain::kernels
