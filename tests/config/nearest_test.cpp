#include "config/nearest.h"

#include <gtest/gtest.h>

namespace sigtrain {
namespace {

TEST(Nearest, CountsEdits) {
  EXPECT_EQ(edit_distance("", ""), 0);
  EXPECT_EQ(edit_distance("", "abc"), 3);
  EXPECT_EQ(edit_distance("kind", "knd"), 1);
  EXPECT_EQ(edit_distance("kind", "kidn"), 1);
  EXPECT_EQ(edit_distance("sitting", "kitten"), 3);
  EXPECT_EQ(edit_distance("ca", "abc"), 3);
}

TEST(Nearest, OffersOnlyWhatIsNear) {
  const std::vector<std::string> words = {"beta1", "beta2", "weight_decay"};
  EXPECT_EQ(nearest("beta", words), "beta1");
  EXPECT_EQ(nearest("beat2", words), "beta2");
  EXPECT_EQ(nearest("wd", words), std::nullopt);
  EXPECT_EQ(nearest("weigth_dcay", words), "weight_decay");
  EXPECT_EQ(nearest(std::string(1000000, 'a'), words), std::nullopt);
  EXPECT_EQ(nearest("x", {}), std::nullopt);
}

}  // namespace
}  // namespace sigtrain
