#include <bit>

#include "gpu_testing.h"

namespace sigtrain {
namespace {

// silu(g) = g sigmoid(g); its derivative is below 1.1.
class GpuSwiglu : public GpuTest, public ::testing::WithParamInterface<std::pair<int, int>> {};

TEST_P(GpuSwiglu, Forward) {
  const auto [rows, hidden] = GetParam();
  const Operand x = normal("x", {rows, 2 * hidden}, Role::compute, 3.0);
  const Operand y = output("y", {rows, hidden});
  run([&](Ops& ops, const Pick& at) { ops.swiglu_forward(at(x), at(y)); });
  expect_near(y, {bf16_roundoff + 4 * fast_function, 0x1p-40});
}

TEST_P(GpuSwiglu, Backward) {
  const auto [rows, hidden] = GetParam();
  const Operand x = normal("x", {rows, 2 * hidden}, Role::compute, 3.0);
  const Operand dy = normal("dy", {rows, hidden});
  const Operand dx = output("dx", {rows, 2 * hidden});
  run([&](Ops& ops, const Pick& at) { ops.swiglu_backward(at(x), at(dy), at(dx)); });
  expect_near(dx, rounded(1.1 * dy.largest() * x.largest()));
}

INSTANTIATE_TEST_SUITE_P(Shapes, GpuSwiglu,
                         ::testing::Values(std::pair(64, 5632), std::pair(7, 24), std::pair(5, 13),
                                           std::pair(1, 1), std::pair(3, 1001)));

TEST_F(GpuTest, SwigluOfExtremeGates) {
  const Operand x = given("x", {4, 2}, {-300.0, 2.0, 300.0, 2.0, -88.0, 1.0, 0.0, 5.0});
  const Operand y = output("y", {4, 1});
  run([&](Ops& ops, const Pick& at) { ops.swiglu_forward(at(x), at(y)); });
  expect_near(y, {bf16_roundoff + 4 * fast_function, 1e-30});
}

TEST_F(GpuTest, Add) {
  for (const int64_t count : {1, 8, 13, 4096, 100003}) {
    const Operand x = normal("x", {count}), y = normal("y", {count});
    run([&](Ops& ops, const Pick& at) { ops.add(at(x), at(y)); });
    expect_near(y, {bf16_roundoff, 0.0});
  }
}

std::vector<unsigned char> device_bytes(Ops& ops, const Tensor& x) {
  std::vector<unsigned char> bytes(x.bytes());
  ops.download(bytes.data(), x);
  return bytes;
}

TEST_F(GpuTest, FillWritesEveryDtypeAndNothingElse) {
  for (const int64_t count : {1, 7, 8, 1000, 4099}) {
    const Operand narrow = output("narrow", {count}),
                  wide = output("wide", {count}, Role::accumulate);
    gpu().fill(narrow.on_gpu(), 1.5);
    gpu().fill(wide.on_gpu(), -2.25);
    expect_near(narrow, std::vector<double>(static_cast<size_t>(count), 1.5), exact);
    expect_near(wide, std::vector<double>(static_cast<size_t>(count), -2.25), exact);
    EXPECT_TRUE(narrow.guards_are_intact() && wide.guards_are_intact());
    // From an address that is no multiple of 16 bytes.
    gpu().fill(wide.on_gpu().slice(count - 1, count), 0.0);
    EXPECT_EQ(wide.gpu_values().back(), 0.0);

    const DeviceMemory memory = gpu().allocate(static_cast<size_t>(count) * 8);
    const Tensor integers{memory.get(), DType::i64, {count}};
    gpu().fill(integers, -3.0);
    std::vector<int64_t> values(static_cast<size_t>(count));
    gpu().download(values.data(), integers);
    EXPECT_EQ(values, std::vector<int64_t>(static_cast<size_t>(count), -3));
  }
}

TEST_F(GpuTest, CopyConverts) {
  for (const int64_t count : {1, 8, 21, 5000}) {
    const Operand wide = normal("wide", {count}, Role::accumulate);
    const Operand narrow = output("narrow", {count});
    const Operand back = output("back", {count}, Role::accumulate);
    gpu().copy(wide.on_gpu(), narrow.on_gpu());
    gpu().copy(narrow.on_gpu(), back.on_gpu());
    std::vector<double> expected = wide.values();
    for (double& value : expected) value = round_to_bf16(value);
    expect_near(narrow, expected, exact);
    expect_near(back, expected, exact);
    const Operand same = output("same", {count}, Role::accumulate);
    gpu().copy(wide.on_gpu(), same.on_gpu());
    EXPECT_EQ(device_bytes(gpu(), same.on_gpu()), device_bytes(gpu(), wide.on_gpu()));
    EXPECT_TRUE(narrow.guards_are_intact() && back.guards_are_intact());
  }
}

// More than the staging memory holds, and many small ones whose host memory changes at once.
TEST_F(GpuTest, UploadsKeepWhatTheHostHadAtTheCall) {
  std::vector<int32_t> large(40 << 20);
  for (size_t i = 0; i < large.size(); ++i) large[i] = static_cast<int32_t>(i * 2654435761u);
  const DeviceMemory memory = gpu().allocate(large.size() * 4);
  const Tensor whole{memory.get(), DType::i32, {static_cast<int64_t>(large.size())}};
  gpu().upload(whole, large.data());
  std::vector<int32_t> back(large.size());
  gpu().download(back.data(), whole);
  EXPECT_TRUE(back == large);

  int32_t value = 0;
  for (int64_t i = 0; i < 100000; ++i) {
    value = static_cast<int32_t>(i * 7);
    gpu().upload(whole.slice(i, i + 1), &value);
  }
  gpu().download(back.data(), whole);
  for (int32_t i = 0; i < 100000; ++i) ASSERT_EQ(back[static_cast<size_t>(i)], i * 7);
}

TEST_F(GpuTest, AllocationSaysWhatWasAskedFor) {
  try {
    (void)gpu().allocate(size_t{1} << 46);
    FAIL() << "64 TiB were allocated";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("64.00 TiB asked for"), std::string::npos)
        << error.what();
  }
  // The failure is not left for the next call.
  const Operand x = normal("x", {8});
  gpu().fill(x.on_gpu(), 1.0);
  gpu().synchronize();
}

class GpuDropout : public GpuTest, public ::testing::WithParamInterface<int64_t> {};

TEST_P(GpuDropout, DropsWhatTheCpuDrops) {
  const int64_t count = GetParam();
  const Operand x = normal("x", {count}), y = output("y", {count});
  run([&](Ops& ops, const Pick& at) {
    ops.set_random_step(123456789012);
    ops.dropout({42, 17}, 0.3, at(x), at(y));
  });
  expect_near(y, {bf16_roundoff + 2 * float_roundoff, 0.0});
  // In place.
  const Operand z = normal("z", {count});
  run([&](Ops& ops, const Pick& at) {
    ops.set_random_step(2);
    ops.dropout({42, 18}, 0.9, at(z), at(z));
  });
  expect_near(z, {bf16_roundoff + 2 * float_roundoff, 0.0});
}

INSTANTIATE_TEST_SUITE_P(Counts, GpuDropout, ::testing::Values(1, 8, 9, 1023, 65536, 100001));

TEST_F(GpuTest, StochasticDepthDropsWhatTheCpuDrops) {
  const Operand scale = output("scale", {1000}, Role::accumulate);
  run([&](Ops& ops, const Pick& at) {
    ops.set_random_step(5);
    ops.stochastic_depth({7, 3}, 0.25, at(scale));
  });
  expect_near(scale, {2 * float_roundoff, 0.0});
}

// Every bfloat16 there is, in the far tail too, where 1 + erf would have lost all digits.
std::vector<double> finite_bfloat16s() {
  std::vector<double> values;
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    // A bfloat16 is the upper half of a float.
    const auto value = std::bit_cast<float>(bits << 16);
    if (std::isfinite(value)) values.push_back(value);
  }
  return values;
}

