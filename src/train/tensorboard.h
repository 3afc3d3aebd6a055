// Event files for TensorBoard, written without protobuf. Framing: TFRecord
// (tensorflow/core/lib/io/record_writer.h). Messages: Event and Summary
// (tensorflow/core/util/event.proto, tensorflow/core/framework/summary.proto).
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "core/file_io.h"
#include "train/metrics.h"

namespace sigtrain {

using TaggedScalar = std::pair<std::string, float>;

/// A TFRecord: 8 bytes length, 4 bytes masked CRC-32C of the length, the payload, 4 bytes masked
/// CRC-32C of the payload; integers little-endian.
std::string tfrecord(std::string_view payload);

/// Event messages; `wall_time` is in seconds since 1970. The version message opens a file. The
/// start message hides what earlier files of the folder hold from `step` on.
std::string encode_version_event(double wall_time);
std::string encode_start_event(double wall_time, int64_t step);
std::string encode_scalars_event(double wall_time, int64_t step,
                                 std::span<const TaggedScalar> scalars);

/// One event file in `folder`, which is created if need be. TensorBoard joins the files of a
/// resumed run by itself.
class TensorBoardWriter {
 public:
  /// `first_step` is the first that this run will write. Throws Error if the file cannot be made.
  TensorBoardWriter(const std::filesystem::path& folder, int64_t first_step);

  /// The record's numbers as scalars SPLIT/NAME; a list by layer as SPLIT/NAME/00, 01, ...
  void write(const MetricsRecord& record);

  const std::filesystem::path& path() const { return file_.path(); }

 private:
  AppendFile file_;
};

}  // namespace sigtrain
