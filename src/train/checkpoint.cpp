#include "train/checkpoint.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <functional>
#include <map>
#include <system_error>

#include "core/error.h"
#include "core/file_io.h"

namespace sigtrain {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int kFormatVersion = 1;
constexpr const char* kManifestFile = "MANIFEST.json";
constexpr const char* kModelFile = "model.safetensors";
constexpr const char* kOptimizerFile = "optimizer.safetensors";
constexpr const char* kStateFile = "state.json";
constexpr const char* kConfigFile = "config.yaml";
constexpr std::array kListedFiles = {kModelFile, kOptimizerFile, kStateFile, kConfigFile};
constexpr std::string_view kStepPrefix = "step_";
constexpr std::string_view kTemporaryPrefix = "incomplete_";

using Digests = std::map<std::string, FileDigest>;

std::string manifest_text(const Digests& digests) {
  json files = json::array();
  for (const auto& [name, digest] : digests) {
    files.push_back({{"name", name},
                     {"bytes", digest.bytes},
                     {"crc32c", fmt::format("{:08x}", digest.crc32c)}});
  }
  return json{{"format_version", kFormatVersion}, {"files", std::move(files)}}.dump(2) + "\n";
}

// Reads a required field; the error names the file and the field.
template <typename T>
T field(const json& object, const char* key, const fs::path& file) {
  try {
    return object.at(key).get<T>();
  } catch (const json::exception&) {
    throw Error("{}: the field '{}' is missing or of the wrong type", file.string(), key);
  }
}

json parse_json(const fs::path& file) {
  const std::string text = read_file(file);
  json object;
  try {
    object = json::parse(text);
  } catch (const json::exception& error) {
    throw Error("{} is damaged: {}", file.string(), error.what());
  }
  if (!object.is_object()) throw Error("{} is damaged: it is not a JSON object", file.string());
  const auto version = field<int64_t>(object, "format_version", file);
  if (version != kFormatVersion) {
    throw Error("{} has format version {}; this program reads version {}", file.string(), version,
                kFormatVersion);
  }
  return object;
}

void require_file(const fs::path& folder, std::string_view name) {
  std::error_code ignored;
  if (!fs::exists(folder / name, ignored))
    throw Error("{} is not a complete checkpoint: it has no {}", folder.string(), name);
}

Digests read_manifest(const fs::path& folder) {
  const fs::path file = folder / kManifestFile;
  require_file(folder, kManifestFile);
  Digests digests;
  for (const json& entry : field<json::array_t>(parse_json(file), "files", file)) {
    FileDigest digest;
    digest.bytes = field<uint64_t>(entry, "bytes", file);
    const auto checksum = field<std::string>(entry, "crc32c", file);
    if (std::sscanf(checksum.c_str(), "%8x", &digest.crc32c) != 1) {
      throw Error("{} is altered: '{}' is not a checksum", file.string(), checksum);
    }
    digests[field<std::string>(entry, "name", file)] = digest;
  }
  for (const char* name : kListedFiles) {
    if (!digests.contains(name)) throw Error("{} is altered: no '{}'", file.string(), name);
  }
  // Covers what the fields above do not: other files, formatting, another spelling of a number.
  if (read_file(file) != manifest_text(digests) || digests.size() != kListedFiles.size()) {
    throw Error("{} is altered: it is not as it was written", file.string());
  }
  return digests;
}

void verify_sizes(const fs::path& folder, const Digests& digests) {
  for (const auto& [name, digest] : digests) {
    require_file(folder, name);
    const FileReader file(folder / name);
    if (file.bytes() == digest.bytes) continue;
    throw Error("{} is {}: expected {} bytes, found {}", file.path().string(),
                file.bytes() < digest.bytes ? "truncated" : "altered", digest.bytes, file.bytes());
  }
}

std::string state_text(const TrainingState& state) {
  const json object = {{"format_version", kFormatVersion},
                       {"step", state.step},
                       {"tokens", state.tokens},
                       {"seed", state.seed},
                       {"data_position", state.data_position},
                       {"skipped_steps", state.skipped_steps},
                       {"skipped_in_a_row", state.skipped_in_a_row},
                       {"code_version", state.code_version},
                       {"extra", state.extra}};
  return object.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

TrainingState read_state(const fs::path& file) {
  const json object = parse_json(file);
  return {.step = field<int64_t>(object, "step", file),
          .tokens = field<int64_t>(object, "tokens", file),
          .seed = field<uint64_t>(object, "seed", file),
          .data_position = field<json>(object, "data_position", file),
          .skipped_steps = field<int64_t>(object, "skipped_steps", file),
          .skipped_in_a_row = field<int64_t>(object, "skipped_in_a_row", file),
          .code_version = field<std::string>(object, "code_version", file),
          .extra = field<json>(object, "extra", file)};
}

std::vector<fs::path> list(const fs::path& folder) {
  try {
    std::vector<fs::path> paths;
    for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
      paths.push_back(entry.path());
    }
    return paths;
  } catch (const fs::filesystem_error& error) {
    throw Error("cannot list the folder {}: {}", folder.string(), error.code().message());
  }
}

// The checkpoints under `folder` by step, newest first, going by their names alone.
std::map<int64_t, fs::path, std::greater<>> list_steps(const fs::path& folder) {
  std::map<int64_t, fs::path, std::greater<>> found;
  std::error_code ignored;
  if (!fs::exists(folder, ignored)) return found;
  for (const fs::path& path : list(folder)) {
    const std::string name = path.filename().string();
    if (!name.starts_with(kStepPrefix)) continue;
    const std::string digits = name.substr(kStepPrefix.size());
    const bool numeric = !digits.empty() && digits.size() <= 18 &&
                         digits.find_first_not_of("0123456789") == std::string::npos;
    if (numeric) found[std::stoll(digits)] = path;
  }
  return found;
}

// The user may have meant one of a run, or of a run's folder of checkpoints.
void require_checkpoint_folder(const fs::path& folder) {
  std::error_code ignored;
  const bool exists = fs::is_directory(folder, ignored);
  if (exists && fs::exists(folder / kManifestFile, ignored)) return;
  std::string meant;
  for (const fs::path& place : {folder / "checkpoints", folder, folder.parent_path()}) {
    if (!meant.empty() || !fs::is_directory(place, ignored)) continue;
    const auto steps = list_steps(place);
    if (!steps.empty()) meant = fmt::format(" (did you mean {}?)", steps.begin()->second.string());
  }
  if (exists) {
    throw Error("{} is not a complete checkpoint: it has no {}{}", folder.string(), kManifestFile,
                meant);
  }
  throw Error("there is no checkpoint folder {}{}", folder.string(), meant);
}

fs::path verified(const fs::path& folder) {
  require_checkpoint_folder(folder);
  const Digests digests = read_manifest(folder);
  verify_sizes(folder, digests);
  for (const auto& [name, digest] : digests) {
    const FileReader file(folder / name);
    const FileDigest found = file.digest();
    if (found == digest) continue;
    throw Error("{} is altered: its checksum is {:08x}, not {:08x}", file.path().string(),
                found.crc32c, digest.crc32c);
  }
  return folder;
}

// Whether manifest and sizes agree: enough to count checkpoints without reading them whole.
bool looks_intact(const fs::path& checkpoint) {
  try {
    verify_sizes(checkpoint, read_manifest(checkpoint));
    return true;
  } catch (const Error&) {
    return false;
  }
}

// Housekeeping must not end a run whose checkpoint is already safe.
void remove_folder(const fs::path& path) {
  std::error_code code;
  fs::remove_all(path, code);
  if (code) spdlog::warn("cannot delete {}: {}", path.string(), code.message());
}

void remove_temporaries(const fs::path& folder) {
  for (const fs::path& path : list(folder)) {
    if (path.filename().string().starts_with(kTemporaryPrefix)) remove_folder(path);
  }
}

void remove_old(const fs::path& folder, int64_t step, int64_t keep) {
  if (keep <= 0) return;
  int64_t intact = 0;
  for (const auto& [found_step, path] : list_steps(folder)) {
    if (found_step > step) continue;
    if (intact >= keep) {
      remove_folder(path);
    } else if (looks_intact(path)) {
      ++intact;
    }
  }
}

// A free name beside `checkpoint` under which no one looks for it.
fs::path abandoned_name(const fs::path& checkpoint) {
  const std::string base = "abandoned_" + checkpoint.filename().string();
  fs::path target = checkpoint.parent_path() / base;
  for (int i = 2; fs::exists(target); ++i) {
    target.replace_filename(fmt::format("{}_{}", base, i));
  }
  return target;
}

// Gives `temporary` the name `final`; a folder that had it is left under the name `temporary`.
void move_into_place(const fs::path& temporary, const fs::path& final) {
  if (::rename(temporary.c_str(), final.c_str()) == 0) return;
  if (errno == ENOTEMPTY || errno == EEXIST) {
    if (::renameat2(AT_FDCWD, temporary.c_str(), AT_FDCWD, final.c_str(), RENAME_EXCHANGE) == 0) {
      return;
    }
    // File systems without an exchange: two moves, with a moment in which the step has no name.
    if (errno == EINVAL || errno == ENOSYS) {
      const fs::path replaced = abandoned_name(final);
      if (::rename(final.c_str(), replaced.c_str()) == 0) {
        if (::rename(temporary.c_str(), final.c_str()) == 0) return remove_folder(replaced);
        const int code = errno;
        ::rename(replaced.c_str(), final.c_str());
        errno = code;
      }
    }
  }
  throw Error("cannot rename {} to {}: {}", temporary.string(), final.string(),
              std::generic_category().message(errno));
}

}  // namespace

