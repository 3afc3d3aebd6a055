#include "data/utterances.h"

#include <gmock/gmock.h>

#include "core/error.h"
#include "data/temporary_folder.h"

namespace sigtrain {
namespace {

using testing::HasSubstr;

constexpr std::string_view header = "path\tstart\tduration\ttranscript\n";

TEST(Utterances, OfAManifest) {
  const TemporaryFolder folder;
  write_text(folder / "m.tsv", std::string(header) + "a/b.wav\t0\t0\thello there\r\n\n" +
                                   "/else/c.flac\t1.5\t2.25\t\nd e.wav\t\t\tspaces\n");
  const std::vector<Utterance> all = find_utterances({folder / "m.tsv"});
  ASSERT_EQ(all.size(), 3u);
  EXPECT_EQ(all[0].path, folder / "a/b.wav");
  EXPECT_EQ(all[0].transcript, "hello there");
  EXPECT_EQ(all[1].path, "/else/c.flac");
  EXPECT_EQ(all[1].start, 1.5);
  EXPECT_EQ(all[1].duration, 2.25);
  EXPECT_EQ(all[1].transcript, "");
  EXPECT_EQ(all[2].path, folder / "d e.wav");
  EXPECT_EQ(all[2].duration, 0.0);
}

TEST(Utterances, BadManifestsAreNamedWithTheLine) {
  const TemporaryFolder folder;
  const auto error_of = [&](const std::string& text) {
    write_text(folder / "m.tsv", text);
    return message_of<Error>([&] { find_utterances({folder / "m.tsv"}); });
  };
  EXPECT_THAT(error_of(""), HasSubstr("m.tsv: the manifest is empty"));
  EXPECT_THAT(error_of("a.wav\t0\t0\thello\n"), HasSubstr("m.tsv:1: a manifest begins with"));
  const std::string start(header);
  EXPECT_THAT(error_of(start + "a.wav\t0\thello\n"), HasSubstr("m.tsv:2: not a path"));
  EXPECT_THAT(error_of(start + "a.wav\t0\t0\thel\tlo\n"), HasSubstr("m.tsv:2: not a path"));
  EXPECT_THAT(error_of(start + "\t0\t0\thello\n"), HasSubstr("m.tsv:2: not a path"));
  EXPECT_THAT(error_of(start + "a.wav\tx\t0\thello\n"),
              HasSubstr("m.tsv:2: the start 'x' is no number of seconds"));
  EXPECT_THAT(error_of(start + "a.wav\t0\t-1\thello\n"), HasSubstr("the duration '-1'"));
  EXPECT_THAT(error_of(start + "a.wav\t0\tnan\thello\n"), HasSubstr("the duration 'nan'"));
  EXPECT_THAT(error_of(start + "a.wav\tinf\t0\thello\n"), HasSubstr("the start 'inf'"));
  EXPECT_THAT(error_of(start + "a.wav\t0\t1e300\thello\n"), HasSubstr("the duration '1e300'"));
}

TEST(Utterances, OfLibriSpeech) {
  const TemporaryFolder folder;
  write_text(folder / "train/19/198/19-198.trans.txt",
             "19-198-0000 NORTHANGER ABBEY\n19-198-0001 THIS LITTLE WORK\n");
  write_text(folder / "train/103/1240/103-1240.trans.txt", "103-1240-0000 CHAPTER ONE\n");
  const std::vector<Utterance> all = find_utterances({folder / "train"});
  ASSERT_EQ(all.size(), 3u);
  EXPECT_EQ(all[0].path, folder / "train/103/1240/103-1240-0000.flac");
  EXPECT_EQ(all[0].transcript, "CHAPTER ONE");
  EXPECT_EQ(all[2].path, folder / "train/19/198/19-198-0001.flac");
  EXPECT_EQ(all[2].duration, 0.0);
  write_text(folder / "bad/1-2.trans.txt", "1-2-0000\n");
  EXPECT_THAT(message_of<Error>([&] { find_utterances({folder / "bad"}); }),
              HasSubstr("1-2.trans.txt:1: not a name and the words behind it"));
}

TEST(Utterances, OfTedlium) {
  const TemporaryFolder folder;
  write_text(folder / "train/stm/talk.stm",
             ";; a comment\n"
             "talk S S 10.5 12.75 <o,f0,female> it 's about <unk> time\n"
             "talk S S 12.75 14 <o,f0,female> ignore_time_segment_in_scoring\n"
             "talk S S 14 15 <o,f0,female> don 't\n"
             "talk S S 15 16 <o,f0,female> <unk>\n");
  write_text(folder / "train/stm/other.stm", "other 1 A 0 1.5 <NA> hello\n");
  write_text(folder / "train/sph/other.flac", "");
  const std::vector<Utterance> all = find_utterances({folder / "train"});
  ASSERT_EQ(all.size(), 5u);
  EXPECT_EQ(all[0].path, folder / "train/sph/other.flac");
  EXPECT_EQ(all[1].path, folder / "train/sph/talk.sph");
  EXPECT_EQ(all[1].start, 10.5);
  EXPECT_EQ(all[1].duration, 2.25);
  EXPECT_EQ(all[1].transcript, "it's about time");
  EXPECT_EQ(all[3].transcript, "don't");
  for (size_t i = 0; i < all.size(); ++i)
    EXPECT_EQ(all[i].is_transcribed, i != 2 && i != 4) << all[i].transcript;
  for (const auto& [line, problem] :
       {std::pair("talk S S 1 <o> hello\n", "talk.stm:1: not a talk"),
        std::pair("talk S S 2 1 <o> hello\n", "talk.stm:1: the end, 1, is not behind the start, 2"),
        std::pair("talk S S x 1 <o> hello\n", "talk.stm:1: the start 'x'")}) {
    write_text(folder / "bad/stm/talk.stm", line);
    EXPECT_THAT(message_of<Error>([&] { find_utterances({folder / "bad"}); }), HasSubstr(problem));
  }
}

TEST(Utterances, LinksAreFollowedAndAFolderIsTakenOnce) {
  const TemporaryFolder folder;
  write_text(folder / "disk/19/198/19-198.trans.txt", "19-198-0000 NORTHANGER ABBEY\n");
  write_text(folder / "disk/stm/talk.stm", "talk 1 A 0 1 <o> hello\n");
  write_text(folder / "train/103/1240/103-1240.trans.txt", "103-1240-0000 CHAPTER ONE\n");
  std::filesystem::create_directory_symlink("../disk/19", folder / "train/19");
  std::filesystem::create_directory_symlink("103", folder / "train/again");
  std::filesystem::create_directory_symlink("..", folder / "train/103/up");
  const std::vector<Utterance> all = find_utterances({folder / "train"});
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0].path, folder / "train/103/1240/103-1240-0000.flac");
  EXPECT_EQ(all[1].path, folder / "train/19/198/19-198-0000.flac");

