#include "core/safetensors.h"

#include <algorithm>
#include <bit>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <set>

#include "core/error.h"

namespace sigtrain {
namespace {

using nlohmann::json;

static_assert(std::endian::native == std::endian::little, "safetensors files are little-endian");

constexpr std::string_view kMetadataKey = "__metadata__";
// The limit of the reference implementation; a header of this size names a million tensors.
constexpr uint64_t kMaxHeaderBytes = 100'000'000;

struct DTypeName {
  DType dtype;
  std::string_view name;
};
constexpr DTypeName kDTypeNames[] = {
    {DType::f64, "F64"}, {DType::f32, "F32"}, {DType::bf16, "BF16"}, {DType::i32, "I32"},
    {DType::i64, "I64"}, {DType::u64, "U64"}, {DType::u8, "U8"}};

std::string_view file_name_of(DType dtype) {
  for (const DTypeName& entry : kDTypeNames) {
    if (entry.dtype == dtype) return entry.name;
  }
  throw Error("no safetensors dtype for {}", name_of(dtype));
}

Shape shape_from(std::span<const int64_t> dims) {
  switch (dims.size()) {
    case 0:
      return {};
    case 1:
      return {dims[0]};
    case 2:
      return {dims[0], dims[1]};
    case 3:
      return {dims[0], dims[1], dims[2]};
    default:
      return {dims[0], dims[1], dims[2], dims[3]};
  }
}

// A header field that must be a list of non-negative integers below 2^63.
std::vector<int64_t> integers(const json& info, const char* key) {
  const auto found = info.find(key);
  if (found == info.end() || !found->is_array()) throw Error("'{}' is not a list", key);
  std::vector<int64_t> values;
  for (const json& value : *found) {
    if (!value.is_number_unsigned() || value.get<uint64_t>() > INT64_MAX) {
      throw Error("'{}' holds {}, which is not a size", key, value.dump());
    }
    values.push_back(value.get<int64_t>());
  }
  return values;
}

// One tensor of the header; offsets are relative to the data here. Errors are without file and
// name.
SafetensorsEntry parse_entry(const std::string& name, const json& info) {
  if (!info.is_object()) throw Error("its description is not a JSON object");
  SafetensorsEntry entry;
  entry.name = name;

  const auto dtype = info.find("dtype");
  if (dtype == info.end() || !dtype->is_string()) throw Error("it has no dtype");
  for (const DTypeName& known : kDTypeNames) {
    if (known.name == dtype->get_ref<const std::string&>()) entry.dtype = known.dtype;
  }
  if (entry.dtype == DType::none) {
    throw Error("dtype {} is not supported (F64, F32, BF16, I32, I64 and U64 are)", dtype->dump());
  }

  const std::vector<int64_t> dims = integers(info, "shape");
  if (dims.size() > Shape::max_rank) {
    throw Error("it has {} dimensions; at most {} are supported", dims.size(),
                static_cast<int>(Shape::max_rank));
  }
  int64_t bytes = static_cast<int64_t>(size_of(entry.dtype));
  for (const int64_t extent : dims) {
    if (__builtin_mul_overflow(bytes, extent, &bytes)) throw Error("its shape is too large");
  }
  entry.shape = shape_from(dims);

  const std::vector<int64_t> offsets = integers(info, "data_offsets");
  if (offsets.size() != 2 || offsets[0] > offsets[1]) {
    throw Error("'data_offsets' is not a begin and an end");
  }
  entry.offset = static_cast<uint64_t>(offsets[0]);
  entry.bytes = static_cast<uint64_t>(offsets[1] - offsets[0]);
  if (entry.bytes != static_cast<uint64_t>(bytes)) {
    throw Error("{} {} takes {} bytes, but 'data_offsets' gives it {}", file_name_of(entry.dtype),
                entry.shape.to_string(), bytes, entry.bytes);
  }
  return entry;
}

json parse_header(const std::string& text) {
  // The parser would silently keep the last of two equal names.
  std::set<std::string> names;
  const auto check_key = [&](int depth, json::parse_event_t event, json& parsed) {
    if (event == json::parse_event_t::key && depth == 1) {
      const auto& name = parsed.get_ref<const std::string&>();
      if (!names.insert(name).second) throw Error("the header names '{}' twice", name);
    }
    return true;
  };
  try {
    json header = json::parse(text, check_key);
    if (!header.is_object()) throw Error("the header is not a JSON object");
    return header;
  } catch (const json::exception& error) {
    throw Error("the header is not valid JSON: {}", error.what());
  }
}

}  // namespace

FileDigest write_safetensors(const std::filesystem::path& path,
                             std::span<const NamedTensor> tensors,
                             const std::map<std::string, std::string>& metadata) {
  std::vector<size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return size_of(tensors[a].tensor.dtype) > size_of(tensors[b].tensor.dtype);
  });

  json header = json::object();
  if (!metadata.empty()) header[std::string(kMetadataKey)] = metadata;
  uint64_t offset = 0;
  for (const size_t i : order) {
    const auto& [name, tensor] = tensors[i];
    if (header.contains(name) || name == kMetadataKey) {
      throw Error("cannot write {}: the tensor name '{}' is {}", path.string(), name,
                  name == kMetadataKey ? "reserved by the format" : "used twice");
    }
    if (!tensor || (tensor.data == nullptr && tensor.bytes() > 0)) {
      throw Error("cannot write {}: the tensor '{}' has no data", path.string(), name);
    }
    json shape = json::array();
    for (int axis = 0; axis < tensor.shape.rank(); ++axis) shape.push_back(tensor.shape[axis]);
    header[name] = {{"dtype", file_name_of(tensor.dtype)},
                    {"shape", std::move(shape)},
                    {"data_offsets", {offset, offset + tensor.bytes()}}};
    offset += tensor.bytes();
  }

  std::string text;
  try {
    text = header.dump();
  } catch (const json::exception& error) {
    throw Error("cannot write {}: a name or a metadata value is not UTF-8 ({})", path.string(),
                error.what());
  }
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t header_bytes = text.size();

  AtomicFile file(path);
  file.write(&header_bytes, sizeof(header_bytes));
  file.write(text);
  for (const size_t i : order) file.write(tensors[i].tensor.data, tensors[i].tensor.bytes());
  return file.commit();
}

