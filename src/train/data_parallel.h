// Data parallelism: every rank computes its part of the global batch; gradients are summed in
// buckets behind backward. With sharded state each rank updates its part of every bucket, and the
// updated weights are gathered behind the next forward (ZeRO stage 1, Rajbhandari et al. 2020).
#pragma once

#include <vector>

#include "config/schema.h"
#include "dist/communicator.h"
#include "nn/parameter_exchange.h"
#include "nn/parameters.h"

namespace sigtrain {

/// The sharding of a run of `ranks` ranks by its config, seen by rank `rank`.
Sharding sharding_of(const Config& config, int rank, int ranks, DType gradients);

class DataParallel final : public ParameterExchange {
 public:
  /// Both must outlive it.
  DataParallel(Communicator& communicator, ParameterStore& parameters);
  /// Waits for what is under way.
  ~DataParallel() override;

  Communicator& communicator() const { return communicator_; }
  ProcessGroup& group() const { return communicator_.group(); }
  ParameterStore& parameters() const { return parameters_; }

  /// From now on, gradients that are complete are exchanged: before the last micro-batch of a step.
  void begin_exchange();
  /// Exchanges the rest; behind it gradients are those of the global batch, this rank's parts of
  /// them where state is sharded.
  void finish_exchange();
  /// After the optimizer: every rank gets the others' parts of the weights that layers read.
  void gather_weights();
  /// All weights are there for whatever comes. Layers wait for theirs by themselves.
  void finish_weights();

  void before_use(const Parameter& parameter) override;
  void gradients_complete(int group) override;

  /// All of a flat buffer or shard, on all ranks. A shard is gathered into the gradients' memory,
  /// where it stays until the next call or step.
  Tensor whole(Ops& ops, const Tensor& buffer);
  /// Memory for all of a flat buffer or shard; fill it on rank 0, then call spread().
  Tensor whole_memory(const Tensor& buffer) const;
  /// Brings what rank 0 has in whole_memory(buffer) to all ranks' `buffer`.
  void spread(Ops& ops, const Tensor& buffer);

  /// For evaluation: layers read the averaged weights, or again the weights.
  void use_average(Ops& ops) { parameters_.use(ops, whole(ops, parameters_.average())); }
  void use_weights(Ops& ops) { parameters_.use(ops, whole(ops, parameters_.master())); }

 private:
  /// Starts the exchange of the buckets that lie at or behind `begin`.
  void exchange_from(int64_t begin);

  Communicator& communicator_;
  ParameterStore& parameters_;
  bool is_exchanging_ = false;
  size_t waiting_buckets_ = 0;     // the first so many are still to be exchanged in this step
  Ticket last_ = 0;                // of gradients
  std::vector<Ticket> gathering_;  // by bucket, of weights; empty: all are there
  size_t gathered_ = 0;            // the first so many have been waited for
};

}  // namespace sigtrain
