// Runs one operation on the GPU and in double on the CPU, on the same inputs. Outputs start
// poisoned, memory around every tensor and behind the workspace is guarded, and every GPU run is
// made twice: the bits must agree, unless the test says that they need not.
#pragma once

#include <cuda_bf16.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "needs_gpu.h"
#include "ops/cpu/cpu_ops.h"
#include "ops/cuda/cuda_ops.h"
#include "tolerance.h"

namespace sigtrain {

inline double round_to_bf16(double x) {
  return __bfloat162float(__float2bfloat16(static_cast<float>(x)));
}

/// Whether a tensor is of the backends' compute_dtype or accumulate_dtype.
enum class Role { compute, accumulate };

/// One tensor in both backends; default-constructed it is absent in both.
class Operand {
 public:
  Operand() = default;
  Operand(CudaOps& gpu, Shape shape, DType gpu_dtype, const std::vector<double>& values,
          std::string name)
      : state_(std::make_shared<State>(State{gpu, std::move(name), {}, {}, {}, {}, 0})) {
    State& s = *state_;
    const size_t bytes = static_cast<size_t>(shape.numel()) * size_of(gpu_dtype);
    s.memory = gpu.allocate(bytes + 2 * guard_bytes);
    s.gpu_tensor = {static_cast<std::byte*>(s.memory.get()) + guard_bytes, gpu_dtype, shape};
    // 0xff bytes are NaN in every floating type.
    std::vector<unsigned char> everything(bytes + 2 * guard_bytes, 0xff);
    if (gpu_dtype == DType::i32) {
      s.integers.assign(values.begin(), values.end());
      std::memcpy(everything.data() + guard_bytes, s.integers.data(), bytes);
    } else {
      s.values = values;
      for (size_t i = 0; i < values.size(); ++i) {
        unsigned char* at = everything.data() + guard_bytes + i * size_of(gpu_dtype);
        const float value = static_cast<float>(values[i]);
        if (gpu_dtype == DType::bf16) {
          const __nv_bfloat16 narrow = __float2bfloat16(value);
          std::memcpy(at, &narrow, sizeof(narrow));
        } else {
          std::memcpy(at, &value, sizeof(value));
        }
      }
    }
    std::fill(everything.begin(), everything.begin() + guard_bytes, guard);
    std::fill(everything.end() - guard_bytes, everything.end(), guard);
    s.bytes = everything.size();
    set_gpu_bytes(everything);
  }

  explicit operator bool() const { return state_ != nullptr; }
  Tensor on_gpu() const { return state_ ? state_->gpu_tensor : Tensor{}; }
  Tensor on_cpu() const {
    if (!state_) return {};
    const Shape& shape = state_->gpu_tensor.shape;
    if (state_->gpu_tensor.dtype == DType::i32) return {state_->integers.data(), DType::i32, shape};
    return {state_->values.data(), DType::f64, shape};
  }
  const std::string& name() const { return state_->name; }
  /// The CPU's values.
  std::vector<double>& values() { return state_->values; }
  const std::vector<double>& values() const { return state_->values; }
  double largest() const {
    double result = 0.0;
    for (const double value : values()) result = std::max(result, std::abs(value));
    return result;
  }

  /// What the device holds, the guards included.
  std::vector<unsigned char> gpu_bytes() const {
    std::vector<unsigned char> bytes(state_->bytes);
    state_->gpu.download(bytes.data(), raw());
    return bytes;
  }
  void set_gpu_bytes(const std::vector<unsigned char>& bytes) const {
    state_->gpu.upload(raw(), bytes.data());
  }
  std::vector<double> gpu_values() const {
    const std::vector<unsigned char> bytes = gpu_bytes();
    std::vector<double> result(static_cast<size_t>(state_->gpu_tensor.numel()));
    for (size_t i = 0; i < result.size(); ++i) {
      const unsigned char* at = bytes.data() + guard_bytes + i * size_of(state_->gpu_tensor.dtype);
      if (state_->gpu_tensor.dtype == DType::bf16) {
        __nv_bfloat16 value;
        std::memcpy(&value, at, sizeof(value));
        result[i] = __bfloat162float(value);
      } else {
        float value;
        std::memcpy(&value, at, sizeof(value));
        result[i] = value;
      }
    }
    return result;
  }
  bool guards_are_intact() const {
    const std::vector<unsigned char> bytes = gpu_bytes();
    const auto is_guard = [](unsigned char byte) { return byte == guard; };
    return std::all_of(bytes.begin(), bytes.begin() + guard_bytes, is_guard) &&
           std::all_of(bytes.end() - guard_bytes, bytes.end(), is_guard);
  }