fs::path write_checkpoint(const fs::path& folder, const CheckpointContents& contents,
                          int64_t keep) {
  const std::string name = fmt::format("{}{:08}", kStepPrefix, contents.state.step);
  const fs::path temporary = folder / (std::string(kTemporaryPrefix) + name);
  try {
    fs::create_directories(folder);
    remove_temporaries(folder);
    fs::create_directory(temporary);
  } catch (const fs::filesystem_error& error) {
    throw Error("cannot write a checkpoint under {}: {}", folder.string(), error.code().message());
  }

  try {
    Digests digests;
    const std::map<std::string, std::string> metadata = {{"format", "pt"}};
    digests[kModelFile] = write_safetensors(temporary / kModelFile, contents.model, metadata);
    digests[kOptimizerFile] = write_safetensors(temporary / kOptimizerFile, contents.optimizer);
    digests[kStateFile] = write_file(temporary / kStateFile, state_text(contents.state));
    digests[kConfigFile] = write_file(temporary / kConfigFile, contents.config_yaml);
    write_file(temporary / kManifestFile, manifest_text(digests));
    move_into_place(temporary, folder / name);
    sync_folder(folder);
  } catch (...) {
    remove_folder(temporary);
    throw;
  }
  remove_temporaries(folder);
  remove_old(folder, contents.state.step, keep);
  return folder / name;
}

