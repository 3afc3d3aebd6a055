#include "nn/parameters.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <omp.h>

#include <cmath>

#include "../file_testing.h"
#include "core/arena.h"
#include "ops/cpu/cpu_ops.h"
#include "ops/host_values.h"

namespace sigtrain {
namespace {

using testing::HasSubstr;

TEST(ParameterTable, LaysParametersOutInOrderOnMultiplesOf64) {
  ParameterTable table;
  table.begin_group("a");
  table.add("first", {5, 3}, ParameterKind::embedding, {});
  table.add("second", {64}, ParameterKind::bias, {});
  table.begin_group("b");
  table.add("third", {65}, ParameterKind::bias, {});
  table.add("fourth", {1}, ParameterKind::bias, {});
  std::vector<int64_t> offsets;
  for (const Parameter& parameter : table.parameters()) offsets.push_back(parameter.offset);
  EXPECT_THAT(offsets, testing::ElementsAre(0, 64, 128, 256));
  EXPECT_EQ(table.count(), 15 + 64 + 65 + 1);
  EXPECT_EQ(table.flat_size(), 320);
  EXPECT_EQ(table.group_range(0), std::pair(int64_t{0}, int64_t{128}));
  EXPECT_EQ(table.group_range(1), std::pair(int64_t{128}, int64_t{320}));
  EXPECT_EQ(table[2].group, 1);
}

TEST(ParameterTable, GivesEmptyRangesToGroupsWithoutParameters) {
  ParameterTable table;
  table.begin_group("a");
  table.add("first", {5}, ParameterKind::bias, {});
  table.begin_group("empty");
  table.begin_group("b");
  table.add("second", {5}, ParameterKind::bias, {});
  table.begin_group("last");
  EXPECT_EQ(table.group_range(0), std::pair(int64_t{0}, int64_t{64}));
  EXPECT_EQ(table.group_range(1), std::pair(int64_t{64}, int64_t{64}));
  EXPECT_EQ(table.group_range(2), std::pair(int64_t{64}, int64_t{128}));
  EXPECT_EQ(table.group_range(3), std::pair(int64_t{128}, int64_t{128}));
}

TEST(ParameterTable, RefusesTwoOfOneName) {
  ParameterTable table;
  EXPECT_THAT(message_of<Error>([&] { table.add("early", {1}, ParameterKind::bias, {}); }),
              HasSubstr("early was added before any group"));
  table.begin_group("a");
  table.add("x", {1}, ParameterKind::bias, {});
  EXPECT_THAT(message_of<Error>([&] { table.add("x", {2}, ParameterKind::bias, {}); }),
              HasSubstr("two parameters are called x"));
}

class ParameterStoreTest : public testing::Test {
 protected:
  ParameterStoreTest() {
    table_.begin_group("all");
    table_.add("a", {200, 301}, ParameterKind::linear_weight, {0.0, 0.05});
    table_.add("b", {200, 301}, ParameterKind::linear_weight, {0.0, 0.05});
    table_.add("c", {1003}, ParameterKind::layer_scale, {1e-4, 0.0});
    table_.add("d", {70001}, ParameterKind::embedding, {2.0, 3.0});
  }
  std::vector<double> values(const ParameterStore& store, ParameterId id) {
    return host_values(ops_, store.view(store.master(), id));
  }

