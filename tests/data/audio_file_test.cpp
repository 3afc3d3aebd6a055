#include "data/audio_file.h"

#include <gmock/gmock.h>

#include <atomic>
#include <fstream>
#include <thread>

#include "core/error.h"
#include "data/sound.h"
#include "data/temporary_folder.h"

namespace sigtrain {
namespace {

using testing::HasSubstr;
using testing::Not;

void expect_samples(const std::vector<float>& actual, const std::vector<float>& expected,
                    double tolerance) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i) ASSERT_NEAR(actual[i], expected[i], tolerance) << i;
}

TEST(AudioFile, ReadsWavFlacAndSphere) {
  const TemporaryFolder folder;
  const std::vector<float> samples = tone(0.3, 440, 16000);
  for (const auto& [name, format] : {std::pair("a.wav", SF_FORMAT_WAV | SF_FORMAT_PCM_16),
                                     std::pair("a.flac", SF_FORMAT_FLAC | SF_FORMAT_PCM_16),
                                     std::pair("a.sph", SF_FORMAT_NIST | SF_FORMAT_PCM_16)}) {
    write_sound(folder / name, samples, 16000, format);
    const AudioInfo info = audio_info(folder / name);
    EXPECT_EQ(info.samples, 4800) << name;
    EXPECT_EQ(info.sample_rate, 16000) << name;
    const Audio audio = read_audio(folder / name, 0.0, 0.0);
    EXPECT_EQ(audio.sample_rate, 16000) << name;
    expect_samples(audio.samples, samples, 1.0);
  }
}

TEST(AudioFile, ReadsAStretch) {
  const TemporaryFolder folder;
  const std::vector<float> samples = tone(1.0, 440, 8000);
  for (const auto& [name, format] : {std::pair("a.wav", SF_FORMAT_WAV | SF_FORMAT_PCM_16),
                                     std::pair("a.flac", SF_FORMAT_FLAC | SF_FORMAT_PCM_16),
                                     std::pair("a.sph", SF_FORMAT_NIST | SF_FORMAT_PCM_16)}) {
    SCOPED_TRACE(name);
    const std::string path = folder / name;
    write_sound(path, samples, 8000, format);
    expect_samples(read_audio(path, 0.25, 0.5).samples,
                   {samples.begin() + 2000, samples.begin() + 6000}, 1.0);
    expect_samples(read_audio(path, 0.75, 0.0).samples, {samples.begin() + 6000, samples.end()},
                   1.0);
    // A stretch that ends a moment behind the last sample ends with it.
    EXPECT_EQ(read_audio(path, 0.5, 0.505).samples.size(), 4000u);
  }
}

TEST(AudioFile, AveragesChannels) {
  const TemporaryFolder folder;
  const std::vector<float> samples = tone(0.1, 440, 8000);
  write_sound(folder / "a.wav", samples, 8000, SF_FORMAT_WAV | SF_FORMAT_PCM_16, 3);
  expect_samples(read_audio(folder / "a.wav", 0.0, 0.0).samples, samples, 1.0);
}

