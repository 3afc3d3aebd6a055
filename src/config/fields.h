// The one description of a run's settings: for every struct of the schema, its keys in order, each
// with its member, its meaning and its range. Reading, unknown keys, overrides, range checks,
// writing and the printed reference all follow from these tables.
#pragma once

#include <limits>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>

#include "config/schema.h"

namespace sigtrain {

/// The numbers a field may hold. All by default.
struct Range {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  bool low_included = true;
  bool high_included = true;

  constexpr bool contains(double x) const {
    return (low_included ? x >= low : x > low) && (high_included ? x <= high : x < high);
  }
};

/// "at least 1", "in [0, 1)", "greater than 0"; empty where every number is in it.
std::string range_text(const Range& range);

inline constexpr double kInfinity = std::numeric_limits<double>::infinity();
inline constexpr Range at_least(double low) { return {low, kInfinity}; }
inline constexpr Range kPositive = {0.0, kInfinity, false};
inline constexpr Range kProbability = {0.0, 1.0, true, false};  // [0, 1)
inline constexpr Range kRatio = {0.0, 1.0};                     // [0, 1]
inline constexpr Range kShare = {0.0, 1.0, false, true};        // (0, 1]
// Far above anything one trains, and low enough that the product of two sizes fits in 64 bits.
inline constexpr double kLargestSize = 1 << 24;
inline constexpr Range kSize = {1.0, kLargestSize};
inline constexpr Range kSizeOrZero = {0.0, kLargestSize};

/// One key of a section: its name, the member it fills, its meaning in a line, and its range.
template <typename Section, typename Value>
struct Field {
  std::string_view key;
  Value Section::*member;
  std::string_view doc;
  Range range;

