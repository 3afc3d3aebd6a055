// A step whose gradient is not finite on one rank alone: all ranks skip it.
#include <gtest/gtest.h>

#include <algorithm>
#include <barrier>
#include <cmath>
#include <limits>
#include <thread>

#include "ops/cpu/cpu_ops.h"
#include "ops/host_values.h"
#include "train/data_parallel.h"
#include "train/optimizer.h"

namespace sigtrain {
namespace {

constexpr int kRanks = 4;

/// Where ranks that are threads of this program exchange values.
class Meeting {
 public:
  /// Every rank's values, on every rank.
  std::vector<std::vector<double>> gather(int rank, const Tensor& x) {
    values_[static_cast<size_t>(rank)].assign(x.as<double>(), x.as<double>() + x.numel());
    barrier_.arrive_and_wait();
    std::vector<std::vector<double>> all = values_;
    barrier_.arrive_and_wait();
    return all;
  }

 private:
  std::barrier<> barrier_{kRanks};
  std::vector<std::vector<double>> values_ = std::vector<std::vector<double>>(kRanks);
};

class ThreadRank final : public ProcessGroup {
 public:
  explicit ThreadRank(int rank) : rank_(rank) {}
  int rank() const override { return rank_; }
  int size() const override { return kRanks; }
  int local_rank() const override { return rank_; }
  int local_size() const override { return kRanks; }
  int cores() const override { return 1; }
  bool is_distributed() const override { return true; }
  std::vector<std::string> gather(const std::string&) override {
    throw Error("these ranks exchange tensors alone");
  }
  void check() override {}
  void fail(const std::string&) override {}
  void leave() override {}
  void watch(std::function<void()>, std::function<std::string()>) override {}

 private:
  int rank_;
};

/// Every exchange of f64 is over before its call returns.
class ThreadCommunicator final : public Communicator {
 public:
  ThreadCommunicator(ProcessGroup& group, Meeting& meeting)
      : Communicator(group), meeting_(meeting) {}
  Ticket all_reduce(const Tensor& x) override {
    add(x, 0, x.numel());
    return 0;
  }
  Ticket reduce_scatter(const Tensor& x) override {
    const int64_t part = x.numel() / kRanks;
    add(x, rank() * part, (rank() + 1) * part);
    // Nothing of use to anyone.
    for (int64_t i = 0; i < x.numel(); ++i)
      if (i / part != rank()) x.as<double>()[i] = std::nan("");
    return 0;
  }
  Ticket all_gather(const Tensor& x) override {
    const auto all = meeting_.gather(rank(), x);
    const int64_t part = x.numel() / kRanks;
    for (int64_t i = 0; i < x.numel(); ++i)
      x.as<double>()[i] = all[static_cast<size_t>(i / part)][static_cast<size_t>(i)];
    return 0;
  }
  Ticket broadcast(const Tensor& x) override {
    const auto all = meeting_.gather(rank(), x);
    std::copy(all[0].begin(), all[0].end(), x.as<double>());
    return 0;
  }
  void wait(Ticket) override {}
  void measure() override {}
  ExchangeTimes measured() override { return {}; }

 private:
  void add(const Tensor& x, int64_t begin, int64_t end) {
    const auto all = meeting_.gather(rank(), x);
    for (int64_t i = begin; i < end; ++i) {
      x.as<double>()[i] = 0.0;
      for (const auto& values : all) x.as<double>()[i] += values[static_cast<size_t>(i)];
    }
  }

  Meeting& meeting_;
};

/// What a rank has after each of three steps.
struct AfterStep {
  OptimizerReport report;
  std::vector<double> weights;
};

/// Three groups of 512 weights in buckets of 512. In the second step element `bad_element` of rank
/// 1's gradient is `bad`.
std::vector<AfterStep> train_rank(int rank, bool is_sharded, int64_t bad_element, double bad,
                                  Meeting& meeting) {
  ParameterTable table;
  for (const char* name : {"first", "second", "third"}) {
    table.begin_group(name);
    table.add(name, {512}, ParameterKind::linear_weight, {0.0, 1.0});
  }
  CpuOps<double> ops;
  std::vector<float> workspace(1 << 12);
  ops.set_workspace({workspace.data(), DType::f32, {1 << 12}});
  ParameterStore store(table, ops,
                       ParameterBuffers{true, true, true, {rank, kRanks, 512, is_sharded}});
  store.initialize(ops, 3);
  ThreadRank group(rank);
  ThreadCommunicator communicator(group, meeting);
  DataParallel ranks(communicator, store);
  OptimizerConfig config;
  config.ema_decay = 0.5;
  const Optimizer optimizer(store, ops, config, 64);
  std::vector<AfterStep> steps;
  for (int step = 0; step < 3; ++step) {
    optimizer.set_rate(ops, 1.0);
    optimizer.zero_gradients(ops);
    double* gradient = store.gradients().as<double>();
    for (int64_t i = 0; i < table.flat_size(); ++i)
      gradient[i] = std::sin(static_cast<double>(i * (rank + 1) + step));
    if (step == 1 && rank == 1) gradient[bad_element] = bad;
    ranks.begin_exchange();
    ranks.finish_exchange();
    optimizer.step(ops, &communicator);
    ranks.gather_weights();
    ranks.finish_weights();
    steps.push_back({optimizer.report(ops), host_values(ops, store.compute())});
  }
  return steps;
}

class SkippedStep : public testing::TestWithParam<bool> {};

TEST_P(SkippedStep, IsSkippedByAllRanksAndCountedOnce) {
  // In parts of the gradient that rank 1 updates where state is sharded, and that others do.
  for (const int64_t bad_element : {0, 130, 1535}) {
    for (const double bad : {std::nan(""), -std::numeric_limits<double>::infinity()}) {
      SCOPED_TRACE(testing::Message() << bad << " at " << bad_element);
      Meeting meeting;
      std::vector<std::vector<AfterStep>> by_rank(kRanks);
      std::vector<std::thread> threads;
      for (int rank = 0; rank < kRanks; ++rank) {
        threads.emplace_back([&, rank] {
          by_rank[static_cast<size_t>(rank)] =
              train_rank(rank, GetParam(), bad_element, bad, meeting);
        });
      }
      for (std::thread& thread : threads) thread.join();
      for (int rank = 0; rank < kRanks; ++rank) {
        SCOPED_TRACE(testing::Message() << "rank " << rank);
        const std::vector<AfterStep>& steps = by_rank[static_cast<size_t>(rank)];
        EXPECT_TRUE(steps[0].report.finite);
        EXPECT_FALSE(steps[1].report.finite);
        EXPECT_TRUE(steps[2].report.finite);
        EXPECT_EQ(steps[1].report.skipped_steps, 1);
        EXPECT_EQ(steps[1].report.skipped_in_a_row, 1);
        EXPECT_EQ(steps[2].report.skipped_steps, 1);
        EXPECT_EQ(steps[2].report.skipped_in_a_row, 0);
        EXPECT_EQ(steps[2].report.applied_steps, 2);
        EXPECT_EQ(steps[1].weights, steps[0].weights) << "the step was not skipped";
        EXPECT_NE(steps[2].weights, steps[1].weights) << "the next one was, too";
        for (size_t step = 0; step < steps.size(); ++step)
          EXPECT_EQ(steps[step].weights, by_rank[0][step].weights) << "after step " << step;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(PlainAndSharded, SkippedStep, testing::Bool(),
                         [](const auto& info) { return info.param ? "sharded" : "plain"; });

}  // namespace
}  // namespace sigtrain