TEST(AudioFile, BadFilesAreNamed) {
  const TemporaryFolder folder;
  const auto error_of = [&](const std::string& path) {
    return message_of<Error>([&] { audio_info(path); });
  };
  EXPECT_THAT(error_of(folder / "missing.wav"),
              HasSubstr("missing.wav: no audio that can be read"));
  write_text(folder / "text.wav", "RIFF this is no recording");
  EXPECT_THAT(error_of(folder / "text.wav"), HasSubstr("text.wav: no audio that can be read"));
  write_text(folder / "nothing.wav", "");
  EXPECT_THAT(error_of(folder / "nothing.wav"), HasSubstr("nothing.wav"));
  write_sound(folder / "empty.wav", {}, 8000);
  EXPECT_THAT(error_of(folder / "empty.wav"), HasSubstr("empty.wav: the audio is empty"));

  write_sound(folder / "good.wav", tone(0.5, 440, 8000), 8000);
  for (const auto& [start, duration] :
       {std::pair(0.0, 1.0), std::pair(0.6, 0.0), std::pair(0.4, 0.3)}) {
    EXPECT_THAT(message_of<Error>([&, start = start, duration = duration] {
                  read_audio(folder / "good.wav", start, duration);
                }),
                HasSubstr("is not within its 0.500 s"));
  }
  // The header of a cut file promises more than is there.
  write_sound(folder / "cut.flac", tone(2.0, 440, 8000), 8000, SF_FORMAT_FLAC | SF_FORMAT_PCM_16);
  std::filesystem::resize_file(folder / "cut.flac",
                               std::filesystem::file_size(folder / "cut.flac") / 2);
  EXPECT_THAT(message_of<Error>([&] { read_audio(folder / "cut.flac", 0.0, 0.0); }),
              HasSubstr("cut.flac: damaged"));
  // The 36 bits of STREAMINFO's number of samples, all set: months, of which no memory is asked
  // for.
  write_sound(folder / "months.flac", tone(0.5, 440, 8000), 8000,
              SF_FORMAT_FLAC | SF_FORMAT_PCM_16);
  std::fstream header(folder / "months.flac", std::ios::in | std::ios::out | std::ios::binary);
  header.seekg(21);
  const int before = header.get();
  header.seekp(21);
  header.put(static_cast<char>(before | 0xf)).write("\xff\xff\xff\xff", 4);
  header.close();
  EXPECT_GT(audio_info(folder / "months.flac").samples, int64_t{1} << 35);
  EXPECT_THAT(message_of<Error>([&] { read_audio(folder / "months.flac", 0.0, 0.0); }),
              HasSubstr("months.flac: damaged: 4000 of 68719476735 samples"));
}

// libsndfile keeps one reason for all threads. Without a lock a few of so many are
// another's.
TEST(AudioFile, EachBadFileHasItsOwnReasonAmongThreads) {
  const TemporaryFolder folder;
  write_text(folder / "text.wav", "RIFF this is no recording");
  const std::string paths[] = {folder / "text.wav", folder / "missing.wav"};
  const auto reason = [&](size_t i) { return message_of<Error>([&] { audio_info(paths[i]); }); };
  const std::string alone[] = {reason(0), reason(1)};
  EXPECT_THAT(alone[0], Not(HasSubstr("No such file")));
  EXPECT_THAT(alone[1], HasSubstr("No such file"));
  std::atomic<int> wrong = 0;
  std::vector<std::thread> threads;
  for (size_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 20000; ++i) wrong += reason(t % 2) != alone[t % 2];
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

// A tone keeps its frequency through a change of rate, in the middle where no edge is felt.
TEST(Resample, KeepsATone) {
  const std::vector<float> from = tone(0.5, 700, 8000), expected = tone(0.5, 700, 16000);
  const std::vector<float> actual = resample(from, 2.0);
  ASSERT_NEAR(static_cast<double>(actual.size()), static_cast<double>(expected.size()), 2.0);
  for (size_t i = 1000; i < 7000; ++i) ASSERT_NEAR(actual[i], expected[i], 0.01 * 8000) << i;
}

// What the lower rate cannot hold is taken out, not folded down.
TEST(Resample, DoesNotAlias) {
  const std::vector<float> actual = resample(tone(0.5, 6000, 16000), 0.5);
  for (size_t i = 500; i < 3500; ++i) ASSERT_NEAR(actual[i], 0.0, 0.01 * 8000) << i;
}

TEST(Resample, ByOneIsTheSameAndByNothingAnError) {
  const std::vector<float> samples = tone(0.1, 440, 8000);
  EXPECT_EQ(resample(samples, 1.0), samples);
  EXPECT_THROW(resample(samples, 0.0), Error);
}

}  // namespace
}  // namespace sigtrain
