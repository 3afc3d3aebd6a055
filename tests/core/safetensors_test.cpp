#include "core/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <numeric>

#include "../file_testing.h"
#include "core/error.h"

namespace sigtrain {
namespace {

using testing::AllOf;
using testing::HasSubstr;

std::string with_header(const std::string& header, size_t data_bytes) {
  const uint64_t length = header.size();
  std::string text(8, '\0');
  std::memcpy(text.data(), &length, 8);
  return text + header + std::string(data_bytes, 'x');
}

TEST(Safetensors, WritesTheDocumentedBytes) {
  const TemporaryFolder folder;
  float values[] = {1.0f, -2.0f};
  write_safetensors(folder / "a", std::vector<NamedTensor>{{"w", {values, DType::f32, {2}}}},
                    {{"format", "pt"}});
  // The header is padded to a multiple of 8 with spaces.
  std::string header =
      R"({"__metadata__":{"format":"pt"},"w":{"data_offsets":[0,8],"dtype":"F32","shape":[2]}})";
  ASSERT_EQ(header.size() % 8, 5u);
  header += "   ";
  std::string expected = with_header(header, 0);
  expected.append("\x00\x00\x80\x3f\x00\x00\x00\xc0", 8);
  EXPECT_EQ(slurp(folder / "a"), expected);
}

TEST(Safetensors, RoundTripsEveryDType) {
  const TemporaryFolder folder;
  std::vector<std::vector<std::byte>> memory;
  std::vector<NamedTensor> tensors;
  uint8_t next = 1;
  for (const DType dtype :
       {DType::bf16, DType::f32, DType::f64, DType::i32, DType::i64, DType::u64, DType::u8}) {
    for (const Shape& shape : {Shape{}, Shape{3}, Shape{0, 5}, Shape{2, 3, 1, 5}}) {
      Tensor tensor{nullptr, dtype, shape};
      memory.emplace_back(tensor.bytes());
      for (std::byte& byte : memory.back()) byte = std::byte{next++};
      tensor.data = memory.back().data();
      tensors.push_back({fmt::format("{} {}", name_of(dtype), shape.to_string()), tensor});
    }
  }
  const FileDigest digest = write_safetensors(folder / "a", tensors, {{"k", "ü\"\n"}});
  EXPECT_EQ(FileReader(folder / "a").digest(), digest);

  const SafetensorsReader reader(folder / "a");
  EXPECT_EQ(reader.metadata().at("k"), "ü\"\n");
  ASSERT_EQ(reader.entries().size(), tensors.size());
  for (const SafetensorsEntry& entry : reader.entries()) {
    EXPECT_EQ(entry.offset % size_of(entry.dtype), 0u) << entry.name;
  }
  std::vector<std::vector<std::byte>> loaded;
  std::vector<NamedTensor> targets = tensors;
  for (NamedTensor& target : targets) {
    loaded.emplace_back(target.tensor.bytes());
    target.tensor.data = loaded.back().data();
  }
  load_tensors(reader, targets);
  EXPECT_EQ(loaded, memory);
}

TEST(Safetensors, AnEmptyFileOfTensorsIsValid) {
  const TemporaryFolder folder;
  write_safetensors(folder / "a", {});
  EXPECT_TRUE(SafetensorsReader(folder / "a").entries().empty());
}

TEST(Safetensors, RefusesBadNames) {
  const TemporaryFolder folder;
  float value = 0;
  const Tensor tensor{&value, DType::f32, {1}};
  const auto write = [&](const std::vector<NamedTensor>& tensors) {
    return message_of<Error>([&] { write_safetensors(folder / "a", tensors); });
  };
  EXPECT_THAT(write({{"w", tensor}, {"w", tensor}}), HasSubstr("'w' is used twice"));
  EXPECT_THAT(write({{"__metadata__", tensor}}), HasSubstr("reserved"));
  EXPECT_THAT(write({{"w\xff", tensor}}), HasSubstr("not UTF-8"));
  EXPECT_THAT(write({{"w", {}}}), HasSubstr("'w' has no data"));
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(Safetensors, TruncationAtEveryByteIsNoticed) {
  const TemporaryFolder folder;
  std::vector<double> values(20);
  write_safetensors(folder / "a",
                    std::vector<NamedTensor>{{"w", {values.data(), DType::f64, {20}}}});
  const std::string whole = slurp(folder / "a");
  for (size_t n = 0; n < whole.size(); ++n) {
    spill(folder / "b", whole.substr(0, n));
    const auto message = message_of<Error>([&] { SafetensorsReader reader(folder / "b"); });
    EXPECT_THAT(message, HasSubstr((folder / "b").string()));
    if (n >= 8) {
      EXPECT_THAT(message, AllOf(HasSubstr("truncated"), HasSubstr(fmt::format("found {}", n))));
    }
  }
  spill(folder / "b", whole + "x");
  EXPECT_THAT(
      message_of<Error>([&] { SafetensorsReader reader(folder / "b"); }),
      HasSubstr(fmt::format("expected {} bytes, found {}", whole.size(), whole.size() + 1)));
}

TEST(Safetensors, BadHeadersAreExplained) {
  const std::pair<std::string, std::string> table[] = {
      {"[]", "not a JSON object"},
      {"{", "not valid JSON"},
      {"{} {}", "not valid JSON"},
      {R"({"a":1})", "'a': its description is not a JSON object"},
      {R"({"a":{"shape":[2],"data_offsets":[0,8]}})", "no dtype"},
      {R"({"a":{"dtype":"F16","shape":[4],"data_offsets":[0,8]}})", "F16\" is not supported"},
      {R"({"a":{"dtype":"F32","data_offsets":[0,8]}})", "'shape' is not a list"},
      {R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", "'shape' holds -2"},
      {R"({"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}})", "'shape' holds 2.0"},
      {R"({"a":{"dtype":"F32","shape":[1,1,1,1,2],"data_offsets":[0,8]}})", "5 dimensions"},
      {R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]}})",
       "too large"},
      {R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})",
       "takes 12 bytes, but 'data_offsets' gives it 8"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", "not a begin and an end"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0]}})", "not a begin and an end"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", "leaves a gap"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
       R"("b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
       "'b' begins at byte 0 of the data, which overlaps"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", "longer than its header"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
       R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
       "names 'a' twice"},
      {R"({"__metadata__":{"k":1},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
       "'k' is not a string"},
  };
  const TemporaryFolder folder;
  for (const auto& [header, expected] : table) {
    spill(folder / "a", with_header(header, 8));
    const auto message = message_of<Error>([&] { SafetensorsReader reader(folder / "a"); });
    EXPECT_THAT(message, AllOf(HasSubstr(expected), HasSubstr((folder / "a").string()))) << header;
  }
  std::string huge = with_header("{}", 0);
  std::memset(huge.data(), 0xff, 8);
  spill(folder / "a", huge);
  EXPECT_THAT(message_of<Error>([&] { SafetensorsReader reader(folder / "a"); }),
              HasSubstr("header length is 18446744073709551615"));
  EXPECT_THAT(message_of<Error>([&] { SafetensorsReader reader(folder / "none"); }),
              HasSubstr("No such file"));
}

