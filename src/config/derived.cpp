#include "config/derived.h"

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

std::string run_dir(const RunConfig& run) { return run.dir.empty() ? "runs/" + run.name : run.dir; }

}  // namespace sigtrain
