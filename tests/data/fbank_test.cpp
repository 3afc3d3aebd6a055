#include "data/fbank.h"

#include <filesystem>

#include "core/error.h"
#include "core/safetensors.h"
#include "data/audio_file.h"
#include "data/sound.h"

namespace sigtrain {
namespace {

constexpr const char* kRecordings = "/usr/share/asterisk/sounds/en_US_f_Allison/";

/// tests/golden/make_golden_speech.py's made_signal.
std::vector<float> made_signal(size_t count) {
  std::vector<float> samples(count);
  uint32_t state = 12345;
  for (size_t i = 0; i < count; ++i) {
    state = 1664525U * state + 1013904223U;
    const double noise = state / 2147483648.0 - 1.0, at = static_cast<double>(i);
    samples[i] =
        static_cast<float>(6000 * std::sin(0.05 * at) + 900 * std::sin(1.3 * at) + 50 * noise);
  }
  return samples;
}

class FbankGolden : public testing::TestWithParam<std::string> {};

// torchaudio's, every third frame. It computes in float too: both are off by some 1e-5 of a power,
// and in the quietest bins beside loud ones by a little more.
TEST_P(FbankGolden, IsTorchaudios) {
  const std::string name = GetParam();
  std::vector<float> samples;
  if (name == "made") {
    samples = made_signal(9000);
  } else {
    const std::string path = kRecordings + name + ".wav";
    if (!std::filesystem::exists(path))
      GTEST_SKIP() << "the package asterisk-core-sounds-en-wav is not installed";
    samples = read_audio(path, 0.0, 0.0).samples;
  }
  const SafetensorsReader golden(std::string(SIGTRAIN_SOURCE_DIR) +
                                 "/tests/golden/fbank.safetensors");
  std::vector<int32_t> settings(2);
  golden.read(name + ".settings", {settings.data(), DType::i32, {2}});
  const Shape shape = golden.find(name)->shape;
  std::vector<float> expected(static_cast<size_t>(shape.numel()));
  golden.read(name, {expected.data(), DType::f32, shape});

  const FilterBank bank(settings[0], settings[1]);
  const std::vector<float> actual = bank.compute(samples);
  const int64_t frames = bank.frames(static_cast<int64_t>(samples.size())), bins = settings[1];
  ASSERT_EQ(static_cast<int64_t>(actual.size()), frames * bins);
  ASSERT_EQ((frames + 2) / 3, shape[0]);
  ASSERT_EQ(bins, shape[1]);
  for (int64_t t = 0; t < shape[0]; ++t) {
    for (int64_t bin = 0; bin < bins; ++bin) {
      ASSERT_NEAR(actual[static_cast<size_t>(3 * t * bins + bin)],
                  expected[static_cast<size_t>(t * bins + bin)], 1e-3)
          << "frame " << 3 * t << ", bin " << bin;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Files, FbankGolden,
                         testing::Values("made", "activated", "vm-goodbye", "conf-full"));

TEST(FilterBank, HasTheFramesThatFit) {
  const FilterBank bank(16000, 40);
  EXPECT_EQ(bank.frames(0), 0);
  EXPECT_EQ(bank.frames(399), 0);
  EXPECT_EQ(bank.frames(400), 1);
  EXPECT_EQ(bank.frames(559), 1);
  EXPECT_EQ(bank.frames(560), 2);
  EXPECT_TRUE(bank.compute(std::vector<float>(399)).empty());
}

TEST(FilterBank, OfSilenceIsTheFloor) {
  const FilterBank bank(8000, 20);
  for (const float value : bank.compute(std::vector<float>(1000, 0.0F)))
    EXPECT_FLOAT_EQ(value, std::log(0x1p-23F));
}

TEST(FilterBank, MoreBinsThanFrequenciesAreAnError) {
  EXPECT_THROW(FilterBank(8000, 200), UsageError);
  EXPECT_NO_THROW(FilterBank(16000, 80));
}

TEST(NormalizeFeatures, GivesEachBinMeanZeroAndVarianceOne) {
  std::vector<float> features;
  for (int t = 0; t < 50; ++t) {
    features.push_back(3.0F + 2.0F * static_cast<float>(std::sin(t)));
    features.push_back(-100.0F);  // never changes
    features.push_back(static_cast<float>(t * t));
  }
  normalize_features(features, 3);
  for (size_t bin = 0; bin < 3; ++bin) {
    double sum = 0.0, squares = 0.0;
    for (size_t t = 0; t < 50; ++t) {
      sum += features[t * 3 + bin];
      squares += features[t * 3 + bin] * features[t * 3 + bin];
    }
    EXPECT_NEAR(sum / 50, 0.0, 1e-5);
    EXPECT_NEAR(squares / 50, bin == 1 ? 0.0 : 1.0, 1e-4);
  }
}

}  // namespace
}  // namespace sigtrain
