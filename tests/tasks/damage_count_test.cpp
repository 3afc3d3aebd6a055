#include "tasks/damage_count.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "data/temporary_folder.h"

namespace sigtrain {
namespace {

using testing::AllOf;
using testing::HasSubstr;

/// A rank whose neighbour says always the same.
class WithNeighbour final : public ProcessGroup {
 public:
  explicit WithNeighbour(std::string says) : says_(std::move(says)) {}
  int rank() const override { return 0; }
  int size() const override { return 2; }
  int local_rank() const override { return 0; }
  int local_size() const override { return 2; }
  int cores() const override { return 1; }
  bool is_distributed() const override { return true; }
  std::vector<std::string> gather(const std::string& text) override { return {text, says_}; }
  void check() override {}
  void fail(const std::string&) override {}
  void leave() override {}
  void watch(std::function<void()>, std::function<std::string()>) override {}

 private:
  std::string says_;
};

TEST(DamageCount, CountsEachSampleOnce) {
  SingleProcess alone;
  DamageCount damage(10, 1, 0.2, "images", "data.image.max_damaged");
  damage.add(alone, {{3, "c.png: torn"}, {3, "c.png: torn"}});
  damage.add(alone, {{3, "c.png: torn"}, {5, "e.png: torn"}});
  EXPECT_EQ(damage.count(), 2);
  damage.add(alone, {});
  EXPECT_THAT(message_of<AgreedFailure>([&] {
                damage.add(alone, {{6, "f.png: \xFF"}});
              }),
              AllOf(HasSubstr("3 of 10 images are damaged"),
                    HasSubstr("data.image.max_damaged, 0.2, allows"), HasSubstr("f.png: ")));
}

TEST(DamageCount, CountsWhatAnyRankFound) {
  WithNeighbour group(R"([[3, "c.png: torn"], [7, "g.png: torn"]])");
  DamageCount damage(10, 1, 0.3, "images", "data.image.max_damaged");
  damage.add(group, {{3, "c.png: torn"}, {4, "d.png: torn"}});
  EXPECT_EQ(damage.count(), 3);
  damage.add(group, {{4, "d.png: torn"}});
  EXPECT_EQ(damage.count(), 3);
  EXPECT_THROW(damage.add(group, {{5, "e.png: torn"}}), AgreedFailure);
}

TEST(DamageCount, GoesOnWhereACheckpointLeftOff) {
  SingleProcess alone;
  DamageCount before(10, 7, 0.2, "images", "data.image.max_damaged");
  before.add(alone, {{3, "c.png: torn"}, {5, "e.png: torn"}});
  const nlohmann::json state = nlohmann::json::parse(before.state().dump());
  DamageCount after(10, 7, 0.2, "images", "data.image.max_damaged");
  after.restore(nullptr);
  EXPECT_EQ(after.count(), 0);
  after.restore(state);
  EXPECT_EQ(after.count(), 2);
  after.add(alone, {{5, "e.png: torn"}});
  EXPECT_EQ(after.count(), 2);
  EXPECT_THROW(after.add(alone, {{6, "f.png: torn"}}), AgreedFailure);
  // Sample 3 of another set is another sample.
  DamageCount other(10, 8, 0.2, "images", "data.image.max_damaged");
  other.restore(state);
  EXPECT_EQ(other.count(), 0);
}

}  // namespace
}  // namespace sigtrain
