// An image run small enough for tests: colours as classes, and everything on that a resumed run
// must bring back.
#pragma once

#include "../data/image_testing.h"
#include "small_run.h"

namespace sigtrain {

inline constexpr const char* kSmallImageConfig = R"(task: image_classification
run: {name: small}
model:
  seq_len: 0
  vision: {image_size: 8, patch_size: 4, classes: 0}
  layers: 2
  width: 16
  heads: 2
  attention: {kind: sigmoid, bias: -log(seq_len), causal: false, qk_norm: true}
  norm: {kind: layernorm}
  position: {kind: learned}
  mlp: {kind: gelu, hidden: 32}
  linear_bias: true
  layer_scale: 0.1
  dropout: 0.1
  stochastic_depth: 0.2
loss: {label_smoothing: 0.1}
optimizer: {learning_rate: 0.01, ema_decay: 0.9, layer_decay: 0.8}
schedule: {warmup_steps: 2}
train: {steps: 12, micro_batch: 4, global_batch: 8}
data:
  source: image_folder
  train: [images/train]
  validation: [images/test]
  workers: 2
  image: {eval_resize: 10}
augment: {crop: resized, flip: true, randaugment_ops: 1, erasing: 0.3, mixup: 0.4, cutmix: 1.0}
eval: {every: 6}
checkpoint: {every: 4, keep: 3}
log: {every: 1}
)";

/// Writes small.yaml, 24 images for training below images/train and six for tests below
/// images/test.
inline void write_small_images(const fs::path& folder) {
  for (int i = 0; i < 30; ++i) {
    const std::string part = i % 5 == 4 ? "test" : "train";
    const fs::path path =
        folder / "images" / part / ("class" + std::to_string(i % 3)) / std::to_string(i);
    fs::create_directories(path.parent_path());
    // A class is a colour.
    Image image = smooth_image(12 + i % 4, 14, 3, 0.3 * i);
    for (size_t p = static_cast<size_t>(i % 3); p < image.pixels.size(); p += 3)
      image.pixels[p] = 250;
    spill(path.string() + (i % 2 == 0 ? ".jpg" : ".png"),
          i % 2 == 0 ? jpeg_of(image) : png_of(image));
  }
  spill(folder / "small.yaml", kSmallImageConfig);
}

}  // namespace sigtrain
