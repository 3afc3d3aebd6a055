// Recognition of speech through the programs: training, resuming, transcribing, and bad input.
#include "small_run.h"
#include "small_speech_run.h"

namespace sigtrain {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using Words = std::vector<std::string>;

class SpeechRun : public SmallRun {
 protected:
  SpeechRun() { write_small_speech(folder()); }
};

TEST_F(SpeechRun, LearnsReportsItsErrorsAndTranscribes) {
  // Nothing but the tones themselves, so that a few steps are enough.
  const ProcessResult trained =
      train_well({"--set", "train.steps=220", "--set", "model.dropout=0", "--set",
                  "model.layer_drop=0", "--set", "augment.speech.time_masks=0", "--set",
                  "augment.speech.frequency_masks=0", "--set", "model.position.kind=alibi", "--set",
                  "eval.every=220", "--set", "eval.beam_width=4", "--set", "log.every=20"});
  EXPECT_THAT(trained.output(), HasSubstr("letter errors "));
  const auto lines = metrics("small");
  const auto& last = lines.back();
  EXPECT_EQ(last.at("split"), "validation");
  for (const char* name : {"letter_error_rate", "word_error_rate", "letter_error_rate_up_to_0.8s",
                           "word_error_rate_up_to_1.5s"})
    EXPECT_TRUE(last.contains(name)) << name << " in " << last;
  EXPECT_FALSE(last.contains("accuracy"));
  EXPECT_LE(last.at("letter_error_rate").get<double>(), 0.1) << last;
  EXPECT_LT(lines[lines.size() - 2].at("loss").get<double>(), 0.3);
  for (const char* name : {"attention_out_rms", "attention_row_sum", "audio_seconds"})
    EXPECT_TRUE(lines[0].contains(name)) << name;

  const ProcessResult one = run("transcribe", {"runs/small", "sounds/8.wav"});
  EXPECT_EQ(one.exit_code, 0) << one.output();
  EXPECT_EQ(one.out, "aaaba\n");
  // All that can be read is, and the rest is named.
  spill(folder() / "noise.wav", "no recording");
  const ProcessResult many =
      run("transcribe", {"runs/small", "sounds/8.wav", "noise.wav", "sounds/5.wav", "--beam", "8"});
  EXPECT_EQ(many.exit_code, 1);
  EXPECT_EQ(many.out, "sounds/8.wav\taaaba\nsounds/5.wav\tba\n");
  EXPECT_THAT(many.err, HasSubstr("noise.wav: no audio that can be read"));

  const ProcessResult evaluated =
      run("trainer", {"--config", "runs/small/config.yaml", "--eval-only"});
  EXPECT_EQ(evaluated.exit_code, 0) << evaluated.output();
  EXPECT_THAT(evaluated.output(), HasSubstr("letter_error_rate"));
}

TEST_F(SpeechRun, ResumesToTheSameBits) {
  train_well({});
  // As if stopped after step 6, and gone on with by the file that the run wrote.
  train_well({"--set", "run.name=other"}, 2);
  fs::remove_all(checkpoint("other", 12));
  const ProcessResult resumed =
      run("trainer", {"--config", "runs/other/config.yaml", "--resume", "auto"});
  EXPECT_EQ(resumed.exit_code, 0) << resumed.output();
  EXPECT_THAT(resumed.output(), HasSubstr("at step 6"));
  auto expected = metrics("small"), actual = metrics("other");
  for (auto* lines : {&expected, &actual})
    for (auto& line : *lines) line.erase("audio_seconds_per_second");
  EXPECT_EQ(actual, expected);
  EXPECT_TRUE(slurp(checkpoint("small", 12) / "model.safetensors") ==
              slurp(checkpoint("other", 12) / "model.safetensors"));
}

TEST_F(SpeechRun, GoesOnAtOtherBatchesAndSaysWhy) {
  train_well({"--set", "train.steps=2"});
  const auto go_on = [&](const Words& more) {
    const ProcessResult result = run(
        "trainer", Words{"--config", "runs/small/config.yaml", "--resume", "auto", "--set"} + more);
    EXPECT_EQ(result.exit_code, 0) << result.output();
    return result.output();
  };
  EXPECT_THAT(go_on({"train.steps=3"}), Not(HasSubstr("goes on at other batches")));
  EXPECT_THAT(go_on({"train.steps=4", "data.speech.batch_seconds=3"}),
              HasSubstr("the checkpoint was trained with batch_seconds 4.0, this run has 3.0: it "
                        "goes on at other batches"));
  spill(folder() / "train.tsv", slurp(folder() / "train.tsv") + "sounds/0.wav\t0\t0\tbb\n");
  const std::string output = go_on({"train.steps=5", "data.speech.batch_seconds=3"});
  EXPECT_THAT(output, HasSubstr("the checkpoint was trained with utterances \""));
  EXPECT_THAT(output, Not(HasSubstr("batch_seconds 4.0")));
}

// An error rate of nothing would be the best there is.
TEST_F(SpeechRun, EvaluationOfNothingButDamagedRecordingsIsAnError) {
  write_sound((folder() / "cut.flac").string(), tone(1.0, 300, 8000), 8000,
              SF_FORMAT_FLAC | SF_FORMAT_PCM_16);
  fs::resize_file(folder() / "cut.flac", fs::file_size(folder() / "cut.flac") / 2);
  spill(folder() / "test.tsv", "path\tstart\tduration\ttranscript\ncut.flac\t0\t0\ta\n");
  const ProcessResult result = train({"--set", "data.speech.max_damaged=1"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.output(), AllOf(HasSubstr("left out: cut.flac: damaged"),
                                     HasSubstr("none of the recordings of data.validation can be "
                                               "read")));
  EXPECT_THAT(result.output(), Not(HasSubstr("letter errors")));
}

TEST_F(SpeechRun, BadUtterancesAreCountedNamedAndAnErrorPastTheirShare) {
  write_sound((folder() / "short.wav").string(), tone(0.05, 300, 8000), 8000);
  write_sound((folder() / "empty.wav").string(), {}, 8000);
  const std::string good = slurp(folder() / "train.tsv");
  spill(folder() / "train.tsv", good + "missing.wav\t0\t0\ta\nempty.wav\t0\t0\ta\n" +
                                    "sounds/1.wav\t0\t0\taxb\nshort.wav\t0\t0\tabab\n");
  const ProcessResult refused = train({});
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_THAT(refused.output(),
              AllOf(HasSubstr("4 of 24 utterances"), HasSubstr("data.speech.max_damaged, 0.01"),
                    HasSubstr("missing.wav"), HasSubstr("empty.wav: the audio is empty"),
                    HasSubstr("'axb' has a letter that data.speech.letters lacks"),
                    HasSubstr("short.wav")));
  EXPECT_FALSE(fs::exists(folder() / "runs"));
  const ProcessResult tolerated =
      train_well({"--set", "data.speech.max_damaged=0.2", "--set", "train.steps=2"});
  EXPECT_THAT(tolerated.output(), AllOf(HasSubstr("20 utterances"), HasSubstr("2 unreadable"),
                                        HasSubstr("1 with unknown letters"),
                                        HasSubstr("1 shorter than their letters")));
  for (const char* name :
       {"missing.wav: no", "empty.wav: the audio", "sounds/1.wav: 'axb'", "short.wav: 0.05 s"})
    EXPECT_THAT(tolerated.output(), HasSubstr(name));
}

TEST_F(SpeechRun, RecordingsDamagedWithinAreNamedAndAnErrorPastTheirShare) {
  // The header is whole, the samples are not all there.
  write_sound((folder() / "cut.flac").string(), tone(1.0, 300, 8000), 8000,
              SF_FORMAT_FLAC | SF_FORMAT_PCM_16);
  fs::resize_file(folder() / "cut.flac", fs::file_size(folder() / "cut.flac") / 2);
  spill(folder() / "train.tsv", slurp(folder() / "train.tsv") + "cut.flac\t0\t0\ta\n");
  const ProcessResult refused = train({});
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_THAT(refused.output(),
              AllOf(HasSubstr("recordings are damaged, more than data.speech.max_damaged, 0.01"),
                    HasSubstr("cut.flac: damaged")));
  const ProcessResult tolerated = train_well({"--set", "data.speech.max_damaged=0.1"});
  EXPECT_THAT(tolerated.output(), HasSubstr("left out: "));
}

// A share is of the set's own utterances: damage in training does not count against evaluation.
TEST_F(SpeechRun, DamageIsCountedForEachSetByItself) {
  for (const char* name : {"train", "test"}) {
    const std::string recording = std::string("cut_") + name + ".flac";
    write_sound((folder() / recording).string(), tone(1.0, 300, 8000), 8000,
                SF_FORMAT_FLAC | SF_FORMAT_PCM_16);
    fs::resize_file(folder() / recording, fs::file_size(folder() / recording) / 2);
    const fs::path manifest = folder() / (std::string(name) + ".tsv");
    spill(manifest, slurp(manifest) + recording + "\t0\t0\ta\n");
  }
  // One of the five to be evaluated.
  const ProcessResult tolerated = train_well({"--set", "data.speech.max_damaged=0.2"});
  EXPECT_THAT(tolerated.output(), AllOf(HasSubstr("left out: cut_train.flac: damaged"),
                                        HasSubstr("left out: cut_test.flac: damaged")));
}

// What training would make too fast for its letters is evaluated all the same: as it is.
TEST_F(SpeechRun, EvaluationLeavesOutNoUtteranceForTheSpeedOfTraining) {
  write_sound((folder() / "tight.wav").string(), tone(0.115, 300, 8000), 8000);
  spill(folder() / "test.tsv", slurp(folder() / "test.tsv") + "tight.wav\t0\t0\tabab\n");
  const ProcessResult result = train_well({"--set", "train.steps=2"});
  EXPECT_THAT(result.output(), HasSubstr("validation: 5 utterances"));
}

TEST_F(SpeechRun, ConfigMistakesAreNamed) {
  const ProcessResult result =
      train({"--set", "data.speech.bucket_seconds=[2, 1]", "--set", "model.attention.causal=true",
             "--set", "train.micro_batch=2", "--set", "model.vision.image_size=32", "--set",
             "model.vocab_size=9", "--set", "model.speech.stride=0"});
  EXPECT_EQ(result.exit_code, 2);
  for (const char* part :
       {"data.speech.bucket_seconds", "must rise", "model.attention.causal", "train.micro_batch",
        "model.vision.image_size", "has no effect on task speech_recognition", "model.vocab_size",
        "model.speech.stride"})
    EXPECT_THAT(result.output(), HasSubstr(part));
  spill(folder() / "small.yaml", std::string(kSmallConfig));
  const ProcessResult other = train({"--set", "data.speech.sample_rate=8000", "--set",
                                     "model.position.kind=cape", "--set", "eval.beam_width=3"});
  EXPECT_EQ(other.exit_code, 2);
  for (const char* part : {"data.speech.sample_rate", "has no effect on task language_modeling",
                           "cape is of speech", "eval.beam_width"})
    EXPECT_THAT(other.output(), HasSubstr(part));
}

TEST_F(SpeechRun, OfAnotherTaskIsRefused) {
  train_well({"--set", "train.steps=2"});
  const ProcessResult generated = run("generate", {"runs/small"});
  EXPECT_EQ(generated.exit_code, 2);
  EXPECT_THAT(generated.output(), HasSubstr("no language model but one for speech_recognition"));
}

}  // namespace
}  // namespace sigtrain
