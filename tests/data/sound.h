// Recordings for tests, written through libsndfile.
#pragma once

#include <gtest/gtest.h>
#include <sndfile.h>

#include <cmath>
#include <filesystem>
#include <numbers>
#include <string>
#include <vector>

namespace sigtrain {

/// `seconds` of a tone, in 16-bit units.
inline std::vector<float> tone(double seconds, double frequency, int rate,
                               double amplitude = 8000) {
  std::vector<float> samples(static_cast<size_t>(seconds * rate));
  for (size_t i = 0; i < samples.size(); ++i) {
    samples[i] = static_cast<float>(
        amplitude * std::sin(2.0 * std::numbers::pi * frequency * static_cast<double>(i) / rate));
  }
  return samples;
}

/// Samples in 16-bit units, in channels of rising loudness whose mean they are.
inline void write_sound(const std::string& path, const std::vector<float>& samples, int rate,
                        int format = SF_FORMAT_WAV | SF_FORMAT_PCM_16, int channels = 1) {
  std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  SF_INFO info{};
  info.samplerate = rate, info.channels = channels, info.format = format;
  SNDFILE* file = sf_open(path.c_str(), SFM_WRITE, &info);
  ASSERT_NE(file, nullptr) << path << ": " << sf_strerror(nullptr);
  std::vector<float> interleaved;
  for (const float sample : samples) {
    for (int c = 1; c <= channels; ++c) {
      const float loudness = 2.0F * static_cast<float>(c) / static_cast<float>(channels + 1);
      interleaved.push_back(loudness * sample / 32768.0F);
    }
  }
  EXPECT_EQ(sf_writef_float(file, interleaved.data(), static_cast<sf_count_t>(samples.size())),
            static_cast<sf_count_t>(samples.size()));
  sf_close(file);
}

}  // namespace sigtrain
