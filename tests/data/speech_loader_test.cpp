#include "data/speech_loader.h"

#include <fmt/format.h>
#include <gmock/gmock.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "core/error.h"
#include "data/sound.h"
#include "data/temporary_folder.h"

namespace sigtrain {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class SpeechLoaderTest : public testing::Test {
 protected:
  static constexpr int utterances = 23;

  void SetUp() override {
    std::string text = "path\tstart\tduration\ttranscript\n";
    for (int i = 0; i < utterances; ++i) {
      const std::string name = fmt::format("u{}.wav", i);
      write_sound(folder_ / name, tone(0.3 + 0.07 * i, 200 + 30 * i, 8000), 8000);
      text += name + "\t0\t0\t" + std::string(static_cast<size_t>(1 + i % 4), 'a') + "b\n";
    }
    write_text(folder_ / "m.tsv", text);
    SpeechDataConfig& data = config_.data.speech;
    data.sample_rate = 8000;
    data.letters = "ab ";
    data.bucket_seconds = {0.5, 1.0, 2.0};
    data.batch_seconds = 4.0;
    config_.model.speech.mel_bins = 20;
    config_.model.position.kind = PositionKind::cape;
    config_.model.position.cape_global_shift = 10.0;
    config_.model.position.cape_local_shift = 0.5;
    config_.model.position.cape_scale = 1.2;
    config_.augment.speech = {0.1, 1, 5, 1, 20, 0.3};
    corpus_ = std::make_shared<const SpeechCorpus>(std::vector<std::string>{folder_ / "m.tsv"},
                                                   config_, 60.0, 1.1);
  }