SafetensorsReader::SafetensorsReader(const std::filesystem::path& path) : file_(path) {
  const std::string name = path.string();
  if (file_.bytes() < 8) {
    throw Error(
        "{} is not a safetensors file: it has {} bytes, fewer than the 8 of the header "
        "length",
        name, file_.bytes());
  }
  uint64_t header_bytes = 0;
  file_.read(0, &header_bytes, sizeof(header_bytes));
  if (header_bytes > kMaxHeaderBytes) {
    throw Error("{} is not a safetensors file: its header length is {}, over the limit of {}", name,
                header_bytes, kMaxHeaderBytes);
  }
  if (file_.bytes() < 8 + header_bytes) {
    throw Error("{} is truncated in its header: expected {} bytes, found {}", name,
                8 + header_bytes, file_.bytes());
  }
  std::string text(header_bytes, '\0');
  file_.read(8, text.data(), text.size());

  json header;
  try {
    header = parse_header(text);
  } catch (const Error& error) {
    throw Error("{}: {}", name, error.what());
  }
  for (const auto& [key, info] : header.items()) {
    if (key == kMetadataKey) {
      if (!info.is_object()) throw Error("{}: __metadata__ is not a JSON object", name);
      for (const auto& [field, value] : info.items()) {
        if (!value.is_string()) {
          throw Error("{}: __metadata__ '{}' is not a string", name, field);
        }
        metadata_[field] = value.get<std::string>();
      }
      continue;
    }
    try {
      entries_.push_back(parse_entry(key, info));
    } catch (const Error& error) {
      throw Error("{}: tensor '{}': {}", name, key, error.what());
    }
  }

  std::sort(entries_.begin(), entries_.end(), [](const auto& a, const auto& b) {
    return std::pair(a.offset, a.bytes) < std::pair(b.offset, b.bytes);
  });
  uint64_t end = 0;
  const std::string* before = nullptr;
  for (SafetensorsEntry& entry : entries_) {
    if (entry.offset != end) {
      throw Error("{}: tensor '{}' begins at byte {} of the data, {} ({} ends at {})", name,
                  entry.name, entry.offset,
                  entry.offset < end ? "which overlaps the one before" : "which leaves a gap",
                  before ? "'" + *before + "'" : "the header", end);
    }
    end = entry.offset + entry.bytes;
    before = &entry.name;
    entry.offset += 8 + header_bytes;
  }
  const uint64_t expected = 8 + header_bytes + end;
  if (file_.bytes() != expected) {
    throw Error("{} is {}: expected {} bytes, found {}", name,
                file_.bytes() < expected ? "truncated" : "longer than its header says", expected,
                file_.bytes());
  }
  for (size_t i = 0; i < entries_.size(); ++i) index_.emplace(entries_[i].name, i);
}

const SafetensorsEntry* SafetensorsReader::find(std::string_view name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &entries_[found->second];
}

void SafetensorsReader::read(std::string_view name, const Tensor& destination) const {
  const SafetensorsEntry* entry = find(name);
  if (entry == nullptr) throw Error("{} has no tensor '{}'", path().string(), name);
  if (entry->dtype != destination.dtype || entry->shape != destination.shape) {
    throw Error("{}: tensor '{}' is {} {}, not {} {}", path().string(), name, name_of(entry->dtype),
                entry->shape.to_string(), name_of(destination.dtype),
                destination.shape.to_string());
  }
  file_.read(entry->offset, destination.data, entry->bytes);
}

void load_tensors(const SafetensorsReader& reader, std::span<const NamedTensor> tensors) {
  std::string problems;
  std::set<std::string_view> wanted;
  for (const auto& [name, tensor] : tensors) {
    wanted.insert(name);
    const SafetensorsEntry* entry = reader.find(name);
    if (entry == nullptr) {
      problems += fmt::format("\n  missing: {}", name);
    } else if (entry->dtype != tensor.dtype || entry->shape != tensor.shape) {
      problems += fmt::format("\n  different: {} is {} {} in the file, {} {} in the model", name,
                              name_of(entry->dtype), entry->shape.to_string(),
                              name_of(tensor.dtype), tensor.shape.to_string());
    }
  }
  for (const SafetensorsEntry& entry : reader.entries()) {
    if (!wanted.contains(entry.name)) problems += fmt::format("\n  unexpected: {}", entry.name);
  }
  if (!problems.empty()) {
    throw Error("{} does not fit this model:{}", reader.path().string(), problems);
  }
  for (const auto& [name, tensor] : tensors) reader.read(name, tensor);
}

}  // namespace sigtrain
