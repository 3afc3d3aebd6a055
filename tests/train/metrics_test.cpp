#include "train/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "../file_testing.h"
#include "core/error.h"

namespace sigtrain {
namespace {

using testing::HasSubstr;

MetricsRecord record(int64_t step, std::string split = "train") {
  MetricsRecord result{step, std::move(split), {}};
  result.add("loss", 2.5);
  return result;
}

std::string line(int64_t step) { return to_json_line(record(step)) + "\n"; }

TEST(Metrics, ALineKeepsTheOrderAndWritesNullForWhatIsNotFinite) {
  MetricsRecord all = record(3, "validation");
  all.add("tokens", int64_t{1} << 40);
  all.add("lr", 0.01);
  all.add("grad_norm", std::numeric_limits<double>::quiet_NaN());
  all.add("attention_out_rms", std::vector<double>{1.0, INFINITY, 0.1});
  all.add("none", std::vector<double>{});
  EXPECT_EQ(to_json_line(all),
            R"({"step":3,"split":"validation","loss":2.5,"tokens":1099511627776,"lr":0.01,)"
            R"("grad_norm":null,"attention_out_rms":[1.0,null,0.1],"none":[]})");
}

TEST(Metrics, WritesThroughAtOnce) {
  const TemporaryFolder folder;
  MetricsWriter writer(folder / "m", std::nullopt);
  writer.write(record(1));
  EXPECT_EQ(slurp(folder / "m"), line(1));
  writer.write(record(2));
  EXPECT_EQ(slurp(folder / "m"), line(1) + line(2));
}

TEST(Metrics, ResumingDropsLaterAndBrokenLines) {
  const TemporaryFolder folder;
  const std::string earlier = line(1) + to_json_line(record(2, "validation")) + "\n" + line(2) +
                              "not json\n[1]\n{\"split\":\"train\"}\n" + line(3) + line(4) +
                              R"({"step":2,"split":"tr)";
  spill(folder / "m", earlier);
  MetricsWriter writer(folder / "m", 2);
  EXPECT_EQ(writer.kept_lines(), 3);
  EXPECT_EQ(writer.dropped_lines(), 6);
  writer.write(record(3));
  EXPECT_EQ(slurp(folder / "m"),
            line(1) + to_json_line(record(2, "validation")) + "\n" + line(2) + line(3));
}

TEST(Metrics, ResumingWithoutAFileAndStartingAnew) {
  const TemporaryFolder folder;
  { MetricsWriter(folder / "m", 5).write(record(6)); }
  { MetricsWriter(folder / "m", std::nullopt).write(record(1)); }
  EXPECT_EQ(slurp(folder / "m"), line(1));
  EXPECT_THAT(message_of<Error>([&] { MetricsWriter(folder / "no/m", std::nullopt); }),
              HasSubstr("no/m"));
}

}  // namespace
}  // namespace sigtrain