  TemporaryFolder folder_;
  std::shared_ptr<const SpeechCorpus> corpus_;
  Config config_;
};

bool same(const SpeechBatch& a, const SpeechBatch& b) {
  return a.features == b.features && a.feature_lengths == b.feature_lengths &&
         a.frame_lengths == b.frame_lengths && a.positions == b.positions &&
         a.targets == b.targets && a.target_lengths == b.target_lengths && a.entries == b.entries &&
         a.counted_targets == b.counted_targets;
}

TEST_F(SpeechLoaderTest, EachPassHasEveryUtteranceOnceInAnOrderOfItsOwn) {
  const SpeechLoader loader(corpus_, config_, true);
  std::vector<std::vector<int64_t>> passes;
  for (int64_t pass = 0; pass < 3; ++pass) {
    std::vector<int64_t> seen;
    for (int64_t i = 0; i < loader.batches_per_pass(); ++i) {
      for (const int64_t entry : loader.get(pass * loader.batches_per_pass() + i).entries)
        if (entry >= 0) seen.push_back(entry);
    }
    passes.push_back(seen);
    std::sort(seen.begin(), seen.end());
    std::vector<int64_t> all(utterances);
    std::iota(all.begin(), all.end(), 0);
    EXPECT_EQ(seen, all);
  }
  EXPECT_NE(passes[0], passes[1]);
  EXPECT_NE(passes[1], passes[2]);
}

TEST_F(SpeechLoaderTest, ABatchIsAFunctionOfItsNumber) {
  const SpeechLoader loader(corpus_, config_, true), again(corpus_, config_, true);
  for (const int64_t number : {int64_t{0}, int64_t{7}, loader.batches_per_pass() * 5 + 2})
    EXPECT_TRUE(same(loader.get(number), again.get(number))) << number;
  Config other = config_;
  other.train.seed = 2;
  EXPECT_FALSE(same(SpeechLoader(corpus_, other, true).get(0), loader.get(0)));
}

TEST_F(SpeechLoaderTest, BatchesAreWithinTheirShapesAndDuration) {
  const std::vector<SpeechShape> largest = speech_shapes(config_, 2.0, corpus_.get());
  ASSERT_EQ(largest.size(), 3u);
  for (size_t i = 0; i < largest.size(); ++i) {
    EXPECT_LE(static_cast<double>(largest[i].rows) * config_.data.speech.bucket_seconds[i],
              config_.data.speech.batch_seconds);
    EXPECT_EQ(largest[i].frames, (largest[i].feature_frames + 2) / 3);
  }
  const SpeechLoader loader(corpus_, config_, true);
  std::map<int64_t, int64_t> rows_of_frames;  // one shape a bucket
  for (int64_t i = 0; i < 3 * loader.batches_per_pass(); ++i) {
    const SpeechBatch batch = loader.get(i);
    const SpeechShape& shape = batch.shape;
    EXPECT_TRUE(std::any_of(largest.begin(), largest.end(), [&](const SpeechShape& most) {
      return shape.frames == most.frames && shape.feature_frames == most.feature_frames &&
             shape.targets == most.targets && shape.rows <= most.rows;
    }));
    EXPECT_EQ(rows_of_frames.try_emplace(shape.frames, shape.rows).first->second, shape.rows);
    int64_t targets = 0;
    for (int64_t row = 0; row < shape.rows; ++row) {
      const auto r = static_cast<size_t>(row);
      const int64_t length = batch.feature_lengths[r];
      EXPECT_LE(length, shape.feature_frames);
      EXPECT_EQ(batch.frame_lengths[r], (length + 2) / 3);
      EXPECT_EQ(length > 0, batch.entries[r] >= 0);
      targets += batch.target_lengths[r];
      if (length > 0) {
        const auto& expected = corpus_->entries()[static_cast<size_t>(batch.entries[r])].targets;
        EXPECT_TRUE(std::equal(expected.begin(), expected.end(),
                               batch.targets.begin() + row * shape.targets));
      }
      for (int64_t j = length * 20; j < shape.feature_frames * 20; ++j)
        ASSERT_EQ(batch.features[static_cast<size_t>(row * shape.feature_frames * 20 + j)], 0.0F);
    }
    EXPECT_EQ(batch.counted_targets, targets);
  }
  EXPECT_EQ(rows_of_frames.size(), 3u);
}

// Transcripts have 2, 3, 4, 5, 2, ... letters, the shortest three utterances being of the first
// bucket.
TEST_F(SpeechLoaderTest, ShapesHaveTheTargetsOfTheLongestTranscripts) {
  const auto targets = [&](double longest, const SpeechCorpus* corpus) {
    std::vector<int64_t> result;
    for (const SpeechShape& shape : speech_shapes(config_, longest, corpus))
      result.push_back(shape.targets);
    return result;
  };
  EXPECT_THAT(targets(2.0, corpus_.get()), ElementsAre(4, 5, 5));
  EXPECT_THAT(targets(0.9, corpus_.get()), ElementsAre(4, 5));
  config_.data.speech.bucket_seconds = {0.1, 2.0};
  EXPECT_THAT(targets(2.0, corpus_.get()), ElementsAre(1, 5)) << "an empty bucket";
  // (2 s / 0.9 - 25 ms) / 10 ms + 1 features, a third of them frames.
  EXPECT_THAT(targets(2.0, nullptr), ElementsAre(3, 74)) << "any data";
  config_.data.source = DataSource::synthetic;
  EXPECT_THAT(targets(2.0, nullptr), ElementsAre(1, 37));
  const SpeechBatch batch = synthetic_speech(config_, 3);
  EXPECT_EQ(batch.shape.targets, 37);
  EXPECT_EQ(batch.targets.size(), static_cast<size_t>(batch.shape.rows * 37));
}

TEST_F(SpeechLoaderTest, EvaluationHasNothingOfTheAugmentation) {
  const SpeechLoader loader(corpus_, config_, false);
  const FilterBank bank(8000, 20);
  std::vector<int64_t> seen;
  for (int64_t i = 0; i < loader.batches_per_pass(); ++i) {
    const SpeechBatch batch = loader.get(i);
    for (int64_t row = 0; row < batch.shape.rows; ++row) {
      const int64_t entry = batch.entries[static_cast<size_t>(row)];
      if (entry < 0) continue;
      seen.push_back(entry);
      const SpeechEntry& e = corpus_->entries()[static_cast<size_t>(entry)];
      const std::vector<float> features = speech_features(e.utterance, 1.0, 8000, bank);
      ASSERT_EQ(static_cast<int64_t>(features.size()),
                batch.feature_lengths[static_cast<size_t>(row)] * 20);
      EXPECT_TRUE(std::equal(features.begin(), features.end(),
                             batch.features.begin() + row * batch.shape.feature_frames * 20));
      for (int64_t t = 0; t < batch.shape.frames; ++t) {
        ASSERT_EQ(batch.positions[static_cast<size_t>(row * batch.shape.frames + t)],
                  static_cast<float>(t));
      }
    }
  }
  EXPECT_TRUE(std::is_sorted(seen.begin(), seen.end())) << "they were written by rising length";
  EXPECT_EQ(seen.size(), static_cast<size_t>(utterances));
}

TEST_F(SpeechLoaderTest, SpeedsAreOfThreeKinds) {
  config_.augment.speech = {0.1};
  const SpeechLoader loader(corpus_, config_, true);
  std::set<int32_t> lengths;  // of utterance 20
  for (int64_t i = 0; i < 30 * loader.batches_per_pass(); ++i) {
    const SpeechBatch batch = loader.get(i);
    for (size_t row = 0; row < batch.entries.size(); ++row)
      if (batch.entries[row] == 20) lengths.insert(batch.feature_lengths[row]);
  }
  const FilterBank bank(8000, 20);
  const double samples = 1.7 * 8000;
  const auto frames = [&](double speed) {
    return bank.frames(static_cast<int64_t>(samples / speed));
  };
  ASSERT_EQ(lengths.size(), 3u);
  auto length = lengths.begin();
  for (const double speed : {1.1, 1.0, 0.9})
    EXPECT_NEAR(static_cast<double>(*length++), static_cast<double>(frames(speed)), 1.0);
}

TEST_F(SpeechLoaderTest, PositionsAreShiftedAndScaledAsAWhole) {
  config_.model.position.cape_local_shift = 0.0;
  const SpeechLoader loader(corpus_, config_, true);
  std::set<float> steps;
  for (int64_t i = 0; i < loader.batches_per_pass(); ++i) {
    const SpeechBatch batch = loader.get(i);
    for (int64_t row = 0; row < batch.shape.rows; ++row) {
      if (batch.entries[static_cast<size_t>(row)] < 0) continue;
      const float* p = batch.positions.data() + row * batch.shape.frames;
      const float step = p[1] - p[0];
      EXPECT_GE(step, 1 / 1.2F - 1e-4F);
      EXPECT_LE(step, 1.2F + 1e-4F);
      EXPECT_LE(std::abs(p[0]), 10.0F * 1.2F);
      for (int64_t t = 1; t < batch.shape.frames; ++t) ASSERT_NEAR(p[t] - p[t - 1], step, 1e-4);
      steps.insert(step);
    }
  }
  EXPECT_GT(steps.size(), 10u);
}

TEST_F(SpeechLoaderTest, ARecordingDamagedSinceIsNamedAndItsRowEmpty) {
  // Within a header that still says two seconds.
  const std::string path = folder_ / "u22.wav";
  std::filesystem::resize_file(path, 200);
  const SpeechLoader loader(corpus_, config_, false);
  int64_t damaged = 0, rows = 0;
  for (int64_t i = 0; i < loader.batches_per_pass(); ++i) {
    const SpeechBatch batch = loader.get(i);
    for (const DamagedSample& problem : batch.damaged) {
      EXPECT_THAT(problem.text, HasSubstr("u22.wav"));
      ++damaged;
    }
    for (const int64_t entry : batch.entries) rows += entry >= 0;
  }
  EXPECT_EQ(damaged, 1);
  EXPECT_EQ(rows, utterances - 1);
}

// A talk as TED-LIUM has it: what is heard is the stretch that the line names, of the .sph file.
TEST_F(SpeechLoaderTest, HearsTheStretchOfATalk) {
  const std::vector<float> low = tone(1.0, 300, 8000), high = tone(0.8, 2000, 8000);
  std::vector<float> talk = low;
  talk.insert(talk.end(), high.begin(), high.end());
  talk.insert(talk.end(), low.begin(), low.end());
  write_sound(folder_ / "ted/sph/talk.sph", talk, 8000, SF_FORMAT_NIST | SF_FORMAT_PCM_16);
  write_text(folder_ / "ted/stm/talk.stm", "talk S S 1.0 1.8 <o,f0,female> ab\n");
  write_sound(folder_ / "high.wav", high, 8000);
  const auto corpus = std::make_shared<const SpeechCorpus>(
      std::vector<std::string>{folder_ / "ted"}, config_, 60.0, 1.0);
  const SpeechBatch batch = SpeechLoader(corpus, config_, false).get(0);
  ASSERT_TRUE(batch.damaged.empty());
  const std::vector<float> expected =
      speech_features({folder_ / "high.wav", 0.0, 0.0, ""}, 1.0, 8000, FilterBank(8000, 20));
  ASSERT_EQ(batch.feature_lengths[0], static_cast<int32_t>(expected.size() / 20));
  EXPECT_TRUE(std::equal(expected.begin(), expected.end(), batch.features.begin()));
}

TEST_F(SpeechLoaderTest, FeaturesOfWhatCannotBeHeardNameTheRecording) {
  write_sound(folder_ / "slow.wav", tone(30.0, 1, 20), 20);
  write_sound(folder_ / "brief.wav", tone(0.02, 300, 8000), 8000);
  const FilterBank bank(8000, 20);
  const auto error_of = [&](const std::string& name) {
    return message_of<Error>([&] {
      speech_features({folder_ / name, 0.0, 0.0, ""}, 1.0, 8000, bank);
    });
  };
  EXPECT_THAT(error_of("slow.wav"),
              HasSubstr("slow.wav, of 20 Hz: audio cannot be resampled by 400"));
  EXPECT_THAT(error_of("brief.wav"), HasSubstr("brief.wav: shorter than a window"));
}

TEST_F(SpeechLoaderTest, UtterancesBeyondTheLastBucketAreAnError) {
  config_.data.speech.bucket_seconds = {0.5, 1.0};
  EXPECT_THAT(message_of<Error>([&] { SpeechLoader(corpus_, config_, true); }),
              HasSubstr("more than the last of data.speech.bucket_seconds, 1"));
}

}  // namespace
}  // namespace sigtrain
