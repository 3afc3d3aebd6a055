// Audio files through libsndfile: WAV, FLAC, NIST SPHERE and whatever else it reads.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace sigtrain {

struct AudioInfo {
  int64_t samples = 0;  // of each channel
  int64_t sample_rate = 0;
  double seconds() const { return static_cast<double>(samples) / static_cast<double>(sample_rate); }
};

/// Samples of one channel, in 16-bit units: [-32768, 32768].
struct Audio {
  std::vector<float> samples;
  int64_t sample_rate = 0;
};

/// What the header says. Throws Error naming the file where it cannot be read or holds no samples.
AudioInfo audio_info(const std::string& path);

/// `duration` seconds from `start` on, as one channel: the mean of those there are. A duration of 0
/// goes to the end. Throws Error naming the file where it cannot be read, is damaged, or ends
/// more than a tenth of a second before the stretch does.
Audio read_audio(const std::string& path, double start, double duration);

/// `samples` at `ratio` times their rate: the new rate over the old, or 1 over a change of speed.
/// Band-limited; 1 changes nothing. Throws Error for a ratio outside [1/256, 256].
std::vector<float> resample(std::vector<float> samples, double ratio);

}  // namespace sigtrain
