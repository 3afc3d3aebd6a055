#include "nn/positions.h"

#include <gtest/gtest.h>

#include <cmath>

namespace sigtrain {
namespace {

void expect_exponents(int64_t heads, const std::vector<double>& minus_log2) {
  const std::vector<double> slopes = alibi_slopes(heads);
  ASSERT_EQ(slopes.size(), minus_log2.size());
  for (size_t i = 0; i < slopes.size(); ++i)
    EXPECT_DOUBLE_EQ(slopes[i], std::exp2(-minus_log2[i])) << "head " << i << " of " << heads;
}

// Press et al. 2022, section 3: 1/2, 1/4, ..., 1/256 for 8 heads; for 16 heads half as steep steps.
TEST(AlibiSlopes, ArePublishedOnesForPowersOfTwo) {
  expect_exponents(1, {8});
  expect_exponents(2, {4, 8});
  expect_exponents(8, {1, 2, 3, 4, 5, 6, 7, 8});
  std::vector<double> sixteen, thirty_two;
  for (int k = 1; k <= 16; ++k) sixteen.push_back(0.5 * k);
  for (int k = 1; k <= 32; ++k) thirty_two.push_back(0.25 * k);
  expect_exponents(16, sixteen);
  expect_exponents(32, thirty_two);
}

// The published code: those of the next lower power, then every second one of the next higher.
TEST(AlibiSlopes, InterleaveOtherwise) {
  expect_exponents(3, {4, 8, 2});
  expect_exponents(6, {2, 4, 6, 8, 1, 3});
  expect_exponents(12, {1, 2, 3, 4, 5, 6, 7, 8, 0.5, 1.5, 2.5, 3.5});
}

TEST(RopeTable, HoldsCosinesThenSines) {
  // Angles t * 100^(-2i/4): t and t / 10.
  const std::vector<double> table = rope_table(3, 4, 100.0);
  ASSERT_EQ(table.size(), 12u);
  for (int t = 0; t < 3; ++t) {
    const double* row = table.data() + 4 * t;
    EXPECT_NEAR(row[0], std::cos(t), 1e-15);
    EXPECT_NEAR(row[1], std::cos(t / 10.0), 1e-15);
    EXPECT_NEAR(row[2], std::sin(t), 1e-15);
    EXPECT_NEAR(row[3], std::sin(t / 10.0), 1e-15);
  }
}

TEST(RopeTable, RowsOfAShorterTableAreTheFirst) {
  const std::vector<double> longer = rope_table(9, 6, 10000.0), shorter = rope_table(5, 6, 10000.0);
  EXPECT_TRUE(std::equal(shorter.begin(), shorter.end(), longer.begin()));
}

TEST(RopeTable, TurnsPairsByUnitAngles) {
  const std::vector<double> table = rope_table(50, 8, 10000.0);
  for (size_t row = 0; row < table.size(); row += 8) {
    for (size_t i = row; i < row + 4; ++i)
      EXPECT_NEAR(table[i] * table[i] + table[i + 4] * table[i + 4], 1.0, 1e-14);
  }
}

TEST(SincosTable, HoldsSinesThenCosines) {
  // Angles t * 10000^(-2i/4): t and t / 100.
  const std::vector<double> table = sincos_table(3, 4);
  ASSERT_EQ(table.size(), 12u);
  for (int t = 0; t < 3; ++t) {
    const double* row = table.data() + 4 * t;
    EXPECT_NEAR(row[0], std::sin(t), 1e-15);
    EXPECT_NEAR(row[1], std::sin(t / 100.0), 1e-15);
    EXPECT_NEAR(row[2], std::cos(t), 1e-15);
    EXPECT_NEAR(row[3], std::cos(t / 100.0), 1e-15);
  }
}

TEST(SincosTable, OfASquareHoldsColumnsThenRows) {
  const std::vector<double> line = sincos_table(3, 4), square = sincos_2d_table(3, 8);
  ASSERT_EQ(square.size(), 72u);
  for (int row = 0; row < 3; ++row) {
    for (int column = 0; column < 3; ++column) {
      const double* patch = square.data() + 8 * (3 * row + column);
      for (int i = 0; i < 4; ++i) {
        EXPECT_EQ(patch[i], line[static_cast<size_t>(4 * column + i)]);
        EXPECT_EQ(patch[4 + i], line[static_cast<size_t>(4 * row + i)]);
      }
    }
  }
}

}  // namespace
}  // namespace sigtrain
