#include "nn/parameters.h"

#include <cmath>
#include <numbers>

#include "core/arena.h"

namespace sigtrain {
namespace {

constexpr int64_t kParameterAlignment =
    64;  // elements: 16-byte vector accesses stay aligned in every dtype

/// Two standard normal deviates from two uniform words (Box and Muller 1958).
std::pair<double, double> box_muller(uint32_t a, uint32_t b) {
  const double radius = std::sqrt(-2.0 * std::log((static_cast<double>(a) + 1.0) * 0x1p-32));
  const double angle = 2.0 * std::numbers::pi * (static_cast<double>(b) * 0x1p-32);
  return {radius * std::cos(angle), radius * std::sin(angle)};
}

template <typename Real>
void draw(const Initializer& init, const RandomStream& stream, Real* values, int64_t count) {
#pragma omp parallel for schedule(static)
  for (int64_t block = 0; block < (count + 3) / 4; ++block) {
    const Philox random = stream.block(static_cast<uint64_t>(block), 0);
    const auto [z0, z1] = box_muller(random.words[0], random.words[1]);
    const auto [z2, z3] = box_muller(random.words[2], random.words[3]);
    const double z[4] = {z0, z1, z2, z3};
    for (int64_t i = 0; i < 4 && block * 4 + i < count; ++i) {
      values[block * 4 + i] = static_cast<Real>(init.constant + init.stddev * z[i]);
    }
  }
}

}  // namespace

void ParameterTable::begin_group(std::string name) { groups_.push_back(std::move(name)); }

ParameterId ParameterTable::add(std::string name, Shape shape, ParameterKind kind,
                                Initializer init) {
  if (groups_.empty()) throw Error("parameter {} was added before any group", name);
  for (const Parameter& other : parameters_) {
    if (other.name == name) throw Error("two parameters are called {}", name);
  }
  const int group = static_cast<int>(groups_.size()) - 1;
  parameters_.push_back({std::move(name), shape, kind, init, frozen_, group, flat_size_});
  count_ += shape.numel();
  flat_size_ +=
      (shape.numel() + kParameterAlignment - 1) / kParameterAlignment * kParameterAlignment;
  return static_cast<ParameterId>(parameters_.size()) - 1;
}

std::pair<int64_t, int64_t> ParameterTable::group_range(int group) const {
  int64_t begin = flat_size_, end = flat_size_;
  for (const Parameter& parameter : parameters_) {
    if (parameter.group == group && parameter.offset < begin) begin = parameter.offset;
    if (parameter.group > group && parameter.offset < end) end = parameter.offset;
  }
  return {std::min(begin, end), end};
}

ParameterStore::ParameterStore(const ParameterTable& table, Ops& ops, ParameterBuffers buffers)
    : table_(&table) {
  lay_out(ops, buffers);
  memory_ = ops.allocate(bytes_);
  auto* next = static_cast<std::byte*>(memory_.get());
  for (Tensor* flat :
       {&master_, &compute_, &gradients_, &first_moment_, &second_moment_, &average_}) {
    if (!*flat || (flat == &compute_ && !separate_master_)) continue;
    flat->data = next;
    next += flat->bytes();
  }
  if (!separate_master_) compute_ = master_;
}

ParameterStore ParameterStore::planning(const ParameterTable& table, const Ops& ops,
                                        ParameterBuffers buffers) {
  ParameterStore store(table);
  store.lay_out(ops, buffers);
  return store;
}

void ParameterStore::lay_out(const Ops& ops, ParameterBuffers buffers) {
  // Rounded so that every buffer starts on an arena boundary.
  constexpr int64_t unit = Arena::alignment;
  const Shape shape{(table_->flat_size() + unit - 1) / unit * unit};
  separate_master_ = ops.compute_dtype() != ops.accumulate_dtype();
  master_ = {nullptr, ops.accumulate_dtype(), shape};
  compute_ = {nullptr, ops.compute_dtype(), shape};
  if (buffers.gradients) gradients_ = master_;
  if (buffers.moments) first_moment_ = second_moment_ = master_;
  if (buffers.average) average_ = master_;
  bytes_ = 0;
  for (const Tensor* flat : {&master_, &gradients_, &first_moment_, &second_moment_, &average_})
    bytes_ += flat->bytes();
  if (separate_master_) bytes_ += compute_.bytes();
}

Tensor ParameterStore::view(const Tensor& flat, ParameterId id) const {
  const Parameter& parameter = (*table_)[id];
  if (!flat) return {};
  auto* start = flat.data ? static_cast<std::byte*>(flat.data) +
                                static_cast<size_t>(parameter.offset) * size_of(flat.dtype)
                          : nullptr;
  return {start, flat.dtype, parameter.shape};
}

void ParameterStore::use_average(Ops& ops) {
  if (separate_master_) {
    ops.copy(average_, compute_);
  } else {
    compute_ = average_;
  }
}

void ParameterStore::use_weights(Ops& ops) {
  if (separate_master_) {
    ops.copy(master_, compute_);
  } else {
    compute_ = master_;
  }
}

void ParameterStore::initialize(Ops& ops, uint64_t seed) {
  for (const Tensor* flat : {&master_, &gradients_, &first_moment_, &second_moment_}) {
    if (*flat) ops.fill(*flat, 0.0);
  }
  for (ParameterId id = 0; id < static_cast<ParameterId>(table_->parameters().size()); ++id) {
    const Parameter& parameter = (*table_)[id];
    const RandomStream stream{seed, static_cast<uint64_t>(id)};
    const Tensor weight = view(master_, id);
    if (weight.dtype == DType::f64) {
      std::vector<double> values(static_cast<size_t>(weight.numel()));
      draw(parameter.init, stream, values.data(), weight.numel());
      ops.upload(weight, values.data());
    } else {
      std::vector<float> values(static_cast<size_t>(weight.numel()));
      draw(parameter.init, stream, values.data(), weight.numel());
      ops.upload(weight, values.data());
    }
  }
  if (separate_master_) ops.copy(master_, compute_);
  if (average_) ops.copy(master_, average_);
}

}  // namespace sigtrain