 private:
  Tensor raw() const {
    return {state_->memory.get(), DType::bf16, {static_cast<int64_t>(state_->bytes / 2)}};
  }

  static constexpr size_t guard_bytes = 256;
  static constexpr unsigned char guard = 0xa5;

  struct State {
    CudaOps& gpu;
    std::string name;
    DeviceMemory memory;
    Tensor gpu_tensor;
    std::vector<double> values;
    std::vector<int32_t> integers;
    size_t bytes;
  };
  std::shared_ptr<State> state_;
};

/// The tensor of an operand in the backend an operation runs on.
using Pick = std::function<Tensor(const Operand&)>;

class GpuTest : public NeedsGpu {
 protected:
  void SetUp() override {
    NeedsGpu::SetUp();
    if (!IsSkipped()) gpu_ = std::make_unique<CudaOps>();
  }

  CudaOps& gpu() { return *gpu_; }
  CpuOps<double>& cpu() { return cpu_; }

  /// Standard normal times `scale` plus `center`, rounded to the GPU's dtype.
  Operand normal(const std::string& name, Shape shape, Role role = Role::compute,
                 double scale = 1.0, double center = 0.0) {
    std::vector<double> values(static_cast<size_t>(shape.numel()));
    std::normal_distribution<double> distribution;
    for (double& value : values) {
      value = center + scale * distribution(engine_);
      value = role == Role::compute ? round_to_bf16(value) : static_cast<float>(value);
    }
    return given(name, shape, values, role);
  }
  Operand normal_if(bool present, const std::string& name, Shape shape, Role role = Role::compute,
                    double scale = 1.0, double center = 0.0) {
    return present ? normal(name, shape, role, scale, center) : Operand();
  }
  Operand given(const std::string& name, Shape shape, const std::vector<double>& values,
                Role role = Role::compute) {
    return keep({gpu(), shape, role == Role::compute ? DType::bf16 : DType::f32, values, name});
  }
  Operand integers(const std::string& name, const std::vector<int32_t>& values) {
    return keep({gpu(),
                 {static_cast<int64_t>(values.size())},
                 DType::i32,
                 std::vector<double>(values.begin(), values.end()),
                 name});
  }
  Operand random_integers(const std::string& name, int64_t count, int64_t low, int64_t high) {
    std::vector<int32_t> values(static_cast<size_t>(count));
    std::uniform_int_distribution<int32_t> distribution(static_cast<int32_t>(low),
                                                        static_cast<int32_t>(high - 1));
    for (int32_t& value : values) value = distribution(engine_);
    return integers(name, values);
  }
  /// NaN in both backends.
  Operand output(const std::string& name, Shape shape, Role role = Role::compute) {
    return given(name, shape, std::vector<double>(static_cast<size_t>(shape.numel()), std::nan("")),
                 role);
  }
  Operand output_if(bool present, const std::string& name, Shape shape, Role role = Role::compute) {
    return present ? output(name, shape, role) : Operand();
  }

