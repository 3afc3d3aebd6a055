#include "nn/parameters.h"

#include <algorithm>
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

int ParameterTable::begin_group(std::string name) {
  groups_.push_back(std::move(name));
  return static_cast<int>(groups_.size()) - 1;
}

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
  sharding_ = buffers.sharding;
  if (sharding_.is_sharded && !buffers.gradients)
    throw Error("sharded parameters need gradients, whose memory takes them in whole");
  // Rounded so that every buffer, and every rank's part of it, starts on an arena boundary.
  const int64_t unit = static_cast<int64_t>(Arena::alignment) * sharding_.ranks;
  const int64_t flat = (table_->flat_size() + unit - 1) / unit * unit;
  const int64_t step = sharding_.bucket_elements > 0
                           ? std::max(sharding_.bucket_elements / unit, int64_t{1}) * unit
                           : flat;
  buckets_.clear(), owned_.clear();
  // Backward comes from the end: what does not fill a bucket is at the start.
  for (int64_t end = flat; end > 0; end -= step)
    buckets_.push_back({std::max(end - step, int64_t{0}), end});
  std::reverse(buckets_.begin(), buckets_.end());
  int64_t own_elements = 0;
  if (sharding_.is_sharded) {
    for (const auto& [begin, end] : buckets_) {
      const int64_t part = (end - begin) / sharding_.ranks;
      owned_.push_back({begin + sharding_.rank * part, begin + (sharding_.rank + 1) * part});
      own_elements += part;
    }
  } else {
    owned_.push_back({0, flat});
    own_elements = flat;
  }

  separate_master_ = ops.compute_dtype() != ops.accumulate_dtype();
  const Tensor whole{nullptr, ops.accumulate_dtype(), {flat}};
  const Tensor shard{nullptr, ops.accumulate_dtype(), {own_elements}};
  master_ = separate_master_ ? shard : whole;
  compute_ = {nullptr, ops.compute_dtype(), {flat}};
  if (buffers.gradients) gradients_ = whole;
  if (buffers.moments) first_moment_ = second_moment_ = shard;
  if (buffers.average) average_ = shard;
  bytes_ = 0;
  for (const Tensor* flat : {&master_, &gradients_, &first_moment_, &second_moment_, &average_})
    bytes_ += flat->bytes();
  if (separate_master_) bytes_ += compute_.bytes();
}

Tensor ParameterStore::part(const Tensor& buffer, FlatRange range) const {
  if (!buffer) return {};
  int64_t shift = 0;  // from the place in the flat order to that in the buffer
  if (is_shard(buffer)) {
    int64_t before = 0;
    for (const auto& [begin, end] : owned_) {
      if (range.begin >= begin && range.end <= end) {
        shift = before - begin;
        break;
      }
      before += end - begin;
    }
  }
  return buffer.slice(range.begin + shift, range.end + shift);
}

Tensor ParameterStore::view(const Tensor& flat, ParameterId id) const {
  const Parameter& parameter = (*table_)[id];
  if (!flat) return {};
  auto* start = flat.data ? static_cast<std::byte*>(flat.data) +
                                static_cast<size_t>(parameter.offset) * size_of(flat.dtype)
                          : nullptr;
  return {start, flat.dtype, parameter.shape};
}

void ParameterStore::use(Ops& ops, const Tensor& whole) {
  if (separate_master_) {
    ops.copy(whole, compute_);
  } else {
    compute_ = whole;
  }
}

void ParameterStore::keep_own_parts(Ops& ops, const Tensor& whole, const Tensor& shard) const {
  if (whole.data == shard.data) return;
  for (const FlatRange& range : owned_)
    ops.copy(whole.slice(range.begin, range.end), part(shard, range));
}

void ParameterStore::initialize(Ops& ops, uint64_t seed) {
  for (const Tensor* flat : {&master_, &gradients_, &first_moment_, &second_moment_}) {
    if (*flat) ops.fill(*flat, 0.0);
  }
  const Tensor whole = is_shard(master_) ? gradients_ : master_;
  for (ParameterId id = 0; id < static_cast<ParameterId>(table_->parameters().size()); ++id) {
    const Parameter& parameter = (*table_)[id];
    const RandomStream stream{seed, static_cast<uint64_t>(id)};
    const Tensor weight = view(whole, id);
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
  if (separate_master_) ops.copy(whole, compute_);
  keep_own_parts(ops, whole, master_);
  if (average_) keep_own_parts(ops, whole, average_);
  if (whole.data == gradients_.data) ops.fill(gradients_, 0.0);
}

}  // namespace sigtrain