TEST_F(GpuTest, GeluOfEveryFiniteBfloat16) {
  const std::vector<double> values = finite_bfloat16s();
  const auto count = static_cast<int64_t>(values.size());
  const Operand x = given("x", {count}, values), y = output("y", {count});
  run([&](Ops& ops, const Pick& at) { ops.activation_forward(Activation::gelu, at(x), at(y)); });
  std::vector<double> expected = values;
  for (double& value : expected) value *= 0.5 * std::erfc(-value / std::sqrt(2.0));
  expect_near(y, expected, Tolerance{bf16_roundoff, 0.0} + gelu_tolerance(0.0));
}

TEST_F(GpuTest, GeluDerivativeOfEveryFiniteBfloat16) {
  const std::vector<double> values = finite_bfloat16s();
  const auto rows = static_cast<int64_t>(values.size()) / 8;
  ASSERT_EQ(rows * 8, static_cast<int64_t>(values.size()));
  const Operand z = given("pre_activation", {rows, 8}, values), x = normal("x", {rows, 8});
  std::vector<double> identity(64, 0.0), ones(values.size(), 1.0);
  for (size_t i = 0; i < 8; ++i) identity[9 * i] = 1.0;
  const Operand weight = given("weight", {8, 8}, identity), dy = given("dy", {rows, 8}, ones);
  const Operand dx = output("dx", {rows, 8});
  const Operand dweight = normal("dweight", {8, 8}, Role::accumulate);
  run([&](Ops& ops, const Pick& at) {
    ops.linear_backward(at(x), at(weight), at(dy), Activation::gelu, at(z), at(dx), at(dweight), {},
                        {});
  });
  std::vector<double> expected = values;
  for (double& value : expected) {
    const double density = std::exp(-0.5 * value * value) / std::sqrt(2.0 * M_PI);
    value = 0.5 * std::erfc(-value / std::sqrt(2.0)) + value * density;
  }
  expect_near(dx, expected, Tolerance{bf16_roundoff, 0.0} + gelu_tolerance(1.0));
}

