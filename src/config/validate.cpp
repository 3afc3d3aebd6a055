#include "config/validate.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <optional>
#include <utility>

#include "config/derived.h"
#include "config/enum_names.h"
#include "config/fields.h"
#include "config/problem.h"
#include "config/value_text.h"

namespace sigtrain {
namespace {

class Checker {
 public:
  Checker(const Config& config, const std::set<std::string>& unusable)
      : config_(config), unusable_(unusable) {}

  std::vector<Impossible> check() {
    check_ranges();
    check_run();
    check_heads();
    check_attention();
    check_steps();
    check_data();
    switch (config_.task) {
      case TaskKind::language_modeling:
        check_tokens();
        break;
      case TaskKind::image_classification:
        check_vision();
        check_image_data();
        break;
      case TaskKind::speech_recognition:
        check_speech_data();
        check_speech();
        break;
    }
    if (config_.task != TaskKind::image_classification) forbid_image_settings();
    if (config_.task != TaskKind::speech_recognition) forbid_speech_settings();
    return std::move(found_);
  }

 private:
  using Keys = std::vector<std::string>;

  bool is_usable(const std::string& key) const {
    for (size_t end = 0; end != std::string::npos;) {
      end = key.find('.', end + 1);
      if (unusable_.count(key.substr(0, end)) > 0) return false;
    }
    return true;
  }

  void reject(Keys keys, std::string message) {
    unusable_.insert(keys[0]);
    found_.push_back({std::move(keys), std::move(message)});
  }

  // Rejects the first of `keys` where they are all usable and `broken()` holds: only then does it
  // run, so a rule may rely on the ranges of its own keys.
  template <typename Broken>
  void forbid(Keys keys, Broken broken, std::string_view message) {
    const auto usable = [this](const std::string& key) { return is_usable(key); };
    if (!std::all_of(keys.begin(), keys.end(), usable) || !broken()) return;
    reject(std::move(keys), std::string(message));
  }

  void check_ranges() {
    for_each_value(config_, [this](const std::string& path, const auto& field, const auto& value) {
      using T = std::remove_cvref_t<decltype(value)>;
      std::optional<double> number;
      if constexpr (std::is_same_v<T, AttentionBias>) {
        number = value.value;
      } else if constexpr (std::is_same_v<T, std::optional<double>>) {
        number = value;
      } else if constexpr (std::is_arithmetic_v<T> && !std::is_same_v<T, bool>) {
        number = static_cast<double>(value);
      }
      if (!number || !is_usable(path)) return;
      if (!std::isfinite(*number)) {
        reject({path}, fmt::format("must be a finite number, is {}", value_text(*number)));
      } else if (!field.range.contains(*number)) {
        reject({path},
               fmt::format("must be {}, is {}", range_text(field.range), value_text(*number)));
      }
    });
  }

  void check_run() {
    const std::string& name = config_.run.name;
    forbid(
        {"run.name"}, [&] { return name.empty(); }, "must be given: it names the run's results");
    forbid(
        {"run.name"}, [&] { return name.find('/') != std::string::npos; },
        "must not contain '/': run.dir chooses the folder");
    forbid(
        {"run.name"}, [&] { return name == "." || name == ".."; }, "must be a name, not a folder");
  }

  void check_heads() {
    const ModelConfig& model = config_.model;
    forbid(
        {"model.width", "model.heads", "model.head_dim"},
        [&] { return model.head_dim == 0 && model.width % model.heads != 0; },
        fmt::format(
            "{} is not a multiple of model.heads, {} (model.head_dim would free the choice)",
            model.width, model.heads));
    forbid(
        {"model.kv_heads", "model.heads"}, [&] { return kv_heads(model) > model.heads; },
        fmt::format("{} are more than model.heads, {}", model.kv_heads, model.heads));
    forbid(
        {"model.kv_heads", "model.heads"}, [&] { return model.heads % kv_heads(model) != 0; },
        fmt::format("model.heads, {}, is not a multiple of {}", model.heads, model.kv_heads));
    const Keys size_of_heads = {"model.head_dim", "model.width", "model.heads",
                                "model.position.kind"};
    forbid(
        size_of_heads,
        [&] { return model.position.kind == PositionKind::rope && head_dim(model) % 2 != 0; },
        "rope turns pairs of channels: the head dimension (width / heads where not given) must be "
        "even");
    forbid(
        {"model.width", "model.position.kind"},
        [&] { return model.position.kind == PositionKind::sincos && model.width % 2 != 0; },
        fmt::format("sincos positions need an even width, not {}", model.width));
  }

