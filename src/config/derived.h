// Values that follow from a config: what 0, `-log(seq_len)` and absent settings stand for.
#pragma once

#include <cstdint>
#include <string>

#include "config/schema.h"

namespace sigtrain {

/// Key and value heads: kv_heads, or as many as heads.
int64_t kv_heads(const ModelConfig& model);

/// Size of a head: head_dim, or width / heads.
int64_t head_dim(const ModelConfig& model);

/// Hidden size of the MLP: mlp.hidden, or 8/3 width for swiglu (which has three matrices to the
/// others' two, so that the parameters stay equal) and 4 width else, rounded up to a multiple of
/// 256.
int64_t mlp_hidden(const ModelConfig& model);

/// The constant b of the attention logits, -ln(seq_len) where the config says so: then every
/// sigmoid weight is about 1/seq_len at initialisation (arXiv 2409.04431, section 4).
double attention_bias(const ModelConfig& model);

/// The factor of the attention logits: attention.scale, or 1/sqrt(head_dim).
double attention_scale(const ModelConfig& model);

/// Tokens of an image: its patches and, where one is pooled, the class token.
int64_t image_tokens(const VisionConfig& vision);

/// Frames of 25 ms, one every 10 ms, that fit as a whole into so many samples.
int64_t feature_frames(int64_t sample_rate, int64_t samples);

/// Frames that the model makes of so many feature frames.
int64_t speech_frames(const SpeechConfig& speech, int64_t feature_frames);

/// Feature frames of an utterance of this duration at the slowest speed that training gives it.
int64_t longest_feature_frames(const Config& config, double seconds);

/// The model's frames of the longest utterances that data.speech.bucket_seconds lets in.
int64_t speech_seq_len(const Config& config);

/// The folder of the run's results: dir, or runs/NAME.
std::string run_dir(const RunConfig& run);

}  // namespace sigtrain
