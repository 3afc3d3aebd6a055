// How far a run is: a line a time, or a live bar on a terminal.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace sigtrain {

/// What the progress line tells; values not known yet are left out.
struct ProgressValues {
  int64_t step = 0;
  int64_t total_steps = 0;
  std::optional<double> loss{}, validation_loss{}, validation_accuracy{}, letter_error_rate{};
  std::optional<double> lr{}, grad_norm{};
  std::optional<double> units_per_second{};
  std::string_view unit = "token";
  std::optional<double> tflops{}, mfu{};  // of the model; share of the hardware's peak
  std::optional<double> seconds_left{};
};

/// "8.4s", "3m 20s", "2h 05m", "3d 04h"; "?" for a value that is negative or not finite.
std::string format_duration(double seconds);
/// Three significant digits with k, M, B or T: "950", "52.9k", "1.31B".
std::string format_count(double count);

/// "step 1,200/400,000  loss 3.2145  val 3.3012  lr 1.00e-03  grad 0.52  52.9k tok/s  476 TFLOP/s
/// 48.1% MFU  ETA 2h 05m"
std::string progress_line(const ProgressValues& values);
/// "30% [######--------------]" before progress_line(), in at most `columns` characters: the bar
/// shrinks first, then the fields at the end go, whole.
std::string progress_bar(const ProgressValues& values, int columns);

/// Shows the progress of the steps first_step+1 ... total_steps through core/log.h.
class Progress {
 public:
  Progress(int64_t first_step, int64_t total_steps);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// Call it after every step, with `seconds` since this process began to train, of which `held`
  /// went into evaluations and checkpoints. Fills in total_steps, the time left and what the last
  /// evaluation found; moves the live line, at most ten times a second.
  void update(ProgressValues values, double seconds, double held);
  /// Also writes the line to the log where that is no terminal.
  void log(ProgressValues values, double seconds, double held);

 private:
  ProgressValues complete(ProgressValues values, double seconds, double held);

  int64_t first_step_, total_steps_;
  int64_t last_step_;
  std::optional<double> last_seconds_;  // of steps alone
  std::optional<double> shown_at_;
  std::optional<double> seconds_per_step_;  // smoothed
  std::optional<double> validation_loss_, validation_accuracy_, letter_error_rate_;
};

}  // namespace sigtrain
