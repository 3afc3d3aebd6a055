// What the tests of operations share: owning buffers that start poisoned, random values, gradient
// checks by central differences, and checks that results do not depend on the number of threads.
#pragma once

#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <vector>

#include "core/tensor.h"
#include "ops/cpu/cpu_ops.h"

namespace sigtrain {

/// Owns the elements of a tensor; default-constructed it is absent. Elements start as NaN
/// (integers: as the lowest value), so that an output left unwritten fails every comparison.
template <typename T>
struct Buffer {
  Buffer() = default;
  explicit Buffer(Shape tensor_shape)
      : present(true), shape(tensor_shape), values(tensor_shape.numel(), poison()) {}

  static constexpr T poison() {
    return std::numeric_limits<T>::has_quiet_NaN ? std::numeric_limits<T>::quiet_NaN()
                                                 : std::numeric_limits<T>::lowest();
  }
  operator Tensor() {
    if (!present) return {};
    return {values.data(), dtype_of<T>(), shape};
  }
  T& operator[](int64_t i) { return values[i]; }
  const T& operator[](int64_t i) const { return values[i]; }
  int64_t size() const { return static_cast<int64_t>(values.size()); }

  bool present = false;
  Shape shape;
  std::vector<T> values;
};

/// Values drawn in float, so that the float and the double run of a test have the same inputs.
class RandomValues {
 public:
  explicit RandomValues(uint64_t seed) : engine_(seed) {}

  /// Standard normal times `scale`, plus `center`.
  template <typename Real>
  Buffer<Real> normal(Shape shape, double scale = 1.0, double center = 0.0) {
    Buffer<Real> buffer(shape);
    for (Real& value : buffer.values)
      value = static_cast<float>(center + scale * normal_distribution_(engine_));
    return buffer;
  }
  template <typename Real>
  Buffer<Real> normal_if(bool present, Shape shape, double scale = 1.0, double center = 0.0) {
    return present ? normal<Real>(shape, scale, center) : Buffer<Real>();
  }
  /// Uniform in [low, high).
  int64_t integer(int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high - 1)(engine_);
  }
  Buffer<int32_t> integers(Shape shape, int64_t low, int64_t high) {
    Buffer<int32_t> buffer(shape);
    for (int32_t& value : buffer.values) value = static_cast<int32_t>(integer(low, high));
    return buffer;
  }

 private:
  std::mt19937_64 engine_;
  std::normal_distribution<double> normal_distribution_;
};

/// A workspace of exactly `bytes`, given to `ops` for the lifetime of this object, which reports
/// writes behind its end.
class ExactWorkspace {
 public:
  ExactWorkspace(Ops& ops, size_t bytes)
      : ops_(ops), bytes_(bytes), memory_(bytes / sizeof(float) + guard_elements, guard) {
    EXPECT_EQ(bytes % sizeof(float), 0u);
    ops_.set_workspace({memory_.data(), DType::f32, {static_cast<int64_t>(bytes / sizeof(float))}});
  }
  ~ExactWorkspace() {
    ops_.set_workspace({});
    for (size_t i = bytes_ / sizeof(float); i < memory_.size(); ++i)
      EXPECT_EQ(memory_[i], guard) << "written behind the end of the workspace";
  }
  ExactWorkspace(const ExactWorkspace&) = delete;
  ExactWorkspace& operator=(const ExactWorkspace&) = delete;

 private:
  static constexpr float guard = 12345.0F;
  static constexpr size_t guard_elements = 64;

  Ops& ops_;
  size_t bytes_;
  std::vector<float> memory_;
};

template <typename Real>
double dot(const Buffer<Real>& a, const Buffer<Real>& b) {
  double sum = 0.0;
  for (int64_t i = 0; i < a.size(); ++i) sum += static_cast<double>(a[i]) * b[i];
  return sum;
}

template <typename Real>
double largest_magnitude(const Buffer<Real>& x) {
  double largest = 0.0;
  for (const Real value : x.values) largest = std::max<double>(largest, std::abs(value));
  return largest;
}

/// max |a - b|; infinity where either is NaN or their sizes differ.
template <typename A, typename B>
double largest_difference(const Buffer<A>& a, const Buffer<B>& b) {
  if (a.size() != b.size()) return std::numeric_limits<double>::infinity();
  double largest = 0.0;
  for (int64_t i = 0; i < a.size(); ++i) {
    const double difference = std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    if (std::isnan(difference)) return std::numeric_limits<double>::infinity();
    largest = std::max(largest, difference);
  }
  return largest;
}

/// max |a - b| over max |b|; 0 where both are all zeros.
template <typename A, typename B>
double relative_error(const Buffer<A>& a, const Buffer<B>& b) {
  const double difference = largest_difference(a, b);
  return difference == 0.0 ? 0.0 : difference / largest_magnitude(b);
}

/// What was added to `before` to give `after`.
template <typename Real>
Buffer<Real> added(const Buffer<Real>& after, const Buffer<Real>& before) {
  Buffer<Real> result(after.shape);
  for (int64_t i = 0; i < after.size(); ++i) result[i] = after[i] - before[i];
  return result;
}

/// The gradient of loss() with respect to `x` by central differences. Sums of a few hundred numbers
/// near 1 have it to about 1e-10.
inline Buffer<double> numerical_gradient(Buffer<double>& x, const std::function<double()>& loss) {
  constexpr double step = 1e-5;
  Buffer<double> gradient(x.shape);
  for (int64_t i = 0; i < x.size(); ++i) {
    const double value = x[i];
    x[i] = value + step;
    const double above = loss();
    x[i] = value - step;
    const double below = loss();
    x[i] = value;
    gradient[i] = (above - below) / (2 * step);
  }
  return gradient;
}

constexpr double gradient_tolerance = 1e-6;

/// Unit roundoff of float, the unit of the tolerances of float against double.
constexpr double float_roundoff = 0x1p-24;

template <typename T>
bool same_bits(const Buffer<T>& a, const Buffer<T>& b) {
  return a.size() == b.size() && (a.size() == 0 || std::memcmp(a.values.data(), b.values.data(),
                                                               a.size() * sizeof(T)) == 0);
}

/// Runs `compute`, which returns its outputs, with 1, 2 and 3 threads and expects the same bits.
template <typename Real>
void expect_same_bits_for_any_thread_count(
    const std::function<std::vector<Buffer<Real>>()>& compute) {
  const int threads_before = omp_get_max_threads();
  omp_set_dynamic(0);
  std::vector<Buffer<Real>> reference;
  for (const int threads : {1, 2, 3}) {
    omp_set_num_threads(threads);
    const std::vector<Buffer<Real>> outputs = compute();
    if (threads == 1) reference = outputs;
    for (size_t i = 0; i < outputs.size(); ++i)
      EXPECT_TRUE(same_bits(outputs[i], reference[i])) << "output " << i << ", threads " << threads;
  }
  omp_set_num_threads(threads_before);
}

}  // namespace sigtrain
