#include "config/derived.h"

#include <algorithm>
#include <cmath>

namespace sigtrain {

int64_t kv_heads(const ModelConfig& model) {
  return model.kv_heads != 0 ? model.kv_heads : model.heads;
}

int64_t head_dim(const ModelConfig& model) {
  return model.head_dim != 0 ? model.head_dim : model.width / model.heads;
}

int64_t mlp_hidden(const ModelConfig& model) {
  if (model.mlp.hidden != 0) return model.mlp.hidden;
  // ceil(8/3 width / 256) in integers.
  const int64_t blocks = model.mlp.kind == MlpKind::swiglu
                             ? (8 * model.width + 3 * 256 - 1) / (3 * 256)
                             : (4 * model.width + 255) / 256;
  return blocks * 256;
}

double attention_bias(const ModelConfig& model) {
  const AttentionBias& bias = model.attention.bias;
  return bias.minus_log_seq_len ? -std::log(static_cast<double>(model.seq_len)) : bias.value;
}

double attention_scale(const ModelConfig& model) {
  return model.attention.scale.value_or(1.0 / std::sqrt(static_cast<double>(head_dim(model))));
}

int64_t image_tokens(const VisionConfig& vision) {
  const int64_t side = vision.image_size / vision.patch_size;
  return side * side + (vision.pool == ImagePool::class_token ? 1 : 0);
}

int64_t feature_frames(int64_t sample_rate, int64_t samples) {
  const int64_t window = sample_rate * 25 / 1000, shift = sample_rate * 10 / 1000;
  return samples < window ? 0 : 1 + (samples - window) / shift;
}

int64_t speech_frames(const SpeechConfig& speech, int64_t feature_frames) {
  return (feature_frames + speech.stride - 1) / speech.stride;
}

int64_t longest_feature_frames(const Config& config, double seconds) {
  const double longest = seconds / (1.0 - config.augment.speech.speed);
  const int64_t rate = config.data.speech.sample_rate;
  return std::max<int64_t>(
      1, feature_frames(rate, static_cast<int64_t>(longest * static_cast<double>(rate))));
}

int64_t speech_seq_len(const Config& config) {
  return speech_frames(config.model.speech,
                       longest_feature_frames(config, config.data.speech.bucket_seconds.back()));
}

std::string run_dir(const RunConfig& run) { return run.dir.empty() ? "runs/" + run.name : run.dir; }

}  // namespace sigtrain
