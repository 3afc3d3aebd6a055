#include "core/shape.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

namespace sigtrain {
namespace {

// A product that wraps around would be a plan of little memory, written past its end.
TEST(Shape, RefusesMoreElementsThanItCanCount) {
  constexpr int64_t most = Shape::max_numel, huge = std::numeric_limits<int64_t>::max();
  EXPECT_EQ((Shape{most}).numel(), most);
  EXPECT_EQ((Shape{1 << 22, 1 << 22}).numel(), most);
  EXPECT_EQ((Shape{0, huge}).numel(), 0);
  for (const std::initializer_list<int64_t> dims : {std::initializer_list<int64_t>{most + 1},
                                                    {1 << 22, 1 << 22, 2},
                                                    {huge, huge},
                                                    {int64_t{1} << 32, int64_t{1} << 32, 5}}) {
    try {
      const Shape shape(dims);
      FAIL() << shape.to_string();
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), testing::HasSubstr("use a smaller micro-batch, sequence or model"));
    }
  }
}

}  // namespace
}  // namespace sigtrain
