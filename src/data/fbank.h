// Log-mel filterbank energies as Kaldi's compute-fbank-feats and torchaudio.compliance.kaldi.fbank
// define them, with their defaults: frames of 25 ms every 10 ms, those that fit as a whole (snip
// edges), DC offset removed, pre-emphasis 0.97, Povey window, power spectrum over the next power of
// two, triangular filters from 20 Hz to half the sample rate, log of at least 2^-23; no dither.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace sigtrain {

class FilterBank {
 public:
  /// Throws UsageError where so many bins are too narrow for this rate's transform: one would be
  /// without a frequency.
  FilterBank(int64_t sample_rate, int64_t bins);

  int64_t bins() const { return static_cast<int64_t>(filters_.size()); }
  /// Frames of so many samples; 0 where they are fewer than a window.
  int64_t frames(int64_t samples) const;
  /// [frames, bins] of samples in 16-bit units. Safe to call from many threads.
  std::vector<float> compute(std::span<const float> samples) const;

 private:
  struct Filter {
    int64_t first = 0;  // of the transform's frequencies
    std::vector<float> weights;
  };

  int64_t sample_rate_, window_size_, shift_, transform_size_;
  std::vector<float> window_;
  std::vector<Filter> filters_;
};

/// Subtracts each bin's mean over the frames [frames, bins] and divides by its standard deviation,
/// so that what a speaker and a microphone add to every frame is gone.
void normalize_features(std::span<float> features, int64_t bins);

}  // namespace sigtrain