  /// Runs `operation` on the CPU and twice on the GPU, with workspaces of exactly
  /// `workspace_bytes(ops)` bytes. Without `same_bits` the two may differ: what the operand holds
  /// is the second's.
  void run(
      const std::function<void(Ops&, const Pick&)>& operation,
      const std::function<size_t(const Ops&)>& workspace_bytes =
          [](const Ops&) { return size_t{0}; },
      bool same_bits = true) {
    std::vector<double> cpu_workspace((workspace_bytes(cpu_) + 7) / 8);
    cpu_.set_workspace(
        {cpu_workspace.data(), DType::f64, {static_cast<int64_t>(cpu_workspace.size())}});
    operation(cpu_, [](const Operand& operand) { return operand.on_cpu(); });
    cpu_.set_workspace({});
    std::vector<std::vector<unsigned char>> before;
    for (const Operand& operand : operands_) before.push_back(operand.gpu_bytes());
    const auto first = run_on_gpu(operation, workspace_bytes(gpu()), 0xff);
    for (size_t i = 0; i < operands_.size(); ++i) operands_[i].set_gpu_bytes(before[i]);
    const auto second = run_on_gpu(operation, workspace_bytes(gpu()), 0x7b);
    for (size_t i = 0; same_bits && i < operands_.size(); ++i)
      EXPECT_TRUE(first[i] == second[i]) << operands_[i].name() << " differs from run to run";
  }

  void expect_near(const Operand& operand, const Tolerance& tolerance) {
    expect_near(operand, operand.values(), tolerance);
  }
  /// Against other values than the CPU operation's.
  void expect_near(const Operand& operand, const std::vector<double>& expected,
                   const Tolerance& tolerance) {
    expect_near(operand, expected, tolerance, std::vector<double>(expected.size(), 0.0));
  }
  /// With more allowed than the tolerance: `allowed_more`, element by element.
  void expect_near(const Operand& operand, const std::vector<double>& expected,
                   const Tolerance& tolerance, const std::vector<double>& allowed_more) {
    const std::vector<double> actual = operand.gpu_values();
    double worst = 0.0;
    size_t failures = 0;
    for (size_t i = 0; i < actual.size(); ++i) {
      const double allowed =
          tolerance.relative * std::abs(expected[i]) + tolerance.absolute + allowed_more[i];
      const double error = std::abs(actual[i] - expected[i]);
      if (error > 0.0) worst = std::max(worst, error / std::max(allowed, 1e-300));
      if (!(error <= allowed) && ++failures <= 3) {
        ADD_FAILURE() << operand.name() << "[" << i << "] is " << actual[i] << ", not "
                      << expected[i] << ": off by " << error << ", allowed " << allowed;
      }
    }
    EXPECT_EQ(failures, 0u) << operand.name() << ": " << failures << " of " << actual.size();
    // Shown with --gtest_output: how much of the tolerance is used.
    RecordProperty(operand.name(), std::to_string(worst));
  }

 private:
  Operand keep(Operand operand) {
    operands_.push_back(operand);
    return operand;
  }

  std::vector<std::vector<unsigned char>> run_on_gpu(
      const std::function<void(Ops&, const Pick&)>& operation, size_t workspace_bytes,
      unsigned char poison) {
    constexpr size_t guard_bytes = 1024;
    std::vector<unsigned char> bytes(workspace_bytes + guard_bytes, poison);
    const DeviceMemory memory = gpu().allocate(bytes.size());
    const Tensor raw{memory.get(), DType::bf16, {static_cast<int64_t>(bytes.size() / 2)}};
    gpu().upload(raw, bytes.data());
    gpu().set_workspace(
        {memory.get(), DType::f32, {static_cast<int64_t>(workspace_bytes / sizeof(float))}});
    operation(gpu(), [](const Operand& operand) { return operand.on_gpu(); });
    gpu().set_workspace({});
    gpu().download(bytes.data(), raw);
    EXPECT_TRUE(std::all_of(bytes.begin() + static_cast<std::ptrdiff_t>(workspace_bytes),
                            bytes.end(), [=](unsigned char byte) { return byte == poison; }))
        << "written behind the end of the workspace";
    std::vector<std::vector<unsigned char>> contents;
    for (const Operand& operand : operands_) {
      EXPECT_TRUE(operand.guards_are_intact()) << "written beside " << operand.name();
      contents.push_back(operand.gpu_bytes());
    }
    return contents;
  }

  std::unique_ptr<CudaOps> gpu_;
  CpuOps<double> cpu_;
  std::vector<Operand> operands_;
  std::mt19937_64 engine_{20240917};
};

}  // namespace sigtrain