  void check_attention() {
    const AttentionConfig& attention = config_.model.attention;
    const bool softmax = attention.kind == AttentionKind::softmax;
    forbid(
        {"model.attention.bias", "model.attention.kind"},
        [&] {
          return softmax && (attention.bias.minus_log_seq_len || attention.bias.value != 0.0);
        },
        "a constant bias cancels in softmax: remove it, or set it to 0 over the base's");
    forbid(
        {"model.attention.learned_bias", "model.attention.kind"},
        [&] { return softmax && attention.learned_bias; },
        "a bias for each head cancels in softmax: remove it, or set it to false over the base's");
  }

  void check_steps() {
    const TrainConfig& train = config_.train;
    const ScheduleConfig& schedule = config_.schedule;
    forbid(
        {"train.global_batch", "train.micro_batch"},
        [&] { return train.global_batch % train.micro_batch != 0; },
        fmt::format("{} is not a multiple of train.micro_batch, {}", train.global_batch,
                    train.micro_batch));
    forbid(
        {"schedule.warmup_steps", "train.steps"},
        [&] { return schedule.warmup_steps > train.steps; },
        fmt::format("{} are more than train.steps, {}", schedule.warmup_steps, train.steps));
    forbid(
        {"schedule.decay_fraction", "schedule.warmup_steps", "train.steps", "schedule.kind"},
        [&] {
          const auto steps = static_cast<double>(train.steps);
          return schedule.kind == ScheduleKind::wsd &&
                 schedule.decay_fraction * steps >
                     static_cast<double>(train.steps - schedule.warmup_steps);
        },
        fmt::format("the final {} of train.steps, {}, would start within the warm-up of {}",
                    schedule.decay_fraction, train.steps, schedule.warmup_steps));
  }

  bool is_for_images() const { return config_.task == TaskKind::image_classification; }

  void check_data() {
    const DataConfig& data = config_.data;
    const bool from_files = data.source != DataSource::synthetic;
    const auto of_task = [&] {
      switch (config_.task) {
        case TaskKind::language_modeling:
          return data.source == DataSource::text;
        case TaskKind::image_classification:
          return data.source != DataSource::text && data.source != DataSource::speech;
        case TaskKind::speech_recognition:
          return data.source == DataSource::speech;
      }
      return false;
    };
    const std::string_view what = is_for_images() ? "image folders or files"
                                  : config_.task == TaskKind::speech_recognition
                                      ? "manifests or folders of speech"
                                      : "token shards, or folders of them";
    const auto has_empty = [](const std::vector<std::string>& paths) {
      return std::find(paths.begin(), paths.end(), "") != paths.end();
    };
    forbid(
        {"data.source", "task"}, [&] { return from_files && !of_task(); },
        fmt::format("{} holds no data for task {}", enum_name(data.source),
                    enum_name(config_.task)));
    forbid(
        {"data.train", "data.source"}, [&] { return from_files && data.train.empty(); },
        fmt::format("must list {}", what));
    forbid(
        {"data.train"}, [&] { return has_empty(data.train); }, "lists an empty path");
    forbid(
        {"data.validation", "eval.every", "data.source"},
        [&] { return from_files && data.validation.empty() && config_.eval.every > 0; },
        fmt::format("must list {}, to evaluate every {} steps (eval.every)", what,
                    config_.eval.every));
    forbid(
        {"data.validation"}, [&] { return has_empty(data.validation); }, "lists an empty path");
  }

  // Of a task that reads tokens.
  void check_tokens() {
    forbid(
        {"model.seq_len"}, [&] { return config_.model.seq_len == 0; },
        "must be at least 1: only images have a number of tokens of their own");
    forbid(
        {"model.vocab_size", "data.source"},
        [&] {
          return config_.data.source == DataSource::synthetic && config_.model.vocab_size == 0;
        },
        "must be given for synthetic data, which has no shards to take it from");
  }

  void forbid_image_settings() {
    forbid_changes(config_.model.vision, VisionConfig{}, "model.vision");
    forbid_changes(config_.data.image, ImageDataConfig{}, "data.image");
    forbid_changes(config_.augment, AugmentConfig{}, "augment");
  }

  void forbid_speech_settings() {
    forbid_changes(config_.model.speech, SpeechConfig{}, "model.speech");
    forbid_changes(config_.data.speech, SpeechDataConfig{}, "data.speech");
    forbid_changes(config_.augment.speech, SpeechAugmentConfig{}, "augment.speech");
    forbid(
        {"eval.beam_width", "task"}, [&] { return config_.eval.beam_width != 0; },
        fmt::format("has no effect on task {}", enum_name(config_.task)));
    forbid(
        {"model.position.kind", "task"},
        [&] { return config_.model.position.kind == PositionKind::cape; },
        "cape is of speech: its positions are in time");
  }

