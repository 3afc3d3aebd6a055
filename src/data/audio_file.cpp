#include "data/audio_file.h"

#include <samplerate.h>
#include <sndfile.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <utility>

#include "core/error.h"

namespace sigtrain {
namespace {

struct Closer {
  void operator()(SNDFILE* file) const { sf_close(file); }
};

/// An open file and what its header says.
struct AudioFile {
  explicit AudioFile(const std::string& path) {
    open(path);
    if (info.frames <= 0 || info.channels <= 0 || info.samplerate <= 0)
      throw Error("{}: the audio is empty", path);
  }

  SF_INFO info{};
  std::unique_ptr<SNDFILE, Closer> file;

 private:
  /// libsndfile has one place for why no file was opened, which any thread's next sf_open writes
  /// to. So what fails beside other threads is tried again alone.
  void open(const std::string& path) {
    static std::shared_mutex opening;
    {
      const std::shared_lock together(opening);
      file.reset(sf_open(path.c_str(), SFM_READ, &info));
    }
    if (file) return;
    const std::unique_lock alone(opening);
    info = {};
    file.reset(sf_open(path.c_str(), SFM_READ, &info));
    if (!file) throw Error("{}: no audio that can be read: {}", path, sf_strerror(nullptr));
  }
};

}  // namespace

AudioInfo audio_info(const std::string& path) {
  const AudioFile audio(path);
  return {audio.info.frames, audio.info.samplerate};
}

Audio read_audio(const std::string& path, double start, double duration) {
  const AudioFile audio(path);
  const double rate = audio.info.samplerate;
  const auto first = static_cast<int64_t>(std::llround(start * rate));
  const int64_t there = audio.info.frames - first;
  // A stretch may end past the last sample by the rounding of its numbers, and no more.
  const int64_t tolerated = audio.info.samplerate / 10;
  const int64_t wanted =
      duration > 0.0 ? static_cast<int64_t>(std::llround(duration * rate)) : there;
  if (first < 0 || wanted <= 0 || there <= 0 || wanted > there + tolerated) {
    throw Error("{}: a stretch of {:.3f} s from {:.3f} s on is not within its {:.3f} s", path,
                duration, start, static_cast<double>(audio.info.frames) / rate);
  }
  const int64_t count = std::min(wanted, there), channels = audio.info.channels;
  if (sf_seek(audio.file.get(), first, SEEK_SET) != first) {
    throw Error("{}: cannot go to {:.3f} s: {}", path, start, sf_strerror(audio.file.get()));
  }
  // In pieces, so that a damaged header that promises a year of audio takes no memory for it.
  constexpr int64_t piece = 1 << 16;
  std::vector<float> samples, interleaved(static_cast<size_t>(std::min(count, piece) * channels));
  const float scale = 32768.0F / static_cast<float>(channels);
  for (int64_t done = 0; done < count;) {
    const sf_count_t read = sf_readf_float(audio.file.get(), interleaved.data(),
                                           std::min<sf_count_t>(count - done, piece));
    if (read <= 0) throw Error("{}: damaged: {} of {} samples could be read", path, done, count);
    for (int64_t i = 0; i < read; ++i) {
      float sum = 0.0F;
      for (int64_t c = 0; c < channels; ++c)
        sum += interleaved[static_cast<size_t>(i * channels + c)];
      samples.push_back(sum * scale);
    }
    done += read;
  }
  if (!std::all_of(samples.begin(), samples.end(), [](float x) { return std::isfinite(x); }))
    throw Error("{}: damaged: a sample is not finite", path);
  return {std::move(samples), audio.info.samplerate};
}

std::vector<float> resample(std::vector<float> samples, double ratio) {
  if (ratio == 1.0 || samples.empty()) return samples;
  if (!src_is_valid_ratio(ratio)) throw Error("audio cannot be resampled by {}", ratio);
  std::vector<float> result(
      static_cast<size_t>(std::ceil(static_cast<double>(samples.size()) * ratio)) + 1);
  SRC_DATA data{};
  data.data_in = samples.data();
  data.input_frames = static_cast<long>(samples.size());
  data.data_out = result.data();
  data.output_frames = static_cast<long>(result.size());
  data.src_ratio = ratio;
  const int error = src_simple(&data, SRC_SINC_FASTEST, 1);
  if (error != 0) throw Error("audio cannot be resampled: {}", src_strerror(error));
  result.resize(static_cast<size_t>(data.output_frames_gen));
  return result;
}

}  // namespace sigtrain
