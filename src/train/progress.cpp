#include "train/progress.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string_view>
#include <vector>

#include "core/log.h"

namespace sigtrain {
namespace {

constexpr double kSmoothing = 0.95;
constexpr double kSecondsBetweenRedraws = 0.1;
constexpr int kWidestBar = 30, kNarrowestBar = 10;

std::string with_thousands(int64_t value) {
  std::string digits = std::to_string(value);
  const size_t first = value < 0 ? 1 : 0;
  for (size_t i = digits.size(); i > first + 3;) digits.insert(i -= 3, 1, ',');
  return digits;
}

std::vector<std::string> fields(const ProgressValues& values) {
  std::vector<std::string> out = {
      fmt::format("step {}/{}", with_thousands(values.step), with_thousands(values.total_steps))};
  if (values.loss) out.push_back(fmt::format("loss {:.4f}", *values.loss));
  if (values.validation_loss) out.push_back(fmt::format("val {:.4f}", *values.validation_loss));
  if (values.validation_accuracy)
    out.push_back(fmt::format("acc {:.2f}%", *values.validation_accuracy * 100.0));
  if (values.letter_error_rate)
    out.push_back(fmt::format("letter errors {:.2f}%", *values.letter_error_rate * 100.0));
  if (values.lr) out.push_back(fmt::format("lr {:.2e}", *values.lr));
  if (values.grad_norm) out.push_back(fmt::format("grad {:.3g}", *values.grad_norm));
  if (values.units_per_second) {
    const std::string_view unit = values.unit == "token" ? "tok" : values.unit;
    out.push_back(fmt::format("{} {}/s", format_count(*values.units_per_second), unit));
  }
  if (values.tflops) out.push_back(format_count(*values.tflops) + " TFLOP/s");
  if (values.mfu) out.push_back(fmt::format("{:.1f}% MFU", *values.mfu * 100.0));
  if (values.seconds_left) out.push_back("ETA " + format_duration(*values.seconds_left));
  return out;
}

}  // namespace

std::string format_duration(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0 || seconds > 1e10) return "?";
  if (seconds < 9.95) return fmt::format("{:.1f}s", seconds);
  const auto total = static_cast<int64_t>(std::llround(seconds));
  const int64_t minutes = total / 60, hours = minutes / 60, days = hours / 24;
  if (minutes == 0) return fmt::format("{}s", total);
  if (hours == 0) return fmt::format("{}m {:02}s", minutes, total % 60);
  if (days == 0) return fmt::format("{}h {:02}m", hours, minutes % 60);
  return fmt::format("{}d {:02}h", days, hours % 24);
}

std::string format_count(double count) {
  if (!std::isfinite(count)) return "?";
  constexpr std::string_view suffixes[] = {"", "k", "M", "B", "T"};
  size_t suffix = 0;
  // 999.5 is where three digits round up to the next thousand.
  while (std::abs(count) >= 999.5 && suffix + 1 < std::size(suffixes)) {
    count /= 1000;
    ++suffix;
  }
  const double size = std::abs(count);
  const int decimals = suffix == 0 && count == std::floor(count) ? 0
                       : size >= 99.95                           ? 0
                       : size >= 9.995                           ? 1
                                                                 : 2;
  return fmt::format("{:.{}f}{}", count, decimals, suffixes[suffix]);
}

std::string progress_line(const ProgressValues& values) {
  return fmt::format("{}", fmt::join(fields(values), "  "));
}

std::string progress_bar(const ProgressValues& values, int columns) {
  const double share =
      values.total_steps <= 0
          ? 1.0
          : std::clamp(static_cast<double>(values.step) / static_cast<double>(values.total_steps),
                       0.0, 1.0);
  // Rounded down: 100% means that the run has ended.
  const std::string percent = fmt::format("{:3}%", static_cast<int>(share * 100));
  std::vector<std::string> shown = fields(values);
  const auto room = [&] {
    int used = static_cast<int>(percent.size()) + 3;
    for (const std::string& field : shown) used += static_cast<int>(field.size()) + 2;
    return columns - used;
  };
  while (!shown.empty() && room() < kNarrowestBar) shown.pop_back();
  const int bar = std::clamp(room(), 0, kWidestBar);
  const int filled = static_cast<int>(share * bar);
  std::string text = percent;
  if (bar > 0) {
    text += fmt::format(" [{}{}]", std::string(static_cast<size_t>(filled), '#'),
                        std::string(static_cast<size_t>(bar - filled), '-'));
  }
  for (const std::string& field : shown) text += "  " + field;
  return text.substr(0, static_cast<size_t>(std::max(columns, 0)));
}

Progress::Progress(int64_t first_step, int64_t total_steps)
    : first_step_(first_step), total_steps_(total_steps), last_step_(first_step) {}

Progress::~Progress() { clear_live_line(); }

ProgressValues Progress::complete(ProgressValues values, double seconds, double held) {
  if (values.step > last_step_) {
    // The first step allocates and warms up, so the average begins after it.
    if (last_seconds_) {
      const auto steps = static_cast<double>(values.step - last_step_);
      const double now = (seconds - held - *last_seconds_) / steps;
      const double weight = seconds_per_step_ ? std::pow(kSmoothing, steps) : 0.0;
      seconds_per_step_ = weight * seconds_per_step_.value_or(0.0) + (1 - weight) * now;
    }
    last_step_ = values.step;
    last_seconds_ = seconds - held;
  }
  values.total_steps = total_steps_;
  if (values.validation_loss) validation_loss_ = values.validation_loss;
  values.validation_loss = validation_loss_;
  if (values.validation_accuracy) validation_accuracy_ = values.validation_accuracy;
  values.validation_accuracy = validation_accuracy_;
  if (values.letter_error_rate) letter_error_rate_ = values.letter_error_rate;
  values.letter_error_rate = letter_error_rate_;
  if (seconds_per_step_) {
    // Evaluations and checkpoints come seldom: on the average, not when one has just been.
    const double held_per_step = held / static_cast<double>(values.step - first_step_);
    values.seconds_left =
        (*seconds_per_step_ + held_per_step) * static_cast<double>(total_steps_ - values.step);
  }
  return values;
}

void Progress::update(ProgressValues values, double seconds, double held) {
  values = complete(values, seconds, held);
  if (!has_live_line()) return;
  if (shown_at_ && seconds - *shown_at_ < kSecondsBetweenRedraws) return;
  shown_at_ = seconds;
  set_live_line(progress_bar(values, terminal_columns() - 1));
}

void Progress::log(ProgressValues values, double seconds, double held) {
  log_progress(progress_line(complete(values, seconds, held)));
}

}  // namespace sigtrain
