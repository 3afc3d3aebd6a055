#include "models/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

#include "../file_testing.h"
#include "core/error.h"

namespace sigtrain {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinite = std::numeric_limits<float>::infinity();

/// Logits whose softmax is `probabilities`, whatever constant is added.
std::vector<float> logits_of(const std::vector<double>& probabilities, double shift = 3.0) {
  std::vector<float> logits;
  for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p) + shift));
  return logits;
}

/// Share of each id over uniform numbers that cover [0, 1) evenly.
std::map<int32_t, double> shares(const std::vector<float>& logits, const SamplingConfig& config) {
  constexpr int draws = 10000;
  std::map<int32_t, double> shares;
  for (int i = 0; i < draws; ++i) shares[sample(logits, config, (i + 0.5) / draws)] += 1.0 / draws;
  return shares;
}

void expect_shares(const std::map<int32_t, double>& found,
                   const std::map<int32_t, double>& expected) {
  EXPECT_EQ(found.size(), expected.size());
  for (const auto& [id, share] : expected) {
    ASSERT_TRUE(found.contains(id)) << id;
    EXPECT_NEAR(found.at(id), share, 2e-4) << id;
  }
}

const std::vector<double> kProbabilities = {0.1, 0.4, 0.2, 0.3};

TEST(Sampler, DrawsByProbability) {
  expect_shares(shares(logits_of(kProbabilities), {1.0, 0, 1.0}),
                {{0, 0.1}, {1, 0.4}, {2, 0.2}, {3, 0.3}});
}

TEST(Sampler, TemperatureRaisesProbabilitiesToItsInverse) {
  const double total = 0.01 + 0.16 + 0.04 + 0.09;
  expect_shares(shares(logits_of(kProbabilities), {0.5, 0, 1.0}),
                {{0, 0.01 / total}, {1, 0.16 / total}, {2, 0.04 / total}, {3, 0.09 / total}});
}

TEST(Sampler, TemperatureZeroTakesTheMostLikely) {
  for (const double uniform : {0.0, 0.5, 0.999999}) {
    EXPECT_EQ(sample(logits_of(kProbabilities), {0.0, 0, 1.0}, uniform), 1);
    EXPECT_EQ(sample({2.0f, 5.0f, 5.0f}, {0.0, 0, 1.0}, uniform), 1) << "the first of equals";
  }
}

TEST(Sampler, TinyTemperaturesDoNotOverflow) {
  EXPECT_EQ(sample({-1000.0f, 1000.0f, 999.0f}, {1e-6, 0, 1.0}, 0.999), 1);
}

TEST(Sampler, TopKKeepsTheMostLikely) {
  expect_shares(shares(logits_of(kProbabilities), {1.0, 2, 1.0}), {{1, 0.4 / 0.7}, {3, 0.3 / 0.7}});
  expect_shares(shares(logits_of(kProbabilities), {1.0, 1, 1.0}), {{1, 1.0}});
  EXPECT_EQ(shares(logits_of(kProbabilities), {1.0, 99, 1.0}).size(), 4u);
}

TEST(Sampler, TopPKeepsTheFewestThatReachIt) {
  const std::vector<float> logits = logits_of(kProbabilities);
  expect_shares(shares(logits, {1.0, 0, 0.39}), {{1, 1.0}});
  expect_shares(shares(logits, {1.0, 0, 0.41}), {{1, 0.4 / 0.7}, {3, 0.3 / 0.7}});
  expect_shares(shares(logits, {1.0, 0, 0.69}), {{1, 0.4 / 0.7}, {3, 0.3 / 0.7}});
  expect_shares(shares(logits, {1.0, 0, 0.71}), {{1, 0.4 / 0.9}, {3, 0.3 / 0.9}, {2, 0.2 / 0.9}});
  expect_shares(shares(logits, {1.0, 0, 0.0}), {{1, 1.0}});
}

TEST(Sampler, TopKCutsBeforeTopP) {
  // Of the two left, 4/7 = 0.57 and 3/7: the first alone reaches 0.5, but not of all four.
  expect_shares(shares(logits_of(kProbabilities), {1.0, 2, 0.5}), {{1, 1.0}});
}

TEST(Sampler, NeverDrawsWhatIsNotFinite) {
  const std::vector<float> logits = {kNan, 1.0f, -kInfinite, 1.0f, kInfinite};
  expect_shares(shares(logits, {1.0, 0, 1.0}), {{1, 0.5}, {3, 0.5}});
  EXPECT_EQ(sample(logits, {0.0, 0, 1.0}, 0.5), 1);
}

TEST(Sampler, RefusesWhereNothingIsFinite) {
  for (const auto& logits :
       {std::vector<float>{kNan, kNan}, std::vector<float>{kInfinite}, std::vector<float>{}}) {
    EXPECT_THAT(message_of<Error>([&] { sample(logits, {}, 0.5); }),
                testing::HasSubstr("no logit is finite"));
  }
}

TEST(Sampler, StaysInRangeAtTheEnds) {
  const std::vector<float> logits(1000, 0.25f);
  EXPECT_EQ(sample(logits, {1.0, 0, 1.0}, 0.0), 0);
  EXPECT_EQ(sample(logits, {1.0, 0, 1.0}, 1.0 - 1e-12), 999);
}

}  // namespace
}  // namespace sigtrain
