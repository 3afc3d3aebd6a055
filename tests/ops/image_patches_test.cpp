#include "op_testing.h"

namespace sigtrain {
namespace {

struct PatchShape {
  int64_t batch, height, width, channels, patch_size;
};

class ImagePatchesTest : public ::testing::TestWithParam<PatchShape> {
 protected:
  ImagePatchesTest() : images_({shape().batch, shape().height, shape().width, shape().channels}) {
    RandomValues random(1);
    for (uint8_t& pixel : images_.values) pixel = static_cast<uint8_t>(random.integer(0, 256));
  }
  static PatchShape shape() { return GetParam(); }

  template <typename Real>
  Buffer<Real> patches() {
    const PatchShape s = shape();
    CpuOps<Real> ops;
    Buffer<Real> factors({s.channels}), offsets({s.channels});
    for (int64_t c = 0; c < s.channels; ++c) factors[c] = Real(0.25) * (c + 1), offsets[c] = -c;
    const int64_t count = s.batch * (s.height / s.patch_size) * (s.width / s.patch_size);
    Buffer<Real> y({count, s.channels * s.patch_size * s.patch_size});
    ops.image_patches(s.patch_size, images_, factors, offsets, y);
    return y;
  }

  Buffer<uint8_t> images_;
};

// Every pixel of every image is where the convolution of a kernel as large as its stride would look
// for it.
TEST_P(ImagePatchesTest, PutsEveryPixelInItsPatch) {
  const PatchShape s = shape();
  const Buffer<double> y = patches<double>();
  const int64_t p = s.patch_size, across = s.width / p;
  for (int64_t b = 0; b < s.batch; ++b) {
    for (int64_t i = 0; i < s.height; ++i) {
      for (int64_t j = 0; j < s.width; ++j) {
        for (int64_t c = 0; c < s.channels; ++c) {
          const int64_t row = b * (s.height / p) * across + i / p * across + j / p;
          const int64_t column = (c * p + i % p) * p + j % p;
          const double pixel = images_[((b * s.height + i) * s.width + j) * s.channels + c];
          ASSERT_EQ(y[row * s.channels * p * p + column], 0.25 * (c + 1) * pixel - c);
        }
      }
    }
  }
  EXPECT_LT(relative_error(patches<float>(), y), 4 * float_roundoff);
}

TEST_P(ImagePatchesTest, GivesTheSameBitsForAnyThreadCount) {
  expect_same_bits_for_any_thread_count<float>([&] { return std::vector{patches<float>()}; });
}

INSTANTIATE_TEST_SUITE_P(Shapes, ImagePatchesTest,
                         ::testing::Values(PatchShape{1, 1, 1, 1, 1}, PatchShape{2, 8, 8, 1, 2},
                                           PatchShape{3, 12, 6, 3, 3}, PatchShape{2, 64, 32, 3, 16},
                                           PatchShape{1, 5, 5, 3, 5}));

}  // namespace
}  // namespace sigtrain
