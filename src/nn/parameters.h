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
  /// group.
  void begin_group(std::string name);
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

/// Which flat buffers a run needs besides the weights themselves.
struct ParameterBuffers {
  bool gradients = false;
  bool moments = false;
  bool average = false;
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

  // Each flat buffer is [flat_size]; absent when not asked for.
  const Tensor& master() const { return master_; }
  const Tensor& compute() const {
    return compute_;
  }  // the same memory as master() where the dtypes agree
  const Tensor& gradients() const { return gradients_; }
  const Tensor& first_moment() const { return first_moment_; }
  const Tensor& second_moment() const { return second_moment_; }
  const Tensor& average() const { return average_; }
  bool has_separate_master() const { return separate_master_; }
  size_t bytes() const { return bytes_; }

  /// Makes layers read the averaged weights, for evaluation; until use_weights(), nothing may
  /// train.
  void use_average(Ops& ops);
  void use_weights(Ops& ops);

  /// Draws the initial weights from Philox (each parameter a stream of its own) and clears moments
  /// and gradients.
  void initialize(Ops& ops, uint64_t seed);

 private:
  explicit ParameterStore(const ParameterTable& table) : table_(&table) {}
  void lay_out(const Ops& ops, ParameterBuffers buffers);

  const ParameterTable* table_;
  DeviceMemory memory_;
  size_t bytes_ = 0;
  bool separate_master_ = false;
  Tensor master_, compute_, gradients_, first_moment_, second_moment_, average_;
};

}  // namespace sigtrain
