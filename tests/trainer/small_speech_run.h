// A speech run small enough for tests: letters as tones, and everything on that a resumed run must
// bring back.
#pragma once

#include <string>
#include <vector>

#include "../data/sound.h"
#include "small_run.h"

namespace sigtrain {

inline constexpr const char* kSmallSpeechConfig = R"(task: speech_recognition
run: {name: small}
model:
  seq_len: 0
  speech: {mel_bins: 16}
  layers: 2
  width: 32
  heads: 2
  attention: {kind: sigmoid, causal: false, qk_norm: true}
  norm: {kind: layernorm}
  position: {kind: cape, cape_global_shift: 5, cape_scale: 1.1}
  mlp: {kind: gelu, hidden: 64}
  linear_bias: true
  dropout: 0.1
  layer_drop: 0.2
optimizer: {learning_rate: 0.01, ema_decay: 0.9}
schedule: {warmup_steps: 2}
train: {steps: 12, micro_batch: 1, global_batch: 2}
data:
  source: speech
  train: [train.tsv]
  validation: [test.tsv]
  speech: {sample_rate: 8000, letters: "ab ", bucket_seconds: [0.8, 1.5], batch_seconds: 4}
augment:
  speech: {speed: 0.1, frequency_masks: 1, frequency_width: 3, time_masks: 1, time_width: 5}
eval: {every: 6}
checkpoint: {every: 6, keep: 3}
log: {every: 1}
)";

/// Writes small.yaml, train.tsv and test.tsv, and sounds/NUMBER.wav of 0.5 to 1.4 seconds, in which
/// "a" is a low tone and "b" a high one.
inline void write_small_speech(const fs::path& folder) {
  const std::string header = "path\tstart\tduration\ttranscript\n";
  std::string train = header, test = header;
  for (int i = 0; i < 24; ++i) {
    std::string text;
    std::vector<float> samples;
    for (int n = 0; n < 2 + i % 5; ++n) {
      const bool is_a = (i >> n) % 2 == 0;
      const auto letter = tone(0.15, is_a ? 400 : 1600, 8000), pause = tone(0.08, 100, 8000, 10);
      samples.insert(samples.end(), letter.begin(), letter.end());
      samples.insert(samples.end(), pause.begin(), pause.end());
      text += is_a ? 'a' : 'b';
    }
    const std::string name = "sounds/" + std::to_string(i) + ".wav";
    write_sound((folder / name).string(), samples, 8000);
    (i % 6 == 0 ? test : train) += name + "\t0\t0\t" + text + "\n";
  }
  spill(folder / "train.tsv", train);
  spill(folder / "test.tsv", test);
  spill(folder / "small.yaml", kSmallSpeechConfig);
}

}  // namespace sigtrain