  ParameterTable table_;
  CpuOps<float> ops_;
};

// Of n normal values the mean is off by sigma / sqrt(n) and the deviation by sigma / sqrt(2n).
TEST_F(ParameterStoreTest, DrawsTheInitialValuesThatAreAskedFor) {
  ParameterStore store(table_, ops_, {});
  store.initialize(ops_, 17);
  for (ParameterId id = 0; id < 4; ++id) {
    const Initializer& init = table_[id].init;
    const auto weights = values(store, id);
    const auto n = static_cast<double>(weights.size());
    double sum = 0.0, squares = 0.0, fourth = 0.0, largest = 0.0, neighbours = 0.0, before = 0.0;
    for (const double weight : weights) {
      const double z = weight - static_cast<float>(init.constant);
      sum += z;
      squares += z * z;
      fourth += z * z * z * z;
      largest = std::max(largest, std::abs(z));
      neighbours += z * before;
      before = z;
    }
    if (init.stddev == 0.0) {
      EXPECT_EQ(squares, 0.0) << table_[id].name;
      continue;
    }
    const double sigma = init.stddev;
    EXPECT_NEAR(sum / n, 0.0, 5.0 * sigma / std::sqrt(n)) << table_[id].name;
    EXPECT_NEAR(std::sqrt(squares / n), sigma, 5.0 * sigma / std::sqrt(2.0 * n));
    EXPECT_NEAR(fourth / n / std::pow(sigma, 4), 3.0, 5.0 * std::sqrt(96.0 / n));
    EXPECT_NEAR(neighbours / n / (sigma * sigma), 0.0, 5.0 / std::sqrt(n));
    EXPECT_GT(largest, 3.5 * sigma);
    EXPECT_LT(largest, 7.0 * sigma);
  }
}

TEST_F(ParameterStoreTest, DrawsByTheSeedAndTheParameterAlone) {
  ParameterStore one(table_, ops_, {}), two(table_, ops_, {true, true, true});
  const int threads = omp_get_max_threads();
  omp_set_num_threads(1);
  one.initialize(ops_, 17);
  omp_set_num_threads(3);
  two.initialize(ops_, 17);
  omp_set_num_threads(threads);
  for (ParameterId id = 0; id < 4; ++id) EXPECT_EQ(values(one, id), values(two, id));
  EXPECT_NE(values(one, 0), values(one, 1)) << "each has numbers of its own";
  two.initialize(ops_, 18);
  EXPECT_NE(values(one, 0), values(two, 0));
}

TEST_F(ParameterStoreTest, ClearsAllElseAndThePadding) {
  ParameterStore store(table_, ops_, {true, true, true});
  for (const Tensor& flat : {store.master(), store.gradients(), store.first_moment(),
                             store.second_moment(), store.average()}) {
    ops_.fill(flat, 7.0);
  }
  store.initialize(ops_, 17);
  for (const Tensor& flat : {store.gradients(), store.first_moment(), store.second_moment()}) {
    for (const double value : host_values(ops_, flat)) ASSERT_EQ(value, 0.0);
  }
  const auto weights = host_values(ops_, store.master());
  size_t next = 0;
  for (const Parameter& parameter : table_.parameters()) {
    for (; next < static_cast<size_t>(parameter.offset); ++next) ASSERT_EQ(weights[next], 0.0);
    next += static_cast<size_t>(parameter.shape.numel());
  }
  for (; next < weights.size(); ++next) ASSERT_EQ(weights[next], 0.0);
  EXPECT_EQ(host_values(ops_, store.average()), weights) << "the average starts at the weights";
}

TEST_F(ParameterStoreTest, HoldsOnlyTheBuffersAskedFor) {
  const ParameterStore weights(table_, ops_, {});
  EXPECT_TRUE(weights.master());
  EXPECT_FALSE(weights.has_separate_master());
  EXPECT_EQ(weights.compute().data, weights.master().data);
  EXPECT_FALSE(weights.gradients());
  EXPECT_FALSE(weights.first_moment());
  EXPECT_FALSE(weights.average());
  EXPECT_FALSE(weights.gradient(0));
  EXPECT_EQ(weights.bytes(), weights.master().bytes());

  const ParameterStore all(table_, ops_, {true, true, true});
  EXPECT_EQ(all.bytes(), 5 * all.master().bytes());
  const ParameterStore planned = ParameterStore::planning(table_, ops_, {true, true, true});
  EXPECT_EQ(planned.bytes(), all.bytes());
  EXPECT_EQ(planned.weight(0).data, nullptr);
  EXPECT_EQ(planned.weight(0).shape, (Shape{200, 301}));
}

TEST_F(ParameterStoreTest, BuffersAndParametersAreAligned) {
  const ParameterStore store(table_, ops_, {true, true, true});
  for (const Tensor& flat : {store.master(), store.gradients(), store.first_moment(),
                             store.second_moment(), store.average()}) {
    EXPECT_EQ(reinterpret_cast<uintptr_t>(flat.data) % Arena::alignment, 0u);
    for (ParameterId id = 0; id < 4; ++id)
      EXPECT_EQ(reinterpret_cast<uintptr_t>(store.view(flat, id).data) % 256, 0u);
  }
}

TEST_F(ParameterStoreTest, LayersReadTheAverageWhenTold) {
  ParameterStore store(table_, ops_, {false, false, true});
  store.initialize(ops_, 17);
  ops_.fill(store.average(), 7.0);
  store.use_average(ops_);
  EXPECT_EQ(store.weight(2).as<float>()[0], 7.0f);
  store.use_weights(ops_);
  EXPECT_EQ(store.weight(2).as<float>()[0], 1e-4f);
}

// 1000 weights in one parameter, for three ranks.
class Sharded : public testing::Test {
 protected:
  Sharded() {
    table_.begin_group("all");
    weight_ = table_.add("weight", {50, 100}, ParameterKind::linear_weight, {0.0, 1.0});
  }
  ParameterStore store(int64_t rank, bool is_sharded) {
    ParameterStore made(table_, ops_, {true, true, true, {rank, 3, 2000, is_sharded}});
    made.initialize(ops_, 5);
    return made;
  }
  ParameterTable table_;
  CpuOps<double> ops_;
  ParameterId weight_;
};

TEST_F(Sharded, BucketsAreFilledFromTheEndAndCutIntoEqualParts) {
  const ParameterStore second = store(1, true);
  // 5056 elements with padding, rounded up to ranks times 256; buckets are rounded down likewise.
  EXPECT_THAT(second.buckets(), testing::ElementsAre(FlatRange{0, 768}, FlatRange{768, 2304},
                                                     FlatRange{2304, 3840}, FlatRange{3840, 5376}));
  EXPECT_THAT(second.owned(), testing::ElementsAre(FlatRange{256, 512}, FlatRange{1280, 1792},
                                                   FlatRange{2816, 3328}, FlatRange{4352, 4864}));
  EXPECT_EQ(second.first_moment().numel(), 5376 / 3);
  EXPECT_EQ(second.average().numel(), 5376 / 3);
  EXPECT_EQ(second.gradients().numel(), 5376);
  const ParameterStore whole = store(1, false);
  EXPECT_THAT(whole.owned(), testing::ElementsAre(FlatRange{0, 5376}));
  EXPECT_EQ(whole.first_moment().numel(), 5376);
}

TEST_F(Sharded, EveryElementHasOneOwner) {
  std::vector<int> owners(5376, 0);
  for (const int64_t rank : {0, 1, 2}) {
    const ParameterStore shard = store(rank, true);
    for (const auto& [begin, end] : shard.owned())
      for (int64_t i = begin; i < end; ++i) ++owners[static_cast<size_t>(i)];
  }
  EXPECT_THAT(owners, testing::Each(1));
}

TEST_F(Sharded, PartsAreFoundInShardsAndInWholeBuffers) {
  const ParameterStore whole = store(2, false), shard = store(2, true);
  const auto weights = host_values(ops_, whole.master());
  EXPECT_EQ(host_values(ops_, shard.master()), weights);
  for (const FlatRange& own : shard.owned()) {
    const std::vector<double> expected(weights.begin() + own.begin, weights.begin() + own.end);
    EXPECT_EQ(host_values(ops_, shard.part(shard.master(), own)), expected);
    EXPECT_EQ(host_values(ops_, shard.part(shard.average(), own)), expected);
    const FlatRange inner{own.begin + 64, own.end - 64};
    EXPECT_EQ(host_values(ops_, shard.part(shard.average(), inner)),
              std::vector<double>(expected.begin() + 64, expected.end() - 64));
  }
  EXPECT_THAT(host_values(ops_, shard.gradients()), testing::Each(0.0));
}

}  // namespace
}  // namespace sigtrain
