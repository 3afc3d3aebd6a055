#include "train/tensorboard.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "../file_testing.h"

namespace sigtrain {
namespace {

std::string hex(std::string_view bytes) {
  std::string text;
  for (const char byte : bytes) text += fmt::format("{:02x}", static_cast<uint8_t>(byte));
  return text;
}

// The expected bytes are those of TensorBoard's own writer (tensorboard 2.21, RecordWriter over
// Event.SerializeToString()) for the same contents.
TEST(TensorBoard, RecordsAreThoseOfTensorBoardItself) {
  const std::vector<TaggedScalar> scalars = {{"train/loss", 2.5f}, {"lr", 0.01f}};
  EXPECT_EQ(hex(tfrecord(encode_scalars_event(1234567890.5, 300, scalars))),
            "2c00000000000000f4aecc45090000a0b48065d24110ac022a1e0a110a0a747261696e2f6c6f737315"
            "000020400a090a026c72150ad7233c45b6a242");
  EXPECT_EQ(hex(tfrecord(encode_version_event(1234567890.5))),
            "1800000000000000a37f4b22090000a0b48065d2411a0d627261696e2e4576656e743a32f5e8f016");
  EXPECT_EQ(hex(encode_start_event(1.0, 7)), "09000000000000f03f10073a020801");
  EXPECT_EQ(hex(encode_scalars_event(1.0, -1, {})), "09000000000000f03f10ffffffffffffffffff012a00");
}

TEST(TensorBoard, AFileIsAChainOfRecords) {
  const TemporaryFolder folder;
  TensorBoardWriter writer(folder / "deep/er", 1);
  MetricsRecord record{5, "train", {}};
  record.add("loss", 2.5);
  record.add("tokens", int64_t{4096});
  record.add("attention_out_rms", std::vector<double>{0.5, 0.25});
  writer.write(record);

  const std::string bytes = slurp(writer.path());
  std::vector<std::string> payloads;
  for (size_t at = 0; at < bytes.size();) {
    uint64_t length = 0;
    std::memcpy(&length, bytes.data() + at, 8);
    const std::string payload = bytes.substr(at + 12, length);
    EXPECT_EQ(bytes.substr(at, length + 16), tfrecord(payload));
    payloads.push_back(payload);
    at += length + 16;
  }
  ASSERT_EQ(payloads.size(), 3u);
  EXPECT_NE(payloads[0].find("brain.Event:2"), std::string::npos);
  double wall_time = 0;
  std::memcpy(&wall_time, payloads[2].data() + 1, 8);
  const std::vector<TaggedScalar> expected = {{"train/loss", 2.5f},
                                              {"train/tokens", 4096.0f},
                                              {"train/attention_out_rms/00", 0.5f},
                                              {"train/attention_out_rms/01", 0.25f}};
  EXPECT_EQ(payloads[2], encode_scalars_event(wall_time, 5, expected));
  EXPECT_NE(TensorBoardWriter(folder / "deep/er", 6).path(), writer.path());
}

}  // namespace
}  // namespace sigtrain
