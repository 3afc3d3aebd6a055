#include "data/speech_corpus.h"

#include <gmock/gmock.h>

#include "core/error.h"
#include "data/sound.h"
#include "data/temporary_folder.h"

namespace sigtrain {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
using testing::Pair;

/// A manifest over recordings of one second each, of which some lines are as given.
class SpeechCorpusTest : public testing::Test {
 protected:
  void SetUp() override { write_sound(folder_ / "good.wav", tone(1.0, 300, 8000), 8000); }

  SpeechCorpus corpus(const std::string& lines, double max_damaged, double longest = 60.0,
                      double fastest = 1.1) {
    std::string text = "path\tstart\tduration\ttranscript\n";
    for (int i = 0; i < 10; ++i) text += "good.wav\t0\t0\tab a\n";
    write_text(folder_ / "m.tsv", text + lines);
    Config config;
    config.data.speech.sample_rate = 8000;
    config.data.speech.letters = "ab ";
    config.data.speech.max_damaged = max_damaged;
    return SpeechCorpus({folder_ / "m.tsv"}, config, longest, fastest);
  }

  TemporaryFolder folder_;
};

TEST_F(SpeechCorpusTest, HoldsWhatCanBeUsed) {
  const SpeechCorpus good = corpus("good.wav\t0.25\t0.5\tbb\n", 0.0);
  ASSERT_EQ(good.entries().size(), 11u);
  EXPECT_THAT(good.entries()[0].targets, ElementsAre(1, 2, 3, 1));
  EXPECT_DOUBLE_EQ(good.entries()[0].seconds, 1.0);
  EXPECT_DOUBLE_EQ(good.entries()[10].seconds, 0.5);
  EXPECT_NEAR(good.hours(), 10.5 / 3600, 1e-12);
  EXPECT_TRUE(good.unusable().empty());
  EXPECT_NE(good.hash(), corpus("good.wav\t0.25\t0.5\tba\n", 0.0).hash());
}

TEST_F(SpeechCorpusTest, EachUnusableKindIsCountedNamedAndAnErrorPastItsShare) {
  write_text(folder_ / "text.wav", "no recording");
  write_sound(folder_ / "empty.wav", {}, 8000);
  write_sound(folder_ / "short.wav", tone(0.06, 300, 8000), 8000);
  struct Case {
    const char *line, *reason, *example;
  };
  for (const Case& c :
       {Case{"missing.wav\t0\t0\ta\n", "unreadable", "missing.wav: no audio"},
        Case{"text.wav\t0\t0\ta\n", "unreadable", "text.wav: no audio"},
        Case{"empty.wav\t0\t0\ta\n", "unreadable", "empty.wav: the audio is empty"},
        Case{"good.wav\t0.5\t0.9\ta\n", "outside of its recording",
             "good.wav from 0.50 s: the 0.90 s wanted go past its end at 1.00 s"},
        Case{"good.wav\t2\t0\ta\n", "outside of its recording",
             "good.wav from 2.00 s: that is past its end at 1.00 s"},
        Case{"good.wav\t0\t0\ta c\n", "with unknown letters", "'a c' has a letter"},
        Case{"short.wav\t0\t0\tabab\n", "shorter than their letters",
             "0.06 s give 1 frames for the 4 that 'abab' needs"},
        Case{"short.wav\t0\t0\taa\n", "shorter than their letters", "for the 3 that 'aa' needs"}}) {
    SCOPED_TRACE(c.line);
    const SpeechCorpus tolerant = corpus(c.line, 0.1);
    EXPECT_EQ(tolerant.entries().size(), 10u);
    EXPECT_THAT(tolerant.unusable(), ElementsAre(Pair(c.reason, 1)));
    EXPECT_THAT(tolerant.describe(), HasSubstr(std::string("left out: 1 ") + c.reason));
    EXPECT_THAT(tolerant.left_out(), ElementsAre(HasSubstr(c.example)));
    const std::string error = message_of<Error>([&] { corpus(c.line, 0.09); });
    EXPECT_THAT(error, HasSubstr("1 of 11 utterances"));
    EXPECT_THAT(error, HasSubstr("data.speech.max_damaged, 0.09"));
    EXPECT_THAT(error, HasSubstr(c.example));
  }
}

TEST_F(SpeechCorpusTest, EveryUnusableUtteranceIsNamedAndAnErrorNamesTheFirst) {
  std::string lines;
  for (int i = 0; i < 12; ++i) lines += "missing" + std::to_string(i) + ".wav\t0\t0\ta\n";
  const SpeechCorpus tolerant = corpus(lines, 0.9);
  ASSERT_EQ(tolerant.left_out().size(), 12u);
  for (size_t i = 0; i < 12; ++i) {
    EXPECT_THAT(tolerant.left_out()[i], HasSubstr("missing" + std::to_string(i) + ".wav: no"));
  }
  const std::string error = message_of<Error>([&] { corpus(lines, 0.5); });
  EXPECT_THAT(error, HasSubstr("missing4.wav"));
  EXPECT_THAT(error, Not(HasSubstr("missing5.wav")));
  EXPECT_THAT(error, HasSubstr("and 7 more, which a larger data.speech.max_damaged has named"));
}

TEST_F(SpeechCorpusTest, LongUtterancesAreLeftOutWithoutBeingDamage) {
  write_sound(folder_ / "long.wav", tone(2.0, 300, 8000), 8000);
  const SpeechCorpus some = corpus("long.wav\t0\t0\ta\n", 0.0, 1.5);
  EXPECT_EQ(some.entries().size(), 10u);
  EXPECT_EQ(some.too_long(), 1);
  EXPECT_THAT(some.describe(), HasSubstr("1 too long"));
  EXPECT_THAT(message_of<Error>([&] { corpus("", 0.0, 0.5); }), HasSubstr("no utterance is left"));
}

TEST_F(SpeechCorpusTest, WhatNobodyWroteDownIsLeftOutAndCounted) {
  write_sound(folder_ / "ted/sph/talk.flac", tone(3.0, 300, 8000), 8000,
              SF_FORMAT_FLAC | SF_FORMAT_PCM_16);
  write_text(folder_ / "ted/stm/talk.stm",
             "talk 1 S 0 1 <o> ab\ntalk 1 S 1 2 <o> <unk>\n"
             "talk 1 S 2 3 <o> ignore_time_segment_in_scoring\n");
  Config config;
  config.data.speech.letters = "ab ";
  config.data.speech.max_damaged = 0.0;
  const SpeechCorpus some({folder_ / "ted"}, config, 60.0, 1.0);
  EXPECT_EQ(some.entries().size(), 1u);
  EXPECT_EQ(some.untranscribed(), 2);
  EXPECT_THAT(some.describe(), HasSubstr("left out: 2 not transcribed"));
}

// 0.115 s are 10 frames of features, so 4 of the model's; at 1.1 times the speed 8 and 3.
TEST_F(SpeechCorpusTest, UtterancesNeedTheFramesForTheirLettersAtTheFastestSpeed) {
  write_sound(folder_ / "tight.wav", tone(0.115, 300, 8000), 8000);
  const std::string line = "tight.wav\t0\t0\tabab\n";
  EXPECT_EQ(corpus(line, 0.0, 60.0, 1.0).entries().size(), 11u);
  EXPECT_THAT(corpus(line, 0.1, 60.0, 1.1).unusable(),
              ElementsAre(Pair("shorter than their letters", 1)));
}

}  // namespace
}  // namespace sigtrain
