// Vision transformer (Dosovitskiy et al. 2021): patch embedding, class token or mean pooling,
// positions, blocks, classification head.
#pragma once

#include <optional>

#include "config/schema.h"
#include "models/block_stack.h"
#include "nn/context.h"
#include "nn/linear.h"

namespace sigtrain {

/// The images of a micro-batch and what they show.
struct LabelledImages {
  Tensor images;   // u8 [batch, image_size, image_size, channels]
  Tensor labels;   // i32 [batch]; negative: the image counts for nothing
  Tensor targets;  // optional [batch, classes], accumulate_dtype: what is learned instead
};

class VisionTransformer {
 public:
  /// Registers every parameter, in forward order. config.seq_len is image_tokens(config.vision),
  /// config.vision.classes is set. `image` has one mean and stddev a channel.
  VisionTransformer(ParameterTable& table, const ModelConfig& config, const ImageDataConfig& image);

  /// Tables in the backend's memory, owned by the model; call once before any pass. A planning
  /// backend gets the shapes alone.
  void make_tables(Ops& ops);

  /// Forward and backward of one micro-batch of context.batch images, context.seq_len being that of
  /// the model: adds its loss to sums [class_sum_slots], and to the gradients of context.parameters
  /// those of the summed objective times gradient_scale.
  void train(const Context& context, const LabelledImages& batch, double gradient_scale,
             const Tensor& sums) const;
  /// Forward alone, block by block in the same memory.
  void evaluate(const Context& context, const LabelledImages& batch, const Tensor& sums) const;
  /// Forward alone -> logits [batch, classes].
  void classify(const Context& context, const Tensor& images, const Tensor& logits) const;

  const ModelConfig& config() const { return config_; }

 private:
  struct Pass {
    Tensor patches;  // [batch patches, channels patch_size^2]
    BlockStack::Pass stack;
    Tensor pooled;  // [batch, C]
  };

  int64_t patches() const;
  /// From pixels to the pooled row of each image.
  void forward(const Context& context, const Tensor& images, Pass& pass) const;
  void backward(const Context& context, const Tensor& d_logits, Pass& pass) const;
  /// Rows [rows, C] as the sequences [batch, tokens, C] they are.
  Tensor as_sequences(const Context& context, const Tensor& rows) const;

  ModelConfig config_;
  ImageDataConfig image_;
  std::optional<Linear> patch_embedding_, head_;
  ParameterId class_token_ = kNoParameter, positions_ = kNoParameter;
  std::optional<BlockStack> stack_;
  DeviceMemory sincos_memory_, factors_memory_, offsets_memory_;
  Tensor sincos_;             // [T, C]
  Tensor factors_, offsets_;  // [channels]: of bytes to normalised values
};

}  // namespace sigtrain
