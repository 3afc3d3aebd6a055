// Everything a run is told, as plain structs. config/reader.h fills them from YAML; the names are
// the YAML keys. Defaults here are the defaults of the program. Sizes are in elements, rates per
// step, probabilities in [0, 1).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace sigtrain {

/// What is learned, and so which sections of the config a run reads.
enum class TaskKind : uint8_t { language_modeling, image_classification, speech_recognition };
enum class AttentionKind : uint8_t { sigmoid, softmax };
enum class NormKind : uint8_t { rmsnorm, layernorm };
/// pre: x + f(norm(x)); post: norm(x + f(x)); hybrid: x + norm(f(norm(x))).
enum class NormStructure : uint8_t { pre, post, hybrid };
/// cape: sincos at positions that training shifts and scales (Likhomanenko et al. 2021); of speech.
enum class PositionKind : uint8_t { none, rope, alibi, learned, sincos, cape };
enum class MlpKind : uint8_t { gelu, relu2, swiglu };
enum class DecayMode : uint8_t { coupled, decoupled };
enum class RateScale : uint8_t { none, mup_simple };
enum class ScheduleKind : uint8_t { constant, linear, cosine, wsd };
/// What backward finds of a block's forward, and what it computes again. none: everything is kept;
/// norms_and_activations: outputs of norms and activations are not; block: only its input is.
enum class Recompute : uint8_t { none, norms_and_activations, block };
enum class DataSource : uint8_t { text, synthetic, image_folder, cifar10, idx, speech };
/// What stands for the whole image behind the last norm: the class token, or the mean of all
/// patches (there is no class token then).
enum class ImagePool : uint8_t { class_token, mean };
/// How a training image gets the model's size. none: it has it; pad: a random window of the image
/// with a border of zeros; resized: a random part of random shape, resized (Szegedy et al. 2015).
enum class CropKind : uint8_t { none, pad, resized };

/// The additive constant b of the attention logits: a number, or -log(seq_len).
struct AttentionBias {
  bool minus_log_seq_len = false;
  double value = 0.0;
};

struct AttentionConfig {
  AttentionKind kind = AttentionKind::sigmoid;
  AttentionBias bias;           // `bias: -10.0` or `bias: -log(seq_len)`
  bool learned_bias = false;    // b becomes a parameter for each head, starting at `bias`
  std::optional<double> scale;  // of the logits; absent or `1/sqrt(head_dim)`: that
  bool causal = true;
  int64_t window = 0;  // keys at distance >= window are not attended to; 0: no window
  bool qk_norm = false;
};

struct NormConfig {
  NormKind kind = NormKind::rmsnorm;
  NormStructure structure = NormStructure::pre;
  double eps = 1e-5;
};

struct PositionConfig {
  PositionKind kind = PositionKind::rope;
  double rope_theta = 10000.0;
  double cape_global_shift = 0.0;  // the whole sequence is moved by up to this many positions
  double cape_local_shift = 0.0;   // and each position by up to this
  double cape_scale = 1.0;         // and all are stretched by a factor from [1/x, x]
};

struct MlpConfig {
  MlpKind kind = MlpKind::swiglu;
  int64_t hidden =
      0;  // 0: 8/3 width for swiglu and 4 width otherwise, rounded up to a multiple of 256
};

/// How images become tokens and tokens a class.
struct VisionConfig {
  int64_t image_size = 224;  // pixels of a side
  int64_t channels = 3;
  int64_t patch_size = 16;
  int64_t classes = 0;  // 0: as the data says
  ImagePool pool = ImagePool::class_token;
  bool frozen_patch_embedding = false;
};

/// How features become the model's frames: a convolution over time and a gated linear unit.
struct SpeechConfig {
  int64_t mel_bins = 80;
  int64_t kernel = 7;  // feature frames
  int64_t stride = 3;
};

struct ModelConfig {
  int64_t seq_len = 256;
  int64_t vocab_size = 0;
  VisionConfig vision;
  SpeechConfig speech;
  int64_t layers = 4;
  int64_t width = 256;
  int64_t heads = 4;
  int64_t kv_heads = 0;  // 0: as many as heads
  int64_t head_dim = 0;  // 0: width / heads
  AttentionConfig attention;
  NormConfig norm;
  PositionConfig position;
  MlpConfig mlp;
  bool linear_bias = false;
  bool tied_embedding = true;
  double dropout = 0.0;           // after the embedding and on each branch
  double stochastic_depth = 0.0;  // of the last block; rises linearly from 0 at the first
  double layer_drop = 0.0;        // that a training step leaves a block out, for the whole batch
  double layer_scale = 0.0;       // initial gamma; 0: no LayerScale
};

struct LossConfig {
  double label_smoothing = 0.0;
  double z_loss = 0.0;     // coefficient of mean(log Z squared)
  int64_t chunk_rows = 0;  // rows of logits held at a time; 0: the backend's choice
};

struct OptimizerConfig {
  double learning_rate = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.1;
  DecayMode decay_mode = DecayMode::coupled;  // coupled: decay times the learning rate; decoupled:
                                              // times the schedule alone
  bool decay_norms_and_biases = false;
  RateScale rate_scale =
      RateScale::none;  // mup_simple: min(mup_base_width / width, 1) on every linear weight
  int64_t mup_base_width = 768;
  double clip_norm = 1.0;    // of the global gradient; 0: no clipping
  double ema_decay = 0.0;    // of the averaged weights; 0: none kept
  double layer_decay = 1.0;  // rate of a group of layers over that of the group behind it
  bool shard = false;        // each rank keeps and updates its part of the optimizer's state alone
};

