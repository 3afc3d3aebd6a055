// The one table of a model's parameters, in forward order, and the contiguous buffers that hold
// them. Optimizer, checkpoint and all-reduce walk this table.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/tensor.h"
#include "ops/ops.h"

namespace sigtrain {

/// What a parameter is decides its weight decay and its rate scale (see train/optimizer.h).
enum class ParameterKind : uint8_t { linear_weight, embedding, norm_weight, bias, layer_scale };

/// Initial values: `constant`, plus a normal deviate of standard deviation `stddev`.
struct Initializer {
  double constant = 0.0;
  double stddev = 0.0;
};

using ParameterId = int;

struct Parameter {
  std::string name;  // as a PyTorch module would call it: layers.0.attention.qkv.weight
  Shape shape;
  ParameterKind kind = ParameterKind::linear_weight;
  Initializer init;
  bool frozen = false;  // never updated: it has no gradient and does not decay
  int group = 0;        // index into ParameterTable::groups()
  int64_t offset = 0;   // elements from the start of the flat buffers
};

class ParameterTable {
 public:
  /// Parameters added from now on belong to this group (a layer); gradient norms are reported by
  /// group. Returns its index.
  int begin_group(std::string name);
  /// Parameters added from now on are frozen, or not.
  void set_frozen(bool frozen) { frozen_ = frozen; }
  ParameterId add(std::string name, Shape shape, ParameterKind kind, Initializer init);

  const std::vector<Parameter>& parameters() const { return parameters_; }
  const Parameter& operator[](ParameterId id) const { return parameters_[static_cast<size_t>(id)]; }
  const std::vector<std::string>& groups() const { return groups_; }
  /// Elements [begin, end) of the flat buffers that a group covers, padding included.
  std::pair<int64_t, int64_t> group_range(int group) const;
  /// Number of weights.
  int64_t count() const { return count_; }
  /// Length of the flat buffers: every parameter starts on a multiple of 64 elements; the padding
  /// stays zero.
  int64_t flat_size() const { return flat_size_; }

 private:
  std::vector<Parameter> parameters_;
  std::vector<std::string> groups_;
  bool frozen_ = false;
  int64_t count_ = 0;
  int64_t flat_size_ = 0;
};

/// Elements [begin, end) of the flat buffers.
struct FlatRange {
  int64_t begin = 0, end = 0;
  bool operator==(const FlatRange&) const = default;
};

/// How ranks share the flat buffers: these are cut into buckets, and each bucket into one equal
/// part a rank.
struct Sharding {
  int64_t rank = 0, ranks = 1;
  int64_t bucket_elements = 0;  // 0: one bucket
  /// Master weights, moments and averages are kept by the rank of each part alone (ZeRO stage 1,
  /// Rajbhandari et al. 2020); they need gradients beside them, whose memory takes them in whole.
  bool is_sharded = false;
};

/// Which flat buffers a run needs besides the weights themselves.
struct ParameterBuffers {
  bool gradients = false;
  bool moments = false;
  bool average = false;
  Sharding sharding{};
};

/// Flat buffers over a table, in a backend's memory, which the store owns. Weights are held in
/// accumulate_dtype (the master copy) and, where that differs, also in compute_dtype for the layers
/// to read.
class ParameterStore {
 public:
  ParameterStore(const ParameterTable& table, Ops& ops, ParameterBuffers buffers);
  /// No memory: tensors are present with null data, for a planning run.
  static ParameterStore planning(const ParameterTable& table, const Ops& ops,
                                 ParameterBuffers buffers);

  const ParameterTable& table() const { return *table_; }
  Tensor weight(ParameterId id) const { return view(compute_, id); }
  Tensor gradient(ParameterId id) const { return view(gradients_, id); }
  /// One parameter's part of any of the flat buffers below.
  Tensor view(const Tensor& flat, ParameterId id) const;

  // Each flat buffer is [flat_size, rounded up]; absent when not asked for. Where state is sharded,
  // moments and average are a shard, [elements of owned()], and so is master unless the layers read
  // it.
  const Tensor& master() const { return master_; }
  const Tensor& compute() const {
    return compute_;
  }  // the same memory as master() where the dtypes agree
  const Tensor& gradients() const { return gradients_; }
  const Tensor& first_moment() const { return first_moment_; }
  const Tensor& second_moment() const { return second_moment_; }
  const Tensor& average() const { return average_; }
  bool has_separate_master() const { return separate_master_; }

  const Sharding& sharding() const { return sharding_; }
  /// What is exchanged at a time: equal ranges, but for the first, that cover the flat buffers.
  const std::vector<FlatRange>& buckets() const { return buckets_; }
  /// What this rank updates: all, or its parts of the buckets.
  const std::vector<FlatRange>& owned() const { return owned_; }
  /// Whether `buffer` is a shard and no whole flat buffer.
  bool is_shard(const Tensor& buffer) const { return buffer.numel() != compute_.numel(); }
  /// Elements `range` of the flat order, within one of owned(), in a flat buffer or a shard.
  Tensor part(const Tensor& buffer, FlatRange range) const;
  size_t bytes() const { return bytes_; }

  /// Makes layers read `whole`, a whole flat buffer of accumulate_dtype, for evaluation; until they
  /// are given the weights back, nothing may train.
  void use(Ops& ops, const Tensor& whole);
  void use_average(Ops& ops) { use(ops, average_); }
  void use_weights(Ops& ops) { use(ops, master_); }

  /// Draws the initial weights from Philox (each parameter a stream of its own) and clears moments
  /// and gradients.
  void initialize(Ops& ops, uint64_t seed);
  /// Copies this rank's parts of `whole` to `shard`; nothing where they are the same buffer.
  void keep_own_parts(Ops& ops, const Tensor& whole, const Tensor& shard) const;

 private:
  explicit ParameterStore(const ParameterTable& table) : table_(&table) {}
  void lay_out(const Ops& ops, ParameterBuffers buffers);

  const ParameterTable* table_;
  DeviceMemory memory_;
  size_t bytes_ = 0;
  bool separate_master_ = false;
  Sharding sharding_;
  std::vector<FlatRange> buckets_, owned_;
  Tensor master_, compute_, gradients_, first_moment_, second_moment_, average_;
};

}  // namespace sigtrain
