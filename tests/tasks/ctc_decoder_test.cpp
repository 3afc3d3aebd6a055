#include "tasks/ctc_decoder.h"

#include <gmock/gmock.h>

#include <cmath>
#include <map>
#include <random>

namespace sigtrain {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using Ids = std::vector<int32_t>;

/// Logits of log probabilities, one row a frame.
std::vector<float> rows(std::initializer_list<std::vector<double>> probabilities) {
  std::vector<float> logits;
  for (const auto& row : probabilities)
    for (const double p : row) logits.push_back(static_cast<float>(std::log(p) + 3.0));
  return logits;
}

std::vector<float> random_logits(int64_t frames, int64_t vocab_size, uint32_t seed) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal(0.0F, 1.5F);
  std::vector<float> logits(static_cast<size_t>(frames * vocab_size));
  for (float& logit : logits) logit = normal(engine);
  return logits;
}

Ids collapse(const Ids& path, int32_t blank) {
  Ids text;
  int32_t before = blank;
  for (const int32_t label : path) {
    if (label != before && label != blank) text.push_back(label);
    before = label;
  }
  return text;
}

/// Of the texts that any path collapses to, the one with the largest probability.
Ids best_by_enumeration(const std::vector<float>& logits, int64_t vocab_size, int32_t blank) {
  const auto frames = static_cast<int64_t>(logits.size()) / vocab_size;
  std::map<Ids, double> texts;
  Ids path(static_cast<size_t>(frames), 0);
  for (bool more = true; more;) {
    double p = 1.0;
    for (int64_t t = 0; t < frames; ++t) {
      double sum = 0.0;
      for (int64_t v = 0; v < vocab_size; ++v)
        sum += std::exp(logits[static_cast<size_t>(t * vocab_size + v)]);
      p *= std::exp(logits[static_cast<size_t>(t * vocab_size + path[static_cast<size_t>(t)])]) /
           sum;
    }
    texts[collapse(path, blank)] += p;
    more = false;
    for (int32_t& label : path) {
      if (++label < vocab_size) {
        more = true;
        break;
      }
      label = 0;
    }
  }
  return std::max_element(texts.begin(), texts.end(),
                          [](const auto& a, const auto& b) { return a.second < b.second; })
      ->first;
}

TEST(DecodeGreedy, MergesRepeatsAndLeavesBlanksOut) {
  const auto logits = rows({{0.1, 0.8, 0.1},
                            {0.1, 0.8, 0.1},
                            {0.8, 0.1, 0.1},
                            {0.1, 0.8, 0.1},
                            {0.1, 0.1, 0.8},
                            {0.8, 0.1, 0.1}});
  EXPECT_THAT(decode_greedy(logits, 3, 0), ElementsAre(1, 1, 2));
  EXPECT_THAT(decode_greedy({}, 3, 0), IsEmpty());
  EXPECT_THAT(decode_greedy(logits, 3, 1), ElementsAre(0, 2, 0));
}

// The classic case: the best path is of blanks alone, but more probability goes to the letter.
TEST(DecodeBeam, SumsOverPaths) {
  const auto logits = rows({{0.6, 0.4}, {0.6, 0.4}});
  EXPECT_THAT(decode_greedy(logits, 2, 0), IsEmpty());
  EXPECT_THAT(decode_beam(logits, 2, 0, 4), ElementsAre(1));
}

TEST(DecodeBeam, WithRoomForAllIsTheBestText) {
  for (uint32_t seed = 1; seed <= 40; ++seed) {
    const auto logits = random_logits(6, 3, seed);
    const int32_t blank = static_cast<int32_t>(seed % 3);
    EXPECT_EQ(decode_beam(logits, 3, blank, 1000), best_by_enumeration(logits, 3, blank)) << seed;
  }
}

// The letter's paths come together behind the first frame, where a beam of one has dropped it.
TEST(DecodeBeam, HoldsNoMoreTextsThanItsWidth) {
  const auto logits = rows({{0.6, 0.4}, {0.6, 0.4}});
  EXPECT_THAT(decode_beam(logits, 2, 0, 1), IsEmpty());
  EXPECT_THAT(decode_beam(logits, 2, 0, 2), ElementsAre(1));
}

// A text that was dropped and found again is still one text: among those of 12 frames the best is
// found by a beam that drops most.
TEST(DecodeBeam, FindsTheBestTextAmongManyThatItDrops) {
  for (uint32_t seed = 1; seed <= 5; ++seed) {
    const auto logits = random_logits(12, 3, seed);
    EXPECT_EQ(decode_beam(logits, 3, 0, 40), best_by_enumeration(logits, 3, 0)) << seed;
  }
}

TEST(DecodeBeam, OfNoFramesIsNoText) { EXPECT_THAT(decode_beam({}, 6, 0, 8), IsEmpty()); }

}  // namespace
}  // namespace sigtrain