struct ScheduleConfig {
  ScheduleKind kind = ScheduleKind::cosine;
  int64_t warmup_steps = 100;
  double final_ratio = 0.1;     // rate at the last step over the peak
  double decay_fraction = 0.2;  // wsd: share of the steps in the final linear decay
};

struct TrainConfig {
  int64_t steps = 1000;
  uint64_t seed = 1;
  int64_t micro_batch = 8;     // sequences in one forward and backward
  int64_t global_batch = 8;    // sequences in one optimizer step, over all ranks
  int64_t max_bad_steps = 10;  // consecutive non-finite steps before the run stops
  Recompute recompute = Recompute::none;
  bool deterministic = true;  // the same bits every time, at some cost on a GPU
  bool cuda_graph = false;    // steps are captured once and replayed; the CPU goes on without
  int64_t bucket_bytes = int64_t{1} << 26;  // gradients that ranks exchange at a time
};

/// Of images as the model gets them: (value / 255 - mean) / stddev, by channel.
struct ImageDataConfig {
  std::vector<double> mean = {0.485, 0.456, 0.406};
  std::vector<double> stddev = {0.229, 0.224, 0.225};
  int64_t eval_resize = 0;  // shorter side before the centre crop; 0: images have the model's size
  double max_damaged = 0.01;  // share of the images that may be unreadable
};

/// Utterances, and how they are put into batches of about equal duration.
struct SpeechDataConfig {
  int64_t sample_rate = 16000;  // Hz; recordings of other rates are resampled
  std::string letters = "abcdefghijklmnopqrstuvwxyz' ";
  std::vector<double> bucket_seconds = {5.0, 10.0, 15.0, 20.0, 36.0};
  double batch_seconds = 120.0;    // of a batch, padding included; at least one utterance
  double train_max_seconds = 0.0;  // longer utterances are not trained with; 0: all are
  double max_damaged = 0.01;       // share of the utterances that may be unusable
};

struct DataConfig {
  DataSource source = DataSource::text;
  std::vector<std::string> train;       // token shards (*.tok), or folders of them; image sets
  std::vector<std::string> validation;  // likewise
  std::string tokenizer;                // the .model file, or "bytes"; read by generate
  int64_t prefetch = 4;                 // steps read ahead
  int64_t workers = 0;  // threads that make batches of images; 0: one a processor, at most 16
  ImageDataConfig image;
  SpeechDataConfig speech;
};

/// What training utterances go through: a change of speed, and SpecAugment (Park et al. 2019).
struct SpeechAugmentConfig {
  double speed = 0.0;  // factors 1 - x, 1 and 1 + x
  int64_t frequency_masks = 0;
  int64_t frequency_width = 27;  // bins, at most
  int64_t time_masks = 0;
  int64_t time_width = 100;  // feature frames, at most
  double time_share = 1.0;   // of the utterance, at most
};

/// What training images go through, in this order; and utterances.
struct AugmentConfig {
  int64_t repeats = 1;  // neighbouring samples that are one image, each augmented in its own way
  CropKind crop = CropKind::none;
  int64_t padding = 4;                // pad: pixels of border
  double smallest_area = 0.08;        // resized: smallest share of the image's area
  bool flip = false;                  // left to right, half of the time
  int64_t randaugment_ops = 0;        // operations on each image (Cubuk et al. 2020); 0: none
  int64_t randaugment_magnitude = 9;  // of 30
  double brightness = 0.0;            // colour jitter: factors from [max(0, 1 - x), 1 + x]
  double contrast = 0.0;
  double saturation = 0.0;
  double hue = 0.0;      // turns by [-x, x] of the circle
  double erasing = 0.0;  // probability that a rectangle is wiped out (Zhong et al. 2020)
  double mixup = 0.0;    // alpha of the beta distribution (Zhang et al. 2018); 0: none
  double cutmix = 0.0;   // likewise (Yun et al. 2019); with both, a micro-batch takes either
  SpeechAugmentConfig speech;
};

struct EvalConfig {
  int64_t every = 100;    // steps; 0: only at the end
  int64_t sequences = 0;  // at most this many validation sequences; 0: all
  int64_t beam_width =
      0;  // of the search for the words of speech; 0: each frame's likeliest letter
};

struct CheckpointConfig {
  int64_t every = 1000;  // steps; 0: only at the end and on a signal
  int64_t keep = 3;
};

struct LogConfig {
  int64_t every = 10;
  bool diagnostics = true;
  bool tensorboard = true;
  double peak_tflops = 0.0;  // of the hardware, for the MFU; 0: unknown
};

struct RunConfig {
  std::string name;
  std::string dir;  // empty: runs/NAME
};

struct Config {
  TaskKind task = TaskKind::language_modeling;
  RunConfig run;
  ModelConfig model;
  LossConfig loss;
  OptimizerConfig optimizer;
  ScheduleConfig schedule;
  TrainConfig train;
  DataConfig data;
  AugmentConfig augment;
  EvalConfig eval;
  CheckpointConfig checkpoint;
  LogConfig log;
};

}  // namespace sigtrain
