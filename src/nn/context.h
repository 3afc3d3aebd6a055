// What every layer's forward and backward is handed: the backend, the memory and the parameters of
// this run.
#pragma once

#include "core/arena.h"
#include "nn/diagnostics.h"
#include "nn/parameter_exchange.h"
#include "nn/parameters.h"
#include "ops/ops.h"

namespace sigtrain {

struct Context {
  Ops& ops;
  Arena& arena;
  const ParameterStore& parameters;
  int64_t batch = 0;  // sequences of this micro-batch
  int64_t seq_len = 0;
  uint64_t seed = 0;      // of dropout and stochastic depth
  bool training = false;  // dropout and stochastic depth act, and what backward needs is kept
  Diagnostics* diagnostics = nullptr;  // null: none are taken
  Recompute recompute = Recompute::none;
  ParameterExchange* exchange = nullptr;  // null: with no other rank

  int64_t rows() const { return batch * seq_len; }
  Tensor weight(ParameterId id) const {
    if (id < 0) return {};
    if (exchange) exchange->before_use(parameters.table()[id]);
    return parameters.weight(id);
  }
  Tensor gradient(ParameterId id) const { return id < 0 ? Tensor{} : parameters.gradient(id); }

  /// See ParameterExchange.
  void gradients_complete(int group) const {
    if (exchange) exchange->gradients_complete(group);
  }

  /// [rows, columns] in compute_dtype.
  Tensor activation(int64_t columns, Purpose purpose = Purpose::activation) const {
    return arena.allocate({rows(), columns}, ops.compute_dtype(), purpose);
  }
  Tensor statistic(Shape shape) const {
    return arena.allocate(shape, ops.accumulate_dtype(), Purpose::statistic);
  }
};

/// The id of a parameter that a layer does not have.
constexpr ParameterId kNoParameter = -1;

}  // namespace sigtrain
