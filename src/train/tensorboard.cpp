#include "train/tensorboard.h"

#include <unistd.h>

#include <array>
#include <bit>
#include <chrono>
#include <vector>

#include "core/crc32c.h"
#include "core/error.h"

namespace sigtrain {
namespace {

template <typename T>
void append_fixed(std::string& out, T value) {
  const auto bytes = std::bit_cast<std::array<char, sizeof(T)>>(value);
  out.append(bytes.data(), bytes.size());
}

void append_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
}

// The wire types of protobuf that these messages use.
enum WireType { varint = 0, fixed64 = 1, length_delimited = 2, fixed32 = 5 };

void append_key(std::string& out, int field, WireType type) {
  append_varint(out, static_cast<uint64_t>(field) << 3 | type);
}

void append_bytes(std::string& out, int field, std::string_view bytes) {
  append_key(out, field, length_delimited);
  append_varint(out, bytes.size());
  out.append(bytes);
}

// Event: 1 wall_time, 2 step, 3 file_version, 5 summary, 7 session_log.
std::string event(double wall_time, int64_t step) {
  std::string out;
  append_key(out, 1, fixed64);
  append_fixed(out, wall_time);
  if (step != 0) {  // zero is what a reader assumes
    append_key(out, 2, varint);
    append_varint(out, static_cast<uint64_t>(step));
  }
  return out;
}

// Checksums of data that hold checksums are weak; TFRecord rotates and offsets them for this.
uint32_t masked_crc32c(std::string_view data) {
  return std::rotr(crc32c(data.data(), data.size()), 15) + 0xA282EAD8u;
}

double seconds_since_1970() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration<double>(now).count();
}

std::filesystem::path new_event_file(const std::filesystem::path& folder) {
  std::error_code code;
  std::filesystem::create_directories(folder, code);
  if (code) throw Error("cannot create the folder {}: {}", folder.string(), code.message());
  char host[256] = "localhost";
  if (::gethostname(host, sizeof(host) - 1) != 0) host[0] = '\0';
  return folder /
         fmt::format("events.out.tfevents.{:.6f}.{}.{}", seconds_since_1970(), host, ::getpid());
}

}  // namespace

std::string tfrecord(std::string_view payload) {
  std::string out;
  append_fixed(out, static_cast<uint64_t>(payload.size()));
  append_fixed(out, masked_crc32c(out));
  out.append(payload);
  append_fixed(out, masked_crc32c(payload));
  return out;
}

std::string encode_version_event(double wall_time) {
  std::string out = event(wall_time, 0);
  append_bytes(out, 3, "brain.Event:2");
  return out;
}

std::string encode_start_event(double wall_time, int64_t step) {
  std::string session;  // SessionLog: 1 status, of which 1 is START
  append_key(session, 1, varint);
  append_varint(session, 1);
  std::string out = event(wall_time, step);
  append_bytes(out, 7, session);
  return out;
}

std::string encode_scalars_event(double wall_time, int64_t step,
                                 std::span<const TaggedScalar> scalars) {
  std::string summary;  // Summary: 1 value, repeated
  for (const auto& [tag, number] : scalars) {
    std::string value;  // Summary.Value: 1 tag, 2 simple_value
    append_bytes(value, 1, tag);
    append_key(value, 2, fixed32);
    append_fixed(value, number);
    append_bytes(summary, 1, value);
  }
  std::string out = event(wall_time, step);
  append_bytes(out, 5, summary);
  return out;
}

TensorBoardWriter::TensorBoardWriter(const std::filesystem::path& folder, int64_t first_step)
    : file_(new_event_file(folder)) {
  const double now = seconds_since_1970();
  file_.append(tfrecord(encode_version_event(now)) + tfrecord(encode_start_event(now, first_step)));
}

void TensorBoardWriter::write(const MetricsRecord& record) {
  std::vector<TaggedScalar> scalars;
  for (const auto& [name, value] : record.values) {
    const std::string tag = record.split + "/" + name;
    if (const auto* list = std::get_if<std::vector<double>>(&value)) {
      for (size_t i = 0; i < list->size(); ++i) {
        scalars.emplace_back(fmt::format("{}/{:02}", tag, i), static_cast<float>((*list)[i]));
      }
    } else if (const auto* count = std::get_if<int64_t>(&value)) {
      scalars.emplace_back(tag, static_cast<float>(*count));
    } else {
      scalars.emplace_back(tag, static_cast<float>(std::get<double>(value)));
    }
  }
  file_.append(tfrecord(encode_scalars_event(seconds_since_1970(), record.step, scalars)));
}

}  // namespace sigtrain