  // Sections that the task does not read may not say anything.
  template <typename Section>
  void forbid_changes(const Section& section, const Section& defaults, const std::string& path) {
    for_each_field(section, [&](const auto& field, const auto& value) {
      // A section within it belongs to another task.
      if constexpr (!kIsSection<decltype(value)>) {
        forbid(
            {join_path(path, field.key), "task"}, [&] { return value != defaults.*field.member; },
            fmt::format("has no effect on task {}", enum_name(config_.task)));
      }
    });
  }

  void check_speech() {
    const ModelConfig& model = config_.model;
    const SpeechDataConfig& data = config_.data.speech;
    forbid(
        {"model.attention.causal"}, [&] { return model.attention.causal; },
        "must be false: an utterance is heard as a whole");
    forbid(
        {"model.position.kind"}, [&] { return model.position.kind == PositionKind::learned; },
        "must be none, rope, alibi, sincos or cape: utterances have no largest length to learn");
    forbid(
        {"model.width", "model.position.kind"},
        [&] { return model.position.kind == PositionKind::cape && model.width % 2 != 0; },
        fmt::format("cape positions need an even width, not {}", model.width));
    const auto vocab_size = static_cast<int64_t>(data.letters.size()) + 1;
    forbid(
        {"model.vocab_size", "data.speech.letters"},
        [&] { return model.vocab_size != 0 && model.vocab_size != vocab_size; },
        fmt::format("must be {}, data.speech.letters and the blank, or 0", vocab_size));
    forbid(
        {"model.seq_len", "data.speech.bucket_seconds", "data.speech.sample_rate",
         "augment.speech.speed", "model.speech.stride"},
        [&] { return model.seq_len != 0 && model.seq_len != speech_seq_len(config_); },
        "must be 0, or the frames of the last of data.speech.bucket_seconds");
    forbid(
        {"model.layer_drop", "model.stochastic_depth"},
        [&] { return model.layer_drop > 0.0 && model.stochastic_depth > 0.0; },
        "does not go together with model.stochastic_depth");
    forbid(
        {"loss.label_smoothing"}, [&] { return config_.loss.label_smoothing > 0.0; },
        "has no effect on CTC");
    forbid(
        {"loss.z_loss"}, [&] { return config_.loss.z_loss > 0.0; }, "has no effect on CTC");
    forbid(
        {"train.micro_batch"}, [&] { return config_.train.micro_batch != 1; },
        "must be 1: one of the batches that data.speech.batch_seconds makes");
    forbid(
        {"train.cuda_graph"}, [&] { return config_.train.cuda_graph; },
        "must be false: batches of speech differ in shape");
    forbid(
        {"eval.sequences"}, [&] { return config_.eval.sequences != 0; },
        "must be 0: error rates are over the whole of data.validation");
  }

  void check_speech_data() {
    const SpeechDataConfig& data = config_.data.speech;
    forbid(
        {"data.speech.bucket_seconds"}, [&] { return data.bucket_seconds.empty(); },
        "must list a duration at least");
    forbid(
        {"data.speech.bucket_seconds"},
        [&] {
          const auto& seconds = data.bucket_seconds;
          return !(seconds[0] > 0.0) || seconds.back() > 3600.0 ||
                 std::adjacent_find(seconds.begin(), seconds.end(), std::greater_equal<>()) !=
                     seconds.end();
        },
        "must rise, from more than 0 to at most 3600");
    forbid(
        {"data.speech.letters"},
        [&] {
          return data.letters.empty() ||
                 std::set<char>(data.letters.begin(), data.letters.end()).size() !=
                     data.letters.size();
        },
        "must have each of its letters once");
  }

