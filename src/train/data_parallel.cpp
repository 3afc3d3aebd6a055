#include "train/data_parallel.h"

#include <algorithm>

namespace sigtrain {

Sharding sharding_of(const Config& config, int rank, int ranks, DType gradients) {
  // Not 0, which stands for one bucket.
  const int64_t elements =
      std::max(config.train.bucket_bytes / static_cast<int64_t>(size_of(gradients)), int64_t{1});
  return {rank, ranks, elements, config.optimizer.shard};
}

DataParallel::DataParallel(Communicator& communicator, ParameterStore& parameters)
    : communicator_(communicator), parameters_(parameters) {}

DataParallel::~DataParallel() {
  try {
    communicator_.wait(last_);
    finish_weights();
  } catch (...) {  // the error that ends the run is told already
  }
}

void DataParallel::begin_exchange() {
  is_exchanging_ = true;
  waiting_buckets_ = parameters_.buckets().size();
}

void DataParallel::exchange_from(int64_t begin) {
  const std::vector<FlatRange>& buckets = parameters_.buckets();
  while (waiting_buckets_ > 0 && buckets[waiting_buckets_ - 1].begin >= begin) {
    const FlatRange& bucket = buckets[--waiting_buckets_];
    const Tensor gradients = parameters_.gradients().slice(bucket.begin, bucket.end);
    last_ = parameters_.sharding().is_sharded ? communicator_.reduce_scatter(gradients)
                                              : communicator_.all_reduce(gradients);
  }
}

void DataParallel::gradients_complete(int group) {
  if (is_exchanging_) exchange_from(parameters_.table().group_range(group).first);
}

void DataParallel::finish_exchange() {
  exchange_from(0);
  is_exchanging_ = false;
  communicator_.wait(last_);
}

void DataParallel::gather_weights() {
  if (!parameters_.sharding().is_sharded) return;
  gathering_.clear();
  gathered_ = 0;
  for (const FlatRange& bucket : parameters_.buckets())
    gathering_.push_back(
        communicator_.all_gather(parameters_.compute().slice(bucket.begin, bucket.end)));
}

void DataParallel::before_use(const Parameter& parameter) {
  const int64_t end = parameter.offset + parameter.shape.numel();
  const std::vector<FlatRange>& buckets = parameters_.buckets();
  size_t needed = gathered_;
  while (needed < gathering_.size() && buckets[needed].begin < end) ++needed;
  if (needed == gathered_) return;
  communicator_.wait(gathering_[needed - 1]);
  gathered_ = needed;
}

void DataParallel::finish_weights() {
  if (gathered_ < gathering_.size()) communicator_.wait(gathering_.back());
  gathering_.clear();
  gathered_ = 0;
}

Tensor DataParallel::whole_memory(const Tensor& buffer) const {
  return parameters_.is_shard(buffer) ? parameters_.gradients() : buffer;
}

Tensor DataParallel::whole(Ops& ops, const Tensor& buffer) {
  finish_weights();
  const Tensor whole = whole_memory(buffer);
  if (!parameters_.is_shard(buffer)) return whole;
  for (const FlatRange& own : parameters_.owned())
    ops.copy(parameters_.part(buffer, own), whole.slice(own.begin, own.end));
  Ticket last = 0;
  for (const FlatRange& bucket : parameters_.buckets())
    last = communicator_.all_gather(whole.slice(bucket.begin, bucket.end));
  communicator_.wait(last);
  return whole;
}

void DataParallel::spread(Ops& ops, const Tensor& buffer) {
  const Tensor whole = whole_memory(buffer);
  Ticket last = 0;
  for (const FlatRange& bucket : parameters_.buckets())
    last = communicator_.broadcast(whole.slice(bucket.begin, bucket.end));
  communicator_.wait(last);
  parameters_.keep_own_parts(ops, whole, buffer);
}

}  // namespace sigtrain
