// Checkpoints: folders CHECKPOINTS/step_00001000 that are whole or not there.
//
//   model.safetensors      weights by their PyTorch-style names
//   optimizer.safetensors  adam.m.NAME, adam.v.NAME; where kept, ema.NAME and master.NAME
//   state.json             TrainingState
//   config.yaml            the resolved config
//   MANIFEST.json          size and CRC-32C of each of the above
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "core/safetensors.h"

namespace sigtrain {

/// Everything a run needs besides tensors to go on as if it had not stopped.
struct TrainingState {
  int64_t step = 0;    // optimizer steps done
  int64_t tokens = 0;  // seen so far
  uint64_t seed = 0;
  nlohmann::json data_position = nlohmann::json::object();  // as the data loader describes it
  int64_t skipped_steps = 0;  // with a loss or gradient that was not finite
  int64_t skipped_in_a_row = 0;
  std::string code_version;
  nlohmann::json extra = nlohmann::json::object();  // free-form
};

/// What to write. The tensors borrow host memory.
struct CheckpointContents {
  std::vector<NamedTensor> model;
  std::vector<NamedTensor> optimizer;
  TrainingState state;
  std::string config_yaml;
};

/// Writes folder/step_N for N = contents.state.step, and returns its path. All files are written
/// and synced under a temporary name first; a complete checkpoint of the same step is replaced in
/// one move. Then the oldest are deleted: of those up to step N, the last `keep` intact ones stay
/// (0: all), later steps are not touched. Temporary folders that a killed run left behind are
/// removed. If anything cannot be written, throws Error and the earlier checkpoints are as before.
std::filesystem::path write_checkpoint(const std::filesystem::path& folder,
                                       const CheckpointContents& contents, int64_t keep);

/// An opened checkpoint, every byte of which has been verified. Load the tensors with
/// load_tensors() of core/safetensors.h, into views of the caller.
class CheckpointReader {
 public:
  const std::filesystem::path& path() const { return path_; }
  const TrainingState& state() const { return state_; }
  const std::string& config_yaml() const { return config_yaml_; }
  const SafetensorsReader& model() const { return model_; }
  const SafetensorsReader& optimizer() const { return optimizer_; }

 private:
  friend CheckpointReader open_checkpoint(const std::filesystem::path& path);
  explicit CheckpointReader(const std::filesystem::path& path);

  std::filesystem::path path_;
  TrainingState state_;
  std::string config_yaml_;
  SafetensorsReader model_, optimizer_;
};

/// Opens the checkpoint folder `path` (.../step_N). Throws Error naming the file that is missing,
/// truncated or altered, or that was written by a later version of this program.
CheckpointReader open_checkpoint(const std::filesystem::path& path);

/// The checkpoint to go on from under `folder`: the newest that opens. Each newer one that does not
/// is reported to `warn` with the reason. Empty if there are none; throws Error if there are but
/// none opens, since whoever asks to go on should not lose that work unnoticed.
std::optional<CheckpointReader> find_resumable(const std::filesystem::path& folder,
                                               const std::function<void(const std::string&)>& warn);

/// Opens the checkpoint folder `path`; of a run's folder, the one that find_resumable() gives.
CheckpointReader open_run_or_checkpoint(const std::filesystem::path& path,
                                        const std::function<void(const std::string&)>& warn);

/// For a run that goes on from an older step: renames the checkpoints after `step` to
/// abandoned_step_N, so that find_resumable() does not return to them. Returns the new paths.
std::vector<std::filesystem::path> set_aside_after(const std::filesystem::path& folder,
                                                   int64_t step);

}  // namespace sigtrain