  constexpr Field(std::string_view key, Value Section::*member, std::string_view doc,
                  Range range = {})
      : key(key), member(member), doc(doc), range(range) {}
};

/// The fields of a struct of the schema; empty for every type that is not one.
template <typename T>
inline constexpr auto kFields = std::tuple<>{};

template <>
inline constexpr auto kFields<RunConfig> = std::tuple{
    Field{"name", &RunConfig::name, "names the run in logs, and its folder"},
    Field{"dir", &RunConfig::dir, "folder of the results; runs/NAME where empty"},
};

template <>
inline constexpr auto kFields<AttentionConfig> = std::tuple{
    Field{"kind", &AttentionConfig::kind, "how logits become weights"},
    Field{"bias", &AttentionConfig::bias, "constant b added to the logits; sigmoid only"},
    Field{"learned_bias", &AttentionConfig::learned_bias,
          "b is a parameter for each head that starts at `bias`; sigmoid only"},
    Field{"scale", &AttentionConfig::scale, "factor of the logits", kPositive},
    Field{"causal", &AttentionConfig::causal, "a position attends to itself and earlier ones"},
    Field{"window", &AttentionConfig::window,
          "keys at this distance and beyond are not attended to; 0: no window", kSizeOrZero},
    Field{"qk_norm", &AttentionConfig::qk_norm,
          "normalise each head's queries and keys over the head dimension"},
};

template <>
inline constexpr auto kFields<NormConfig> = std::tuple{
    Field{"kind", &NormConfig::kind, "kind of every norm of the model"},
    Field{"structure", &NormConfig::structure,
          "pre: x + f(norm(x)); post: norm(x + f(x)); hybrid: x + norm(f(norm(x)))"},
    Field{"eps", &NormConfig::eps, "added to the mean square or the variance", kPositive},
};

template <>
inline constexpr auto kFields<PositionConfig> = std::tuple{
    Field{"kind", &PositionConfig::kind, "how the model knows positions"},
    Field{"rope_theta", &PositionConfig::rope_theta, "base of the wavelengths of rope", kPositive},
    Field{"cape_global_shift", &PositionConfig::cape_global_shift,
          "cape: training moves a sequence by up to this many positions", at_least(0)},
    Field{"cape_local_shift", &PositionConfig::cape_local_shift,
          "cape: and each of its positions by up to this", at_least(0)},
    Field{"cape_scale", &PositionConfig::cape_scale,
          "cape: and stretches all by a factor from [1/x, x]", at_least(1)},
};

template <>
inline constexpr auto kFields<MlpConfig> = std::tuple{
    Field{"kind", &MlpConfig::kind, "activation; swiglu has a gate"},
    Field{"hidden", &MlpConfig::hidden,
          "hidden size; 0: 8/3 width for swiglu, else 4 width, rounded up to a multiple of 256",
          kSizeOrZero},
};

template <>
inline constexpr auto kFields<VisionConfig> = std::tuple{
    Field{"image_size", &VisionConfig::image_size, "pixels of a side", kSize},
    Field{"channels", &VisionConfig::channels, "1: grey, 3: red, green, blue", Range{1.0, 3.0}},
    Field{"patch_size", &VisionConfig::patch_size, "pixels of a patch's side", kSize},
    Field{"classes", &VisionConfig::classes, "0: as the data says", kSizeOrZero},
    Field{"pool", &VisionConfig::pool, "what the head reads: a token of its own, or the mean"},
    Field{"frozen_patch_embedding", &VisionConfig::frozen_patch_embedding,
          "leave the patch embedding as it was drawn"},
};

template <>
inline constexpr auto kFields<SpeechConfig> = std::tuple{
    Field{"mel_bins", &SpeechConfig::mel_bins, "features of a frame", kSize},
    Field{"kernel", &SpeechConfig::kernel, "feature frames that a frame of the model sees", kSize},
    Field{"stride", &SpeechConfig::stride, "feature frames from one frame of the model to the next",
          kSize},
};

template <>
inline constexpr auto kFields<ModelConfig> = std::tuple{
    Field{"seq_len", &ModelConfig::seq_len,
          "tokens in a training sequence; of images and speech 0: as the other settings say",
          kSizeOrZero},
    Field{"vocab_size", &ModelConfig::vocab_size,
          "0: as the token shards or data.speech.letters say", kSizeOrZero},
    Field{"vision", &ModelConfig::vision, ""},
    Field{"speech", &ModelConfig::speech, ""},
    Field{"layers", &ModelConfig::layers, "blocks of attention and MLP", {1.0, 4096.0}},
    Field{"width", &ModelConfig::width, "size of the residual stream", kSize},
    Field{"heads", &ModelConfig::heads, "query heads", kSize},
    Field{"kv_heads", &ModelConfig::kv_heads, "key and value heads; 0: as many as heads",
          kSizeOrZero},
    Field{"head_dim", &ModelConfig::head_dim, "size of a head; 0: width / heads", kSizeOrZero},
    Field{"attention", &ModelConfig::attention, ""},
    Field{"norm", &ModelConfig::norm, ""},
    Field{"position", &ModelConfig::position, ""},
    Field{"mlp", &ModelConfig::mlp, ""},
    Field{"linear_bias", &ModelConfig::linear_bias, "linear layers have a bias"},
    Field{"tied_embedding", &ModelConfig::tied_embedding,
          "the output projection is the token embedding"},
    Field{"dropout", &ModelConfig::dropout, "after the embedding and on each branch", kProbability},
    Field{"stochastic_depth", &ModelConfig::stochastic_depth,
          "probability to skip the last block; rises linearly from 0 at the first", kProbability},
    Field{"layer_drop", &ModelConfig::layer_drop,
          "probability that a training step leaves a block out, for the whole batch", kProbability},
    Field{"layer_scale", &ModelConfig::layer_scale,
          "initial gamma of x + gamma f(x); 0: no LayerScale", at_least(0)},
};

template <>
inline constexpr auto kFields<LossConfig> = std::tuple{
    Field{"label_smoothing", &LossConfig::label_smoothing,
          "share of the target spread over the vocabulary", kProbability},
    Field{"z_loss", &LossConfig::z_loss, "coefficient of mean((log Z)^2)", at_least(0)},
    Field{"chunk_rows", &LossConfig::chunk_rows,
          "rows of logits held at a time; 0: the backend's choice", kSizeOrZero},
};

template <>
inline constexpr auto kFields<OptimizerConfig> = std::tuple{
    Field{"learning_rate", &OptimizerConfig::learning_rate, "at the peak of the schedule",
          kPositive},
    Field{"beta1", &OptimizerConfig::beta1, "of AdamW's first moment", kProbability},
    Field{"beta2", &OptimizerConfig::beta2, "of AdamW's second moment", kProbability},
    Field{"eps", &OptimizerConfig::eps, "added to the root of the second moment", kPositive},
    Field{"weight_decay", &OptimizerConfig::weight_decay, "share of a weight taken off each step",
          at_least(0)},
    Field{"decay_mode", &OptimizerConfig::decay_mode,
          "coupled: decay times the learning rate; decoupled: times the schedule alone"},
    Field{"decay_norms_and_biases", &OptimizerConfig::decay_norms_and_biases,
          "decay one-dimensional parameters too"},
    Field{"rate_scale", &OptimizerConfig::rate_scale,
          "mup_simple: every linear weight's update times min(mup_base_width / width, 1)"},
    Field{"mup_base_width", &OptimizerConfig::mup_base_width, "see rate_scale", kSize},
    Field{"clip_norm", &OptimizerConfig::clip_norm,
          "largest norm of the whole gradient; 0: no clipping", at_least(0)},
    Field{"ema_decay", &OptimizerConfig::ema_decay, "of the averaged weights; 0: none are kept",
          kProbability},
    Field{"layer_decay", &OptimizerConfig::layer_decay,
          "rate of a block over that of the next one (embedding first, head last)", kShare},
    Field{"shard", &OptimizerConfig::shard,
          "each rank keeps and updates its part of the optimizer's state alone"},
};

template <>
inline constexpr auto kFields<ScheduleConfig> = std::tuple{
    Field{"kind", &ScheduleConfig::kind, "shape of the learning rate after the warm-up"},
    Field{"warmup_steps", &ScheduleConfig::warmup_steps, "steps of linear rise to the peak",
          at_least(0)},
    Field{"final_ratio", &ScheduleConfig::final_ratio, "rate at the last step over the peak",
          kRatio},
    Field{"decay_fraction", &ScheduleConfig::decay_fraction,
          "wsd: share of the steps in the final linear decay", kShare},
};

template <>
inline constexpr auto kFields<TrainConfig> = std::tuple{
    Field{"steps", &TrainConfig::steps, "optimizer steps", at_least(1)},
    Field{"seed", &TrainConfig::seed, "of every random number of the run"},
    Field{"micro_batch", &TrainConfig::micro_batch,
          "sequences or images in one forward and backward; of speech 1: a batch by duration",
          kSize},
    Field{"global_batch", &TrainConfig::global_batch,
          "sequences, images or batches of speech in one optimizer step, over all ranks", kSize},
    Field{"max_bad_steps", &TrainConfig::max_bad_steps,
          "consecutive non-finite steps before the run stops", at_least(1)},
    Field{"recompute", &TrainConfig::recompute,
          "memory for time: what backward computes again instead of keeping it from forward"},
    Field{"deterministic", &TrainConfig::deterministic,
          "false: gradients of attention are added in whatever order they come, which is faster"},
    Field{"cuda_graph", &TrainConfig::cuda_graph,
          "GPU: capture a step once and replay it, which takes the host less time"},
    Field{"bucket_bytes",
          &TrainConfig::bucket_bytes,
          "gradients that ranks exchange at a time, behind backward",
          {1.0, 1 << 30}},
};

template <>
inline constexpr auto kFields<ImageDataConfig> = std::tuple{
    Field{"mean", &ImageDataConfig::mean, "of the pixels in [0, 1], by channel"},
    Field{"stddev", &ImageDataConfig::stddev, "likewise"},
    Field{"eval_resize", &ImageDataConfig::eval_resize,
          "evaluation: length of the shorter side before the centre crop; 0: as it is",
          kSizeOrZero},
    Field{"max_damaged", &ImageDataConfig::max_damaged,
          "share of the images that may be damaged before the run stops", kRatio},
};

template <>
inline constexpr auto kFields<SpeechDataConfig> = std::tuple{
    Field{"sample_rate", &SpeechDataConfig::sample_rate,
          "Hz; recordings of other rates are resampled", Range{1000.0, 192000.0}},
    Field{"letters", &SpeechDataConfig::letters, "what transcripts are written in, in lower case"},
    Field{"bucket_seconds", &SpeechDataConfig::bucket_seconds,
          "rising durations: utterances up to each are batched together, longer ones left out"},
    Field{"batch_seconds", &SpeechDataConfig::batch_seconds,
          "duration of a batch, padding included; it has one utterance at least", kPositive},
    Field{"train_max_seconds", &SpeechDataConfig::train_max_seconds,
          "longer utterances are not trained with; 0: all are", at_least(0)},
    Field{"max_damaged", &SpeechDataConfig::max_damaged,
          "share of the utterances that may be unusable before the run stops", kRatio},
};

template <>
inline constexpr auto kFields<DataConfig> = std::tuple{
    Field{"source", &DataConfig::source, "what the paths below are, or generated data"},
    Field{"train", &DataConfig::train,
          "token shards (*.tok) or folders of them; an image folder, .bin or images-idx3 files; "
          "manifests of speech (*.tsv), LibriSpeech or TED-LIUM folders"},
    Field{"validation", &DataConfig::validation, "likewise"},
    Field{"tokenizer", &DataConfig::tokenizer, "the .model file or \"bytes\"; read by generate"},
    Field{"prefetch", &DataConfig::prefetch, "steps read ahead", kSize},
    Field{"workers", &DataConfig::workers,
          "threads that make batches of images or speech; 0: one a processor, at most 16",
          Range{0.0, 1024.0}},
    Field{"image", &DataConfig::image, ""},
    Field{"speech", &DataConfig::speech, ""},
};

template <>
inline constexpr auto kFields<SpeechAugmentConfig> = std::tuple{
    Field{"speed", &SpeechAugmentConfig::speed, "each utterance at 1 - x, 1 or 1 + x its speed",
          Range{0.0, 0.5}},
    Field{"frequency_masks", &SpeechAugmentConfig::frequency_masks,
          "stretches of frequencies wiped out", kSizeOrZero},
    Field{"frequency_width", &SpeechAugmentConfig::frequency_width, "their bins, at most",
          kSizeOrZero},
    Field{"time_masks", &SpeechAugmentConfig::time_masks, "stretches of time wiped out",
          kSizeOrZero},
    Field{"time_width", &SpeechAugmentConfig::time_width, "their feature frames, at most",
          kSizeOrZero},
    Field{"time_share", &SpeechAugmentConfig::time_share,
          "share of the utterance that each wipes out, at most", kRatio},
};

template <>
inline constexpr auto kFields<AugmentConfig> = std::tuple{
    Field{"repeats", &AugmentConfig::repeats,
          "neighbouring samples that are one image, each augmented in its own way", kSize},
    Field{"crop", &AugmentConfig::crop,
          "none; pad: a window of the image with a border; resized: a random part, resized"},
    Field{"padding", &AugmentConfig::padding, "pad: pixels of border", kSizeOrZero},
    Field{"smallest_area", &AugmentConfig::smallest_area,
          "resized: smallest share of the image's area", kShare},
    Field{"flip", &AugmentConfig::flip, "left to right, half of the time"},
    Field{"randaugment_ops", &AugmentConfig::randaugment_ops,
          "operations of RandAugment on each image; 0: none", kSizeOrZero},
    Field{"randaugment_magnitude", &AugmentConfig::randaugment_magnitude, "their strength, of 30",
          Range{0.0, 30.0}},
    Field{"brightness", &AugmentConfig::brightness,
          "colour jitter: a factor from [max(0, 1 - x), 1 + x]", at_least(0)},
    Field{"contrast", &AugmentConfig::contrast, "likewise", at_least(0)},
    Field{"saturation", &AugmentConfig::saturation, "likewise", at_least(0)},
    Field{"hue", &AugmentConfig::hue, "turns by [-x, x] of the circle", Range{0.0, 0.5}},
    Field{"erasing", &AugmentConfig::erasing, "probability that a rectangle is wiped out", kRatio},
    Field{"mixup", &AugmentConfig::mixup, "alpha of the beta distribution; 0: none", at_least(0)},
    Field{"cutmix", &AugmentConfig::cutmix, "likewise; with both, each step takes one or the other",
          at_least(0)},
    Field{"speech", &AugmentConfig::speech, ""},
};

template <>
inline constexpr auto kFields<EvalConfig> = std::tuple{
    Field{"every", &EvalConfig::every, "steps between evaluations; 0: only at the end",
          at_least(0)},
    Field{"sequences", &EvalConfig::sequences,
          "at most this many validation sequences or images; 0: all", at_least(0)},
    Field{"beam_width", &EvalConfig::beam_width,
          "of the search for the words of speech; 0: each frame's likeliest letter", kSizeOrZero},
};

template <>
inline constexpr auto kFields<CheckpointConfig> = std::tuple{
    Field{"every", &CheckpointConfig::every,
          "steps between checkpoints; 0: only at the end and on a signal", at_least(0)},
    Field{"keep", &CheckpointConfig::keep, "newest checkpoints kept", at_least(1)},
};

template <>
inline constexpr auto kFields<LogConfig> = std::tuple{
    Field{"every", &LogConfig::every, "steps between lines", at_least(1)},
    Field{"diagnostics", &LogConfig::diagnostics, "norms of activations, weights and gradients"},
    Field{"tensorboard", &LogConfig::tensorboard, "also write TensorBoard events"},
    Field{"peak_tflops", &LogConfig::peak_tflops,
          "TFLOP/s of the hardware, to tell the share that is used (MFU); 0: not told",
          at_least(0)},
};

template <>
inline constexpr auto kFields<Config> = std::tuple{
    Field{"task", &Config::task, "what is learned"},
    Field{"run", &Config::run, ""},
    Field{"model", &Config::model, ""},
    Field{"loss", &Config::loss, ""},
    Field{"optimizer", &Config::optimizer, ""},
    Field{"schedule", &Config::schedule, ""},
    Field{"train", &Config::train, ""},
    Field{"data", &Config::data, ""},
    Field{"augment", &Config::augment, ""},
    Field{"eval", &Config::eval, ""},
    Field{"checkpoint", &Config::checkpoint, ""},
    Field{"log", &Config::log, ""},
};

/// True for the structs that have a table above.
template <typename T>
inline constexpr bool kIsSection =
    std::tuple_size_v<std::remove_cvref_t<decltype(kFields<std::remove_cvref_t<T>>)>> > 0;

namespace internal {

struct Anything {
  template <typename T>
  operator T() const;  // NOLINT: an aggregate's members are counted by how many of these fit
};

template <typename T, typename... Members>
constexpr size_t member_count() {
  if constexpr (requires { T{Members{}..., Anything{}}; }) {
    return member_count<T, Members..., Anything>();
  } else {
    return sizeof...(Members);
  }
}

}  // namespace internal

/// Calls visit(field, value) for every field of a section, in order. Does not go into sections
/// within it; refuses to compile for a struct whose table lacks a member.
template <typename Section, typename Visitor>
void for_each_field(Section& section, Visitor&& visit) {
  using Bare = std::remove_const_t<Section>;
  static_assert(kIsSection<Bare>);
  static_assert(std::tuple_size_v<std::remove_cvref_t<decltype(kFields<Bare>)>> ==
                    internal::member_count<Bare>(),
                "every member of the struct needs an entry in its table above");
  std::apply([&](const auto&... field) { (visit(field, section.*field.member), ...); },
             kFields<Bare>);
}

/// "a.b": the path of the key `key` in the section at `path` (empty: the top).
inline std::string join_path(std::string_view path, std::string_view key) {
  std::string joined(path);
  if (!path.empty()) joined += '.';
  return joined += key;
}

/// Calls visit(path, field, value) for every value below a section, depth first in order.
template <typename Section, typename Visitor>
void for_each_value(Section& section, Visitor&& visit, const std::string& path = "") {
  for_each_field(section, [&](const auto& field, auto& value) {
    const std::string key_path = join_path(path, field.key);
    if constexpr (kIsSection<decltype(value)>) {
      for_each_value(value, visit, key_path);
    } else {
      visit(key_path, field, value);
    }
  });
}

}  // namespace sigtrain
