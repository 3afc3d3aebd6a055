#include "core/arena.h"

namespace sigtrain {

std::string_view name_of(Purpose purpose) {
  switch (purpose) {
    case Purpose::activation:
      return "activations kept for backward";
    case Purpose::temporary:
      return "temporaries";
    case Purpose::gradient:
      return "activation gradients";
    case Purpose::statistic:
      return "statistics";
  }
  return "?";
}

Tensor Arena::allocate(Shape shape, DType dtype, Purpose purpose) {
  Tensor tensor{nullptr, dtype, shape};
  const size_t bytes = (tensor.bytes() + alignment - 1) / alignment * alignment;
  if (!planning_) {
    if (bytes > capacity_ - offset_) {
      throw Error("arena full: {} bytes for {} of {}, {} of {} bytes in use", bytes,
                  shape.to_string(), name_of(dtype), offset_, capacity_);
    }
    tensor.data = static_cast<std::byte*>(base_) + offset_;
  }
  offset_ += bytes;
  by_purpose_[static_cast<int>(purpose)] += bytes;
  if (offset_ > peak_) {
    peak_ = offset_;
    by_purpose_at_peak_ = by_purpose_;
  }
  return tensor;
}

void Arena::release(const Mark& mark) {
  offset_ = mark.offset;
  by_purpose_ = mark.by_purpose;
}

}  // namespace sigtrain