  std::filesystem::create_directory(folder / "ted");
  std::filesystem::create_directory_symlink("../disk/stm", folder / "ted/stm");
  const std::vector<Utterance> talk = find_utterances({folder / "ted"});
  ASSERT_EQ(talk.size(), 1u);
  EXPECT_EQ(talk[0].path, folder / "ted/sph/talk.sph");
}

TEST(Utterances, LinksThatLeadNowhereAreNamedWhereTranscriptsMayBe) {
  for (const char* name : {"19", "1-2.trans.txt", "stm/talk.stm"}) {
    const TemporaryFolder folder;
    write_text(folder / "train/103/103-1.trans.txt", "103-1-0000 CHAPTER ONE\n");
    std::filesystem::create_directories(folder / "train/stm");
    // What is missing of the recordings and other files is no transcript.
    std::filesystem::create_symlink("gone.flac", folder / "train/103/103-1-0000.flac");
    EXPECT_EQ(find_utterances({folder / "train"}).size(), 1u);
    std::filesystem::create_symlink("gone", folder / (std::string("train/") + name));
    EXPECT_THAT(message_of<Error>([&] { find_utterances({folder / "train"}); }),
                HasSubstr(std::string(name) + ": cannot be read: No such file"));
  }
}

TEST(Utterances, FoldersThatCannotBeReadAreNamed) {
  const TemporaryFolder folder;
  const uid_t user = ::geteuid();
  write_text(folder / "train/103/103-1.trans.txt", "103-1-0000 CHAPTER ONE\n");
  write_text(folder / "train/19/198/19-198.trans.txt", "19-198-0000 NORTHANGER ABBEY\n");
  for (const unsigned permissions : {0000U, 0444U}) {  // not to be listed; not to be entered
    std::filesystem::permissions(folder / "train/19",
                                 static_cast<std::filesystem::perms>(permissions));
    std::filesystem::permissions(folder.path(), std::filesystem::perms::all);
    // Root may read all: someone else asks.
    ASSERT_EQ(::seteuid(user == 0 ? 65534 : user), 0);
    const std::string error = message_of<Error>([&] { find_utterances({folder / "train"}); });
    ASSERT_EQ(::seteuid(user), 0);
    EXPECT_THAT(error, HasSubstr("train/19"));
    EXPECT_THAT(error, HasSubstr("cannot be read: Permission denied; make it readable"));
    std::filesystem::permissions(folder / "train/19", std::filesystem::perms::all);
  }
}

TEST(Utterances, UnknownInputsAreErrors) {
  const TemporaryFolder folder;
  EXPECT_THAT(message_of<UsageError>([&] { find_utterances({folder / "none"}); }),
              HasSubstr("none: no such manifest or folder of speech"));
  std::filesystem::create_directories(folder / "empty");
  EXPECT_THAT(message_of<UsageError>([&] { find_utterances({folder / "empty"}); }),
              HasSubstr("empty: no transcripts in it"));
  write_text(folder / "both/a.trans.txt", "a B\n");
  write_text(folder / "both/stm/a.stm", "a 1 A 0 1 <o> b\n");
  EXPECT_THAT(message_of<UsageError>([&] { find_utterances({folder / "both"}); }),
              HasSubstr("both LibriSpeech's"));
}

}  // namespace
}  // namespace sigtrain