TEST_F(GpuTest, ActivationAloneHasTheBitsOfTheLinearLayers) {
  const Operand x = normal("x", {67, 24}), weight = normal("weight", {40, 24});
  for (const Activation activation : {Activation::gelu, Activation::relu2}) {
    const Operand pre_activation = output("pre_activation", {67, 40}),
                  expected = output("expected", {67, 40}), y = output("y", {67, 40});
    gpu().linear_forward(x.on_gpu(), weight.on_gpu(), {}, activation, pre_activation.on_gpu(),
                         expected.on_gpu());
    gpu().activation_forward(activation, pre_activation.on_gpu(), y.on_gpu());
    EXPECT_EQ(y.gpu_bytes(), expected.gpu_bytes());
  }
}

TEST_F(GpuTest, CapturedWorkIsDoneWhenItIsReplayed) {
  const Operand x = normal("x", {1000}), y = output("y", {1000}), expected = output("e", {1000});
  const auto work = [&](const Operand& to) {
    gpu().next_random_step();
    gpu().dropout({42, 17}, 0.5, x.on_gpu(), to.on_gpu());
  };
  work(y);
  gpu().set_random_step(4);
  const auto before = y.gpu_bytes();
  const std::unique_ptr<CapturedWork> captured = gpu().capture([&] { work(y); });
  EXPECT_EQ(y.gpu_bytes(), before);
  for (uint64_t step = 5; step < 8; ++step) {
    captured->replay();  // from step - 1
    const auto replayed = y.gpu_bytes();
    gpu().set_random_step(step - 1);
    work(expected);
    EXPECT_EQ(replayed, expected.gpu_bytes()) << step;
  }
}

TEST_F(GpuTest, CaptureRefusesWhatWouldNotBeReplayed) {
  const Operand x = normal("x", {8});
  const std::vector<float> host(8);
  EXPECT_THROW((void)gpu().capture([&] { gpu().upload(x.on_gpu(), host.data()); }), Error);
  // The stream is whole again.
  gpu().fill(x.on_gpu(), 1.0);
  expect_near(x, std::vector<double>(8, 1.0), exact);
}

TEST_F(GpuTest, MemoryInUseCountsAllocations) {
  const MemoryUse before = gpu().memory_use().value();
  const DeviceMemory memory = gpu().allocate(size_t{256} << 20);
  const MemoryUse after = gpu().memory_use().value();
  EXPECT_GE(after.used, before.used + (size_t{200} << 20));
  EXPECT_LE(after.used, after.total);
}

}  // namespace
}  // namespace sigtrain
