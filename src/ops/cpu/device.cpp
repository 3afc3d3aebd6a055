// The CPU as a device: host memory, copies, conversions.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <limits>
#include <string>

#include "core/arena.h"
#include "core/bytes_text.h"
#include "ops/cpu/cpu_ops.h"
#include "ops/cpu/partition.h"

namespace sigtrain {
namespace {

// What the kernel thinks can be had without swapping; all there is where it does not say.
size_t available_bytes() {
  std::ifstream meminfo("/proc/meminfo");
  std::string key, unit;
  size_t kib = 0;
  while (meminfo >> key >> kib && std::getline(meminfo, unit))
    if (key == "MemAvailable:") return kib * 1024;
  return std::numeric_limits<size_t>::max();
}

template <typename T>
void fill_with(const Tensor& x, double value) {
  T* data = x.as<T>();
  const T element = static_cast<T>(value);
  for_elements(x.numel(),
               [=](int64_t begin, int64_t end) { std::fill(data + begin, data + end, element); });
}

template <typename From, typename To>
void convert(const Tensor& source, const Tensor& destination) {
  const From* from = source.as<From>();
  To* to = destination.as<To>();
  for_elements(source.numel(), [=](int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) to[i] = static_cast<To>(from[i]);
  });
}

}  // namespace

template <typename Real>
std::string_view CpuOps<Real>::name() const {
  return "cpu";
}

template <typename Real>
DType CpuOps<Real>::compute_dtype() const {
  return dtype_of<Real>();
}

template <typename Real>
DType CpuOps<Real>::accumulate_dtype() const {
  return dtype_of<Real>();
}

template <typename Real>
DeviceMemory CpuOps<Real>::allocate(size_t bytes) {
  // Linux grants more than there is and kills the program when it touches it: refuse here instead.
  const size_t available = available_bytes();
  void* memory = nullptr;
  if (bytes <= available && bytes <= std::numeric_limits<size_t>::max() - Arena::alignment) {
    const size_t units = std::max<size_t>(1, (bytes + Arena::alignment - 1) / Arena::alignment);
    memory = std::aligned_alloc(Arena::alignment, units * Arena::alignment);
  }
  if (!memory) {
    throw Error(
        "out of host memory: {} asked for, {} free; use a smaller micro-batch, sequence or model",
        bytes_text(bytes), bytes_text(available));
  }
  return DeviceMemory(memory, std::free);
}

template <typename Real>
void CpuOps<Real>::upload(const Tensor& destination, const void* host) {
  if (destination.bytes()) std::memcpy(destination.data, host, destination.bytes());
}

template <typename Real>
void CpuOps<Real>::download(void* host, const Tensor& source) {
  if (source.bytes()) std::memcpy(host, source.data, source.bytes());
}

template <typename Real>
void CpuOps<Real>::fill(const Tensor& x, double value) {
  switch (x.dtype) {
    case DType::f64:
      return fill_with<double>(x, value);
    case DType::f32:
      return fill_with<float>(x, value);
    case DType::i32:
      return fill_with<int32_t>(x, value);
    case DType::i64:
      return fill_with<int64_t>(x, value);
    case DType::u64:
      return fill_with<uint64_t>(x, value);
    case DType::u8:
      return fill_with<uint8_t>(x, value);
    default:
      throw Error("cannot fill a tensor of {} on the CPU", name_of(x.dtype));
  }
}

template <typename Real>
void CpuOps<Real>::copy(const Tensor& source, const Tensor& destination) {
  if (source.numel() != destination.numel()) {
    throw Error("cannot copy {} to {}: they differ in size", source.shape.to_string(),
                destination.shape.to_string());
  }
  if (source.dtype == destination.dtype) {
    if (source.bytes()) std::memmove(destination.data, source.data, source.bytes());
  } else if (source.dtype == DType::f32 && destination.dtype == DType::f64) {
    convert<float, double>(source, destination);
  } else if (source.dtype == DType::f64 && destination.dtype == DType::f32) {
    convert<double, float>(source, destination);
  } else {
    throw Error("cannot copy {} to {} on the CPU", name_of(source.dtype),
                name_of(destination.dtype));
  }
}

template <typename Real>
void CpuOps<Real>::add(const Tensor& x, const Tensor& y) {
  const Real* from = x.as<Real>();
  Real* to = y.as<Real>();
  for_elements(y.numel(), [=](int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) to[i] += from[i];
  });
}

template <typename Real>
void CpuOps<Real>::synchronize() {}

template <typename Real>
bool CpuOps<Real>::is_synchronous() const {
  return true;
}

template <typename Real>
void CpuOps<Real>::set_random_step(uint64_t step) {
  random_step_ = step;
}

template <typename Real>
void CpuOps<Real>::next_random_step() {
  ++random_step_;
}

#define SIGTRAIN_INSTANTIATE(Real)                                \
  template std::string_view CpuOps<Real>::name() const;           \
  template DType CpuOps<Real>::compute_dtype() const;             \
  template DType CpuOps<Real>::accumulate_dtype() const;          \
  template DeviceMemory CpuOps<Real>::allocate(size_t);           \
  template void CpuOps<Real>::upload(const Tensor&, const void*); \
  template void CpuOps<Real>::download(void*, const Tensor&);     \
  template void CpuOps<Real>::fill(const Tensor&, double);        \
  template void CpuOps<Real>::copy(const Tensor&, const Tensor&); \
  template void CpuOps<Real>::add(const Tensor&, const Tensor&);  \
  template void CpuOps<Real>::synchronize();                      \
  template bool CpuOps<Real>::is_synchronous() const;             \
  template void CpuOps<Real>::set_random_step(uint64_t);          \
  template void CpuOps<Real>::next_random_step();
SIGTRAIN_INSTANTIATE(float)
SIGTRAIN_INSTANTIATE(double)
#undef SIGTRAIN_INSTANTIATE

}  // namespace sigtrain
