#include "config/validate.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "config/derived.h"
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

  void check_data() {
    const DataConfig& data = config_.data;
    const bool text = data.source == DataSource::text;
    const auto has_empty = [](const std::vector<std::string>& paths) {
      return std::find(paths.begin(), paths.end(), "") != paths.end();
    };
    forbid(
        {"model.vocab_size", "data.source"}, [&] { return !text && config_.model.vocab_size == 0; },
        "must be given for synthetic data, which has no shards to take it from");
    forbid(
        {"data.train", "data.source"}, [&] { return text && data.train.empty(); },
        "must list token shards, or folders of them");
    forbid(
        {"data.train"}, [&] { return has_empty(data.train); }, "lists an empty path");
    forbid(
        {"data.validation", "eval.every", "data.source"},
        [&] { return text && data.validation.empty() && config_.eval.every > 0; },
        fmt::format("must list token shards, or folders of them, to evaluate every {} steps "
                    "(eval.every)",
                    config_.eval.every));
    forbid(
        {"data.validation"}, [&] { return has_empty(data.validation); }, "lists an empty path");
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
