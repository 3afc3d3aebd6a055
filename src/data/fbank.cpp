#include "data/fbank.h"

#include <kissfft/kiss_fftr.h>

#include <bit>
#include <cmath>
#include <memory>
#include <numbers>

#include "config/derived.h"
#include "core/error.h"

namespace sigtrain {
namespace {

constexpr double kLowFrequency = 20.0, kPreemphasis = 0.97;
constexpr float kEnergyFloor = 0x1p-23F;

double mel(double frequency) { return 1127.0 * std::log(1.0 + frequency / 700.0); }

struct TransformFree {
  void operator()(kiss_fftr_cfg transform) const { kiss_fftr_free(transform); }
};

}  // namespace

FilterBank::FilterBank(int64_t sample_rate, int64_t bins)
    : sample_rate_(sample_rate),
      window_size_(sample_rate * 25 / 1000),
      shift_(sample_rate * 10 / 1000),
      transform_size_(static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(window_size_)))) {
  for (int64_t i = 0; i < window_size_; ++i) {
    const double hann = 0.5 - 0.5 * std::cos(2.0 * std::numbers::pi * static_cast<double>(i) /
                                             static_cast<double>(window_size_ - 1));
    window_.push_back(static_cast<float>(std::pow(hann, 0.85)));
  }
  // The highest frequency, half the sample rate, has no weight in any filter.
  const double low = mel(kLowFrequency), high = mel(0.5 * static_cast<double>(sample_rate));
  const double step = (high - low) / static_cast<double>(bins + 1);
  const double spacing = static_cast<double>(sample_rate) / static_cast<double>(transform_size_);
  for (int64_t bin = 0; bin < bins; ++bin) {
    const double left = low + static_cast<double>(bin) * step, center = left + step,
                 right = center + step;
    Filter filter;
    for (int64_t i = 0; i < transform_size_ / 2; ++i) {
      const double at = mel(spacing * static_cast<double>(i));
      const double weight = std::min((at - left) / step, (right - at) / step);
      if (weight <= 0.0) continue;
      if (filter.weights.empty()) filter.first = i;
      filter.weights.push_back(static_cast<float>(weight));
    }
    if (filter.weights.empty()) {
      throw UsageError(
          "{} mel bins are too many for a sample rate of {}: bin {} is narrower than the "
          "frequencies' spacing of {:.1f} Hz; lower model.speech.mel_bins",
          bins, sample_rate, bin, spacing);
    }
    filters_.push_back(std::move(filter));
  }
}

int64_t FilterBank::frames(int64_t samples) const { return feature_frames(sample_rate_, samples); }

std::vector<float> FilterBank::compute(std::span<const float> samples) const {
  const int64_t count = frames(static_cast<int64_t>(samples.size()));
  std::vector<float> features;
  features.reserve(static_cast<size_t>(count * bins()));
  // The transform has memory of its own, so each call makes one.
  const std::unique_ptr<std::remove_pointer_t<kiss_fftr_cfg>, TransformFree> transform(
      kiss_fftr_alloc(static_cast<int>(transform_size_), 0, nullptr, nullptr));
  std::vector<float> frame(static_cast<size_t>(transform_size_), 0.0F);
  std::vector<float> power(static_cast<size_t>(transform_size_ / 2));
  std::vector<kiss_fft_cpx> spectrum(static_cast<size_t>(transform_size_ / 2 + 1));
  for (int64_t t = 0; t < count; ++t) {
    const float* x = samples.data() + t * shift_;
    double sum = 0.0;
    for (int64_t i = 0; i < window_size_; ++i) sum += x[i];
    const double offset = sum / static_cast<double>(window_size_);
    for (int64_t i = 0; i < window_size_; ++i) {
      const double before = x[i > 0 ? i - 1 : 0] - offset;
      frame[static_cast<size_t>(i)] = static_cast<float>(x[i] - offset - kPreemphasis * before) *
                                      window_[static_cast<size_t>(i)];
    }
    kiss_fftr(transform.get(), frame.data(), spectrum.data());
    for (size_t i = 0; i < power.size(); ++i)
      power[i] = spectrum[i].r * spectrum[i].r + spectrum[i].i * spectrum[i].i;
    for (const Filter& filter : filters_) {
      float energy = 0.0F;
      for (size_t i = 0; i < filter.weights.size(); ++i)
        energy += filter.weights[i] * power[static_cast<size_t>(filter.first) + i];
      features.push_back(std::log(std::max(energy, kEnergyFloor)));
    }
  }
  return features;
}

void normalize_features(std::span<float> features, int64_t bins) {
  const int64_t frames = static_cast<int64_t>(features.size()) / bins;
  constexpr double smallest_variance = 1e-5;  // of a bin that hardly changes: it stays near 0
  for (int64_t bin = 0; bin < bins; ++bin) {
    double sum = 0.0, squares = 0.0;
    for (int64_t t = 0; t < frames; ++t) sum += features[static_cast<size_t>(t * bins + bin)];
    const double mean = sum / static_cast<double>(frames);
    for (int64_t t = 0; t < frames; ++t) {
      const double centered = features[static_cast<size_t>(t * bins + bin)] - mean;
      squares += centered * centered;
    }
    const double scale = 1.0 / std::sqrt(squares / static_cast<double>(frames) + smallest_variance);
    for (int64_t t = 0; t < frames; ++t) {
      float& value = features[static_cast<size_t>(t * bins + bin)];
      value = static_cast<float>((value - mean) * scale);
    }
  }
}

}  // namespace sigtrain
