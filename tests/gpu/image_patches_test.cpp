#include "gpu_testing.h"

namespace sigtrain {
namespace {

struct PatchCase {
  int64_t batch, height, width, channels, patch_size;
};

class GpuImagePatches : public GpuTest, public ::testing::WithParamInterface<PatchCase> {};

TEST_P(GpuImagePatches, IsTheFormula) {
  const PatchCase c = GetParam();
  const Shape shape{c.batch, c.height, c.width, c.channels};
  std::vector<uint8_t> pixels(static_cast<size_t>(shape.numel()));
  std::mt19937 engine(3);
  for (uint8_t& pixel : pixels) pixel = static_cast<uint8_t>(engine());
  const DeviceMemory memory = gpu().allocate(pixels.size());
  const Tensor on_gpu{memory.get(), DType::u8, shape}, on_cpu{pixels.data(), DType::u8, shape};
  gpu().upload(on_gpu, pixels.data());
  const Operand factors = normal("factors", {c.channels}, Role::accumulate, 0.01, 0.02);
  const Operand offsets = normal("offsets", {c.channels}, Role::accumulate);
  const int64_t patches = c.batch * (c.height / c.patch_size) * (c.width / c.patch_size);
  const Operand y = output("y", {patches, c.channels * c.patch_size * c.patch_size});
  run([&](Ops& ops, const Pick& at) {
    ops.image_patches(c.patch_size, &ops == &gpu() ? on_gpu : on_cpu, at(factors), at(offsets),
                      at(y));
  });
  expect_near(y, rounded(255.0 * factors.largest() + offsets.largest()));
}

INSTANTIATE_TEST_SUITE_P(Cases, GpuImagePatches,
                         ::testing::Values(PatchCase{1, 1, 1, 1, 1}, PatchCase{3, 8, 8, 1, 2},
                                           PatchCase{2, 32, 32, 3, 4}, PatchCase{2, 15, 9, 3, 3},
                                           PatchCase{2, 224, 224, 3, 16},
                                           PatchCase{1, 28, 56, 3, 14}));

}  // namespace
}  // namespace sigtrain
