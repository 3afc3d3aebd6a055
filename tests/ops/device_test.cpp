#include <gmock/gmock.h>

#include "core/arena.h"
#include "core/bytes_text.h"
#include "op_testing.h"

namespace sigtrain {
namespace {

TEST(CpuDevice, NamesItselfAndItsTypes) {
  CpuOps<float> single;
  CpuOps<double> reference;
  EXPECT_EQ(single.name(), "cpu");
  EXPECT_EQ(single.compute_dtype(), DType::f32);
  EXPECT_EQ(single.accumulate_dtype(), DType::f32);
  EXPECT_EQ(reference.compute_dtype(), DType::f64);
  EXPECT_EQ(reference.accumulate_dtype(), DType::f64);
}

TEST(CpuDevice, AllocatesAligned) {
  CpuOps<float> ops;
  for (const size_t bytes : {size_t{0}, size_t{1}, size_t{255}, size_t{257}, size_t{1} << 20}) {
    const DeviceMemory memory = ops.allocate(bytes);
    ASSERT_TRUE(memory);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(memory.get()) % Arena::alignment, 0u);
    std::memset(memory.get(), 1, bytes);
  }
}

TEST(CpuDevice, SaysHowMuchWasAskedForAndIsFree) {
  CpuOps<float> ops;
  for (const size_t bytes : {size_t{1} << 60, std::numeric_limits<size_t>::max()}) {
    EXPECT_THAT([&] { ops.allocate(bytes); },
                ::testing::ThrowsMessage<Error>(
                    ::testing::AllOf(::testing::HasSubstr(bytes_text(bytes) + " asked for"),
                                     ::testing::HasSubstr(" free"))));
  }
}

TEST(CpuDevice, UploadsAndDownloads) {
  CpuOps<float> ops;
  const auto x = RandomValues(1).normal<double>({5, 7});
  Buffer<double> device({5, 7}), back({5, 7});
  ops.upload(device, x.values.data());
  ops.synchronize();
  ops.download(back.values.data(), device);
  EXPECT_TRUE(same_bits(back, x));
}

TEST(CpuDevice, Fills) {
  CpuOps<float> ops;
  Buffer<float> f32({100003});
  Buffer<double> f64({3});
  Buffer<int32_t> i32({3});
  ops.fill(f32, 1.5);
  ops.fill(f64, 0.1);
  ops.fill(i32, -1);
  EXPECT_THAT(f32.values, ::testing::Each(1.5F));
  EXPECT_THAT(f64.values, ::testing::Each(0.1));
  EXPECT_THAT(i32.values, ::testing::Each(-1));
  EXPECT_THROW(ops.fill({f32.values.data(), DType::bf16, {4}}, 0.0), Error);
}

TEST(CpuDevice, CopiesAndConverts) {
  CpuOps<float> ops;
  auto x = RandomValues(2).normal<float>({123, 321});
  Buffer<double> wide({321 * 123});
  Buffer<float> back({123, 321}), same({123, 321});
  ops.copy(x, wide);
  ops.copy(wide, back);
  ops.copy(x, same);
  EXPECT_EQ(largest_difference(wide, x), 0.0);
  EXPECT_TRUE(same_bits(back, x));
  EXPECT_TRUE(same_bits(same, x));

  Buffer<float> shorter({5});
  EXPECT_THROW(ops.copy(x, shorter), Error);
  Buffer<int32_t> integers({5});
  EXPECT_THROW(ops.copy(shorter, integers), Error);
}

}  // namespace
}  // namespace sigtrain
