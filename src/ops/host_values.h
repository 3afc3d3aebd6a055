// Reading and writing small device tensors from the host, as doubles whatever their floating dtype.
#pragma once

#include <vector>

#include "ops/ops.h"

namespace sigtrain {

/// The elements of an f32 or f64 tensor; waits for the device.
inline std::vector<double> host_values(Ops& ops, const Tensor& x) {
  std::vector<double> values(static_cast<size_t>(x.numel()));
  if (x.dtype == DType::f64) {
    ops.download(values.data(), x);
  } else if (x.dtype == DType::f32) {
    std::vector<float> narrow(values.size());
    ops.download(narrow.data(), x);
    values.assign(narrow.begin(), narrow.end());
  } else {
    throw Error("host_values reads f32 and f64 tensors, not {}", name_of(x.dtype));
  }
  return values;
}

/// Writes x.numel() values into an f32 or f64 tensor.
inline void set_host_values(Ops& ops, const Tensor& x, const std::vector<double>& values) {
  if (static_cast<int64_t>(values.size()) != x.numel())
    throw Error("{} values for a tensor of {}", values.size(), x.numel());
  if (x.dtype == DType::f64) {
    ops.upload(x, values.data());
  } else if (x.dtype == DType::f32) {
    const std::vector<float> narrow(values.begin(), values.end());
    ops.upload(x, narrow.data());
  } else {
    throw Error("set_host_values writes f32 and f64 tensors, not {}", name_of(x.dtype));
  }
}

}  // namespace sigtrain