TEST(Safetensors, LoadingListsEveryDifferenceAndReadsNothing) {
  const TemporaryFolder folder;
  std::vector<float> values(6, 1.0f);
  const auto view = [&](Shape shape) { return Tensor{values.data(), DType::f32, shape}; };
  write_safetensors(
      folder / "a",
      std::vector<NamedTensor>{{"same", view({6})}, {"shape", view({2, 3})}, {"extra", view({1})}});
  std::fill(values.begin(), values.end(), 2.0f);
  const SafetensorsReader reader(folder / "a");
  const std::vector<NamedTensor> wanted = {
      {"same", view({6})}, {"shape", view({3, 2})}, {"absent", view({1})}};
  EXPECT_THAT(message_of<Error>([&] { load_tensors(reader, wanted); }),
              AllOf(HasSubstr("missing: absent"), HasSubstr("unexpected: extra"),
                    HasSubstr("shape is f32 [2, 3] in the file, f32 [3, 2] in the model")));
  EXPECT_EQ(values[0], 2.0f);
  EXPECT_THAT(message_of<Error>([&] { reader.read("none", view({1})); }),
              HasSubstr("no tensor 'none'"));
  EXPECT_THAT(message_of<Error>([&] { reader.read("extra", view({2})); }),
              HasSubstr("'extra' is f32 [1], not f32 [2]"));
}

}  // namespace
}  // namespace sigtrain