CheckpointReader::CheckpointReader(const fs::path& path)
    : path_(verified(path)),
      state_(read_state(path / kStateFile)),
      config_yaml_(read_file(path / kConfigFile)),
      model_(path / kModelFile),
      optimizer_(path / kOptimizerFile) {}

CheckpointReader open_checkpoint(const fs::path& path) { return CheckpointReader(path); }

std::optional<CheckpointReader> find_resumable(
    const fs::path& folder, const std::function<void(const std::string&)>& warn) {
  const auto steps = list_steps(folder);
  for (const auto& [step, path] : steps) {
    try {
      return open_checkpoint(path);
    } catch (const Error& error) {
      warn(fmt::format("passing over the checkpoint {}: {}", path.filename().string(),
                       error.what()));
    }
  }
  if (steps.empty()) return std::nullopt;
  throw Error(
      "none of the {} checkpoints under {} is intact: put back a copy of one, or start afresh "
      "without them",
      steps.size(), folder.string());
}

CheckpointReader open_run_or_checkpoint(const fs::path& path,
                                        const std::function<void(const std::string&)>& warn) {
  if (fs::exists(path / "checkpoints")) {
    if (auto newest = find_resumable(path / "checkpoints", warn)) return std::move(*newest);
  }
  return open_checkpoint(path);
}

std::vector<fs::path> set_aside_after(const fs::path& folder, int64_t step) {
  std::vector<fs::path> moved;
  for (const auto& [found_step, path] : list_steps(folder)) {
    if (found_step <= step) continue;
    const fs::path target = abandoned_name(path);
    std::error_code code;
    fs::rename(path, target, code);
    if (code) throw Error("cannot rename {}: {}", path.string(), code.message());
    moved.push_back(target);
  }
  if (!moved.empty()) sync_folder(folder);
  return moved;
}

}  // namespace sigtrain