  void check_vision() {
    const ModelConfig& model = config_.model;
    const VisionConfig& vision = model.vision;
    forbid(
        {"model.vision.channels"}, [&] { return vision.channels == 2; },
        "must be 1 (grey) or 3 (red, green, blue)");
    forbid(
        {"model.vision.patch_size", "model.vision.image_size"},
        [&] { return vision.image_size % vision.patch_size != 0; },
        fmt::format("model.vision.image_size, {}, is not a multiple of {}", vision.image_size,
                    vision.patch_size));
    // There are none where the patches have no size.
    const int64_t tokens = is_usable("model.vision.patch_size") ? image_tokens(vision) : 0;
    forbid(
        {"model.seq_len", "model.vision.image_size", "model.vision.patch_size"},
        [&] { return model.seq_len != 0 && model.seq_len != tokens; },
        fmt::format("must be {}, the tokens of an image, or 0", tokens));
    forbid(
        {"model.vision.classes", "data.source"},
        [&] { return config_.data.source == DataSource::synthetic && vision.classes == 0; },
        "must be given for synthetic data, which has none to count");
    forbid(
        {"model.attention.causal"}, [&] { return model.attention.causal; },
        "must be false: patches of an image have no first and no last");
    forbid(
        {"model.position.kind"},
        [&] {
          return model.position.kind == PositionKind::rope ||
                 model.position.kind == PositionKind::alibi;
        },
        "must be none, learned or sincos: the others know one dimension, not two");
    forbid(
        {"model.width", "model.position.kind"},
        [&] { return model.position.kind == PositionKind::sincos && model.width % 4 != 0; },
        fmt::format("sincos positions of images need a multiple of 4, not {}", model.width));
    forbid(
        {"model.vocab_size"}, [&] { return model.vocab_size != 0; },
        "must be 0 for images: model.vision.classes is what their head needs");
  }

  void check_image_data() {
    const VisionConfig& vision = config_.model.vision;
    const ImageDataConfig& image = config_.data.image;
    const AugmentConfig& augment = config_.augment;
    for (const auto& [key, values] : {std::pair{"data.image.mean", &image.mean},
                                      std::pair{"data.image.stddev", &image.stddev}}) {
      forbid(
          {key, "model.vision.channels"},
          [&, list = values] { return static_cast<int64_t>(list->size()) != vision.channels; },
          fmt::format("needs {} numbers, one a channel, and has {}", vision.channels,
                      values->size()));
    }
    forbid(
        {"data.image.stddev"},
        [&] {
          return std::any_of(image.stddev.begin(), image.stddev.end(),
                             [](double x) { return !(x > 0.0); });
        },
        "must be greater than 0");
    forbid(
        {"data.image.eval_resize", "model.vision.image_size"},
        [&] { return image.eval_resize != 0 && image.eval_resize < vision.image_size; },
        fmt::format("is less than the {} pixels of model.vision.image_size that are cut from it",
                    vision.image_size));
    const auto forbid_on_grey = [&](const char* key, bool used) {
      forbid(
          {key, "model.vision.channels"}, [&] { return used && vision.channels != 3; },
          "needs three channels");
    };
    forbid_on_grey("augment.saturation", augment.saturation > 0.0);
    forbid_on_grey("augment.hue", augment.hue > 0.0);
    forbid_on_grey("augment.randaugment_ops", augment.randaugment_ops > 0);
    forbid(
        {"train.global_batch", "augment.repeats"},
        [&] { return config_.train.global_batch % augment.repeats != 0; },
        fmt::format("{} is not a multiple of augment.repeats, {}", config_.train.global_batch,
                    augment.repeats));
    for (const auto& [key, alpha] :
         {std::pair{"augment.mixup", augment.mixup}, std::pair{"augment.cutmix", augment.cutmix}}) {
      forbid(
          {key, "train.micro_batch", "augment.repeats"},
          [&, alpha = alpha] {
            return alpha > 0.0 && config_.train.micro_batch / 2 < augment.repeats;
          },
          fmt::format("mixes the images of a micro-batch: train.micro_batch, {}, must be at least "
                      "twice augment.repeats, {}",
                      config_.train.micro_batch, augment.repeats));
    }
    const auto forbid_of_tokens = [&](const char* key, bool used) {
      forbid(
          {key}, [&] { return used; }, "is of tokens: it has no effect on images");
    };
    forbid_of_tokens("loss.z_loss", config_.loss.z_loss > 0.0);
    forbid_of_tokens("loss.chunk_rows", config_.loss.chunk_rows != 0);
    forbid_of_tokens("data.tokenizer", !config_.data.tokenizer.empty());
  }

  const Config& config_;
  std::set<std::string> unusable_;
  std::vector<Impossible> found_;
};

}  // namespace

std::vector<Impossible> impossible_values(const Config& config,
                                          const std::set<std::string>& unusable) {
  return Checker(config, unusable).check();
}

void validate(const Config& config) {
  Problems problems;
  for (const Impossible& found : impossible_values(config)) {
    problems.add(Place{}, found.keys[0], found.message);
  }
  problems.throw_if_any();
}

}  // namespace sigtrain
