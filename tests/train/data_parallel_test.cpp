// When buckets are exchanged and waited for.
#include "train/data_parallel.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ops/cpu/cpu_ops.h"

namespace sigtrain {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

/// Writes down what it is asked for, with the places in the flat buffer.
class Recorder final : public Communicator {
 public:
  explicit Recorder(ProcessGroup& group) : Communicator(group) {}
  Ticket all_reduce(const Tensor& x) override { return note("all_reduce", x); }
  Ticket reduce_scatter(const Tensor& x) override { return note("reduce_scatter", x); }
  Ticket all_gather(const Tensor& x) override { return note("all_gather", x); }
  Ticket broadcast(const Tensor& x) override { return note("broadcast", x); }
  void wait(Ticket ticket) override { calls_.push_back(fmt::format("wait {}", ticket)); }
  void measure() override {}
  ExchangeTimes measured() override { return {}; }

  void set_base(const Tensor& base) { base_ = base.as<float>(); }
  /// The calls since the last time.
  std::vector<std::string> calls() { return std::exchange(calls_, {}); }

 private:
  Ticket note(const char* what, const Tensor& x) {
    const int64_t begin = x.as<float>() - base_;
    calls_.push_back(fmt::format("{} {}-{}", what, begin, begin + x.numel()));
    return ++last_;
  }

  const float* base_ = nullptr;
  Ticket last_ = 0;
  std::vector<std::string> calls_;
};

// Three groups of 512 weights; buckets of 512 elements, over two ranks.
class DataParallelTest : public testing::Test {
 protected:
  DataParallelTest() {
    for (const char* name : {"first", "second", "third"}) {
      table_.begin_group(name);
      table_.add(name, {512}, ParameterKind::linear_weight, {});
    }
  }
  void make(bool is_sharded) {
    store_.emplace(table_, ops_, ParameterBuffers{true, true, false, {0, 2, 512, is_sharded}});
    store_->initialize(ops_, 1);
    parallel_.emplace(recorder_, *store_);
  }

  ParameterTable table_;
  CpuOps<float> ops_;
  SingleProcess alone_;
  Recorder recorder_{alone_};
  std::optional<ParameterStore> store_;
  std::optional<DataParallel> parallel_;
};

TEST_F(DataParallelTest, BucketsAreExchangedAsSoonAsTheyAreComplete) {
  make(false);
  recorder_.set_base(store_->gradients());
  for (const int group : {2, 1}) parallel_->gradients_complete(group);
  EXPECT_THAT(recorder_.calls(), IsEmpty()) << "this was not the last micro-batch";
  parallel_->begin_exchange();
  EXPECT_THAT(recorder_.calls(), IsEmpty());
  parallel_->gradients_complete(2);
  EXPECT_THAT(recorder_.calls(), ElementsAre("all_reduce 1024-1536"));
  parallel_->gradients_complete(1);
  EXPECT_THAT(recorder_.calls(), ElementsAre("all_reduce 512-1024"));
  parallel_->finish_exchange();
  EXPECT_THAT(recorder_.calls(), ElementsAre("all_reduce 0-512", "wait 3"));
  parallel_->gradients_complete(2);
  EXPECT_THAT(recorder_.calls(), IsEmpty()) << "the next step begins with begin_exchange()";
  parallel_->gather_weights();
  EXPECT_THAT(recorder_.calls(), IsEmpty()) << "every rank updated all weights";
}

TEST_F(DataParallelTest, TheSmallestBucketsAreNotOneOfAll) {
  Config config;
  config.train.bucket_bytes = 1;
  config.optimizer.shard = true;
  const Sharding sharding = sharding_of(config, 1, 2, DType::f32);
  const ParameterStore store =
      ParameterStore::planning(table_, ops_, ParameterBuffers{true, true, false, sharding});
  EXPECT_THAT(store.buckets(),
              ElementsAre(FlatRange{0, 512}, FlatRange{512, 1024}, FlatRange{1024, 1536}));
}

TEST_F(DataParallelTest, AModelThatTellsNothingIsExchangedAtTheEnd) {
  make(true);
  recorder_.set_base(store_->gradients());
  parallel_->begin_exchange();
  parallel_->finish_exchange();
  EXPECT_THAT(recorder_.calls(), ElementsAre("reduce_scatter 1024-1536", "reduce_scatter 512-1024",
                                             "reduce_scatter 0-512", "wait 3"));
}

TEST_F(DataParallelTest, WeightsAreWaitedForWhereTheyAreFirstUsed) {
  make(true);
  recorder_.set_base(store_->compute());
  parallel_->gather_weights();
  EXPECT_THAT(recorder_.calls(),
              ElementsAre("all_gather 0-512", "all_gather 512-1024", "all_gather 1024-1536"));
  parallel_->before_use(table_[0]);
  EXPECT_THAT(recorder_.calls(), ElementsAre("wait 1"));
  parallel_->before_use(table_[0]);
  EXPECT_THAT(recorder_.calls(), IsEmpty());
  parallel_->before_use(table_[2]);
  EXPECT_THAT(recorder_.calls(), ElementsAre("wait 3"));
  parallel_->before_use(table_[1]);
  parallel_->finish_weights();
  EXPECT_THAT(recorder_.calls(), IsEmpty());
  parallel_->gather_weights();
  recorder_.calls();
  parallel_->finish_weights();
  EXPECT_THAT(recorder_.calls(), ElementsAre("wait 6"));
}

}  // namespace
}  // namespace sigtrain
