// Writes down what is said in recordings, by a checkpoint of speech recognition.
#include <spdlog/spdlog.h>

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "config/derived.h"
#include "config/enum_names.h"
#include "config/reader.h"
#include "core/log.h"
#include "data/letters.h"
#include "data/speech_loader.h"
#include "models/speech_encoder.h"
#include "ops/backend.h"
#include "ops/host_values.h"
#include "ops/planning_ops.h"
#include "run_tool.h"
#include "tasks/speech_recognition.h"
#include "train/snapshot.h"

namespace sigtrain {
namespace {

struct Arguments {
  std::string checkpoint;
  std::vector<std::string> recordings;
  int64_t beam_width = 0;
  std::string device = "auto";
  bool average = false;
};

/// The model of a checkpoint, for one utterance at a time.
class Transcriber {
 public:
  Transcriber(const CheckpointReader& checkpoint, const Config& config, Ops& ops, bool average)
      : config_(config),
        ops_(ops),
        letters_(config.data.speech.letters),
        filter_bank_(config.data.speech.sample_rate, config.model.speech.mel_bins),
        encoder_(table_, config.model),
        parameters_(table_, ops, {}) {
    SingleProcess alone;
    LocalCommunicator communicator(alone);
    DataParallel ranks(communicator, parameters_);
    load_weights(&checkpoint, ops, ranks, average);
  }

  std::string transcribe(const std::string& recording, int64_t beam_width) {
    const std::vector<float> features = speech_features(
        {recording, 0.0, 0.0, {}}, 1.0, config_.data.speech.sample_rate, filter_bank_);
    const auto feature_frames =
        static_cast<int64_t>(features.size()) / config_.model.speech.mel_bins;
    const int64_t frames = speech_frames(config_.model.speech, feature_frames);
    if (frames > config_.model.seq_len && config_.model.position.kind == PositionKind::rope) {
      throw Error("{}: {} frames are more than the {} that the model knows positions for",
                  recording, frames, config_.model.seq_len);
    }
    std::vector<float> positions(static_cast<size_t>(frames));
    for (size_t t = 0; t < positions.size(); ++t) positions[t] = static_cast<float>(t);
    const auto feature_length = static_cast<int32_t>(feature_frames),
               frame_length = static_cast<int32_t>(frames);

    SpokenBatch batch;
    batch.features = on_device(
        {nullptr, DType::f32, {1, feature_frames, config_.model.speech.mel_bins}}, features.data());
    batch.feature_lengths = on_device({nullptr, DType::i32, {1}}, &feature_length);
    batch.frame_lengths = on_device({nullptr, DType::i32, {1}}, &frame_length);
    batch.positions = on_device({nullptr, DType::f32, {frames}}, positions.data());
    const std::vector<float> logits = compute_logits(batch, frames);
    memory_.clear();
    return decode_speech(letters_, logits, beam_width);
  }

 private:
  Tensor on_device(Tensor tensor, const void* host) {
    memory_.push_back(ops_.allocate(tensor.bytes()));
    tensor.data = memory_.back().get();
    if (host) ops_.upload(tensor, host);
    return tensor;
  }

  /// A pass of exactly this length, planned first.
  std::vector<float> compute_logits(const SpokenBatch& batch, int64_t frames) {
    const Shape shape{frames, config_.model.vocab_size};
    const Tensor logits = on_device({nullptr, ops_.compute_dtype(), shape}, nullptr);
    const Tensor wide = on_device({nullptr, ops_.accumulate_dtype(), shape}, nullptr);
    PlanningOps planning(ops_);
    Arena counting = Arena::planning();
    encoder_.make_tables(planning);
    encoder_.transcribe({planning, counting, parameters_, 1, frames}, batch, logits);
    encoder_.make_tables(ops_);
    const DeviceMemory arena_memory = ops_.allocate(counting.peak()),
                       workspace = ops_.allocate(planning.workspace_bytes());
    ops_.set_workspace({workspace.get(),
                        DType::f32,
                        {static_cast<int64_t>(planning.workspace_bytes() / sizeof(float))}});
    Arena arena(arena_memory.get(), counting.peak());
    encoder_.transcribe({ops_, arena, parameters_, 1, frames}, batch, logits);
    ops_.copy(logits, wide);
    const std::vector<double> values = host_values(ops_, wide);
    ops_.set_workspace({});
    return {values.begin(), values.end()};
  }

  const Config& config_;
  Ops& ops_;
  Letters letters_;
  FilterBank filter_bank_;
  ParameterTable table_;
  SpeechEncoder encoder_;
  ParameterStore parameters_;
  std::vector<DeviceMemory> memory_;
};

/// Whether all recordings could be read.
bool run(const Arguments& arguments) {
  const CheckpointReader checkpoint = open_run_or_checkpoint(
      arguments.checkpoint, [](const std::string& message) { spdlog::warn("{}", message); });
  const Config config = read_config((checkpoint.path() / "config.yaml").string(), {});
  if (config.task != TaskKind::speech_recognition) {
    throw UsageError("{} holds no model of speech but one for {}", checkpoint.path().string(),
                     enum_name(config.task));
  }
  const std::unique_ptr<Ops> ops = make_backend(arguments.device);
  Transcriber transcriber(checkpoint, config, *ops, arguments.average);
  bool all_read = true;
  for (const std::string& recording : arguments.recordings) {
    try {
      const std::string text = transcriber.transcribe(recording, arguments.beam_width);
      fmt::print("{}{}\n", arguments.recordings.size() > 1 ? recording + "\t" : "", text);
    } catch (const UsageError&) {
      throw;
    } catch (const Error& error) {
      fmt::print(stderr, "{}\n", error.what());
      all_read = false;
    }
  }
  return all_read;
}

}  // namespace
}  // namespace sigtrain

int main(int argc, char** argv) {
  using namespace sigtrain;
  CLI::App app{"Writes down what is said in recordings.", "transcribe"};
  Arguments arguments;
  app.add_option("checkpoint", arguments.checkpoint,
                 "A checkpoint folder, or a run's folder (its newest checkpoint)")
      ->required();
  app.add_option("recordings", arguments.recordings,
                 "WAV, FLAC or other files; of several, each line begins with the file's name")
      ->required();
  app.add_option("--beam", arguments.beam_width,
                 "Width of the search for the likeliest text; 0: each frame's likeliest letter")
      ->capture_default_str()
      ->check(non_negative_number());
  app.add_option("--device", arguments.device, "auto, cpu or cuda")->capture_default_str();
  app.add_flag("--average", arguments.average, "Use the averaged weights (optimizer.ema_decay)");
  return run_tool(app, argc, argv, [&] { return run(arguments) ? 0 : 1; });
}
