#include "train/progress.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pty.h>
#include <spdlog/spdlog.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>

#include "../file_testing.h"
#include "core/error.h"
#include "core/log.h"

namespace sigtrain {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(Format, Durations) {
  const std::pair<double, std::string> table[] = {
      {0, "0.0s"},     {8.44, "8.4s"},     {9.96, "10s"},    {59.4, "59s"},     {59.6, "1m 00s"},
      {200, "3m 20s"}, {3599.7, "1h 00m"}, {7500, "2h 05m"}, {86400, "1d 00h"}, {273600, "3d 04h"},
      {-1, "?"},       {NAN, "?"},         {INFINITY, "?"},
  };
  for (const auto& [seconds, text] : table) EXPECT_EQ(format_duration(seconds), text) << seconds;
}

TEST(Format, Counts) {
  const std::pair<double, std::string> table[] = {
      {0, "0"},           {7, "7"},        {0.5, "0.50"},     {950, "950"},     {999.4, "999"},
      {999.6, "1.00k"},   {9994, "9.99k"}, {9996, "10.0k"},   {52900, "52.9k"}, {999600, "1.00M"},
      {1.314e9, "1.31B"}, {5e15, "5000T"}, {-1500, "-1.50k"}, {NAN, "?"},
  };
  for (const auto& [count, text] : table) EXPECT_EQ(format_count(count), text) << count;
}

ProgressValues example() {
  return {.step = 1200,
          .total_steps = 400000,
          .loss = 3.21453,
          .validation_loss = 3.3012,
          .lr = 1e-3,
          .grad_norm = 0.5234,
          .units_per_second = 52900.0,
          .seconds_left = 7500.0};
}

TEST(Progress, LineTellsWhatIsKnown) {
  EXPECT_EQ(progress_line(example()),
            "step 1,200/400,000  loss 3.2145  val 3.3012  lr 1.00e-03  grad 0.523  52.9k tok/s  "
            "ETA 2h 05m");
  EXPECT_EQ(progress_line({.step = 1, .total_steps = 10, .loss = NAN}), "step 1/10  loss nan");
}

TEST(Progress, LineTellsWhatTheHardwareDoes) {
  EXPECT_EQ(progress_line({.step = 1,
                           .total_steps = 10,
                           .units_per_second = 52900.0,
                           .tflops = 476.4,
                           .mfu = 0.4812}),
            "step 1/10  52.9k tok/s  476 TFLOP/s  48.1% MFU");
}

TEST(Progress, LineTellsTheAccuracyOfClassifiers) {
  EXPECT_EQ(progress_line({.step = 1,
                           .total_steps = 10,
                           .validation_loss = 0.5,
                           .validation_accuracy = 0.91254,
                           .units_per_second = 2820.0,
                           .unit = "image"}),
            "step 1/10  val 0.5000  acc 91.25%  2.82k image/s");
}

TEST(Progress, LineTellsTheErrorsOfSpeech) {
  EXPECT_EQ(progress_line({.step = 1,
                           .total_steps = 10,
                           .validation_loss = 1.9434,
                           .letter_error_rate = 0.2736,
                           .units_per_second = 206.0,
                           .unit = "audio_second"}),
            "step 1/10  val 1.9434  letter errors 27.36%  206 audio_second/s");
}

TEST(Progress, BarFitsEveryWidth) {
  for (int columns = 0; columns < 200; ++columns) {
    EXPECT_LE(progress_bar(example(), columns).size(), static_cast<size_t>(columns));
  }
  EXPECT_EQ(progress_bar({.step = 5, .total_steps = 10}, 40),
            " 50% [###########-----------]  step 5/10");
  EXPECT_THAT(progress_bar(example(), 60), Not(HasSubstr("ETA")));
  EXPECT_THAT(progress_bar({.step = 999, .total_steps = 1000}, 60), HasSubstr(" 99%"));
  EXPECT_THAT(progress_bar({.step = 0, .total_steps = 0}, 60), HasSubstr("100%"));
}

TEST(Log, RefusesAnUnknownLevelAndAnUnwritableFile) {
  EXPECT_THAT(message_of<UsageError>([] { init_log({.level = "loud"}); }), HasSubstr("'loud'"));
  EXPECT_THAT(message_of<Error>([] { init_log({.file = "/dev/null/log"}); }),
              HasSubstr("/dev/null/log"));
}

// Runs `action` in a child whose standard output is a terminal of 70 columns; what it printed.
std::string on_a_terminal(void (*action)(const std::string&), const std::string& argument) {
  winsize size{};
  size.ws_row = 24;
  size.ws_col = 70;
  int terminal = -1;
  std::fflush(stdout);  // or the child would print once more what is still to be written
  const pid_t child = forkpty(&terminal, nullptr, nullptr, &size);
  if (child == 0) {
    action(argument);
    _exit(0);
  }
  std::string printed;
  char buffer[4096];
  for (ssize_t n; (n = read(terminal, buffer, sizeof(buffer))) > 0;) {
    printed.append(buffer, static_cast<size_t>(n));
  }
  close(terminal);
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  return printed;
}

// What a terminal shows in the end, for the few controls that the log uses.
std::vector<std::string> screen(const std::string& printed) {
  std::vector<std::string> lines(1);
  for (size_t i = 0; i < printed.size(); ++i) {
    if (printed.compare(i, 5, "\r\x1b[2K") == 0) {
      lines.back().clear();
      i += 4;
    } else if (printed[i] == '\n') {
      lines.emplace_back();
    } else if (printed[i] != '\r') {
      lines.back() += printed[i];
    }
  }
  return lines;
}

void train_a_little(const std::string& file) {
  init_log({.rank = 0, .ranks = 2, .file = file});
  Progress progress(0, 4);
  for (int64_t step = 1; step <= 3; ++step) {
    ProgressValues values{.step = step, .loss = 2.0};
    if (step == 1) values.validation_loss = 4.0;
    progress.update(values, static_cast<double>(step) * 10.0, 0.0);
    progress.log(values, static_cast<double>(step) * 10.0, 0.0);
    if (step == 2) spdlog::info("between");
  }
  spdlog::warn("careful");
  std::fputs("\n", stdout);  // so that the last state of the live line stays
  std::fflush(stdout);
  _exit(0);
}

TEST(Progress, LiveLineStaysBelowTheLogAndTheFileGetsPlainLines) {
  const TemporaryFolder folder;
  const std::string file = (folder / "log").string();
  const std::vector<std::string> lines = screen(on_a_terminal(train_a_little, file));
  ASSERT_EQ(lines.size(), 4u);
  EXPECT_THAT(lines[0], testing::MatchesRegex(R"(\[..:..:..\] \[rank 0\] between)"));
  EXPECT_THAT(lines[1], HasSubstr("warning:\x1b[0m careful"));
  EXPECT_THAT(lines[2], HasSubstr(" 75% [#"));
  EXPECT_THAT(lines[2], HasSubstr("step 3/4  loss 2.0000  val 4.0000  ETA 10s"));
  EXPECT_LT(lines[2].size(), 70u);

  const std::string log = slurp(file);
  EXPECT_THAT(log, HasSubstr("[rank 0] step 1/4  loss 2.0000  val 4.0000\n"));
  EXPECT_THAT(log, HasSubstr("] step 2/4  loss 2.0000  val 4.0000  ETA 20s\n"));
  EXPECT_THAT(log, HasSubstr("] between\n"));
  EXPECT_THAT(log, HasSubstr("] warning: careful\n"));
  EXPECT_EQ(log.find('\x1b'), std::string::npos);
}

TEST(Progress, TimeLeftCountsEvaluationsEvenly) {
  testing::internal::CaptureStdout();
  init_log({});
  Progress progress(100, 110);  // as after a resume
  // Steps of 10 seconds; after the second one an evaluation of 20, after the fourth a checkpoint.
  progress.log({.step = 101}, 15.0, 0.0);
  progress.log({.step = 102}, 45.0, 20.0);
  progress.log({.step = 103}, 55.0, 20.0);
  progress.log({.step = 104}, 65.0, 20.0);
  progress.log({.step = 105}, 80.0, 25.0);
  const std::string printed = testing::internal::GetCapturedStdout();
  EXPECT_THAT(printed, HasSubstr("step 101/110\n"));
  EXPECT_THAT(printed, HasSubstr("step 102/110  ETA 2m 40s\n"));  // 8 (10 + 20 / 2)
  EXPECT_THAT(printed, HasSubstr("step 103/110  ETA 1m 57s\n"));  // 7 (10 + 20 / 3)
  EXPECT_THAT(printed, HasSubstr("step 104/110  ETA 1m 30s\n"));  // 6 (10 + 20 / 4)
  EXPECT_THAT(printed, HasSubstr("step 105/110  ETA 1m 15s\n"));  // 5 (10 + 25 / 5)
}

TEST(Progress, ARedirectedOutputGetsPlainLines) {
  testing::internal::CaptureStdout();
  init_log({});
  Progress progress(0, 4);
  progress.update({.step = 1, .loss = 2.0}, 1.0, 0.0);
  progress.log({.step = 1, .loss = 2.0}, 1.0, 0.0);
  init_log({.rank = 1, .ranks = 2});
  spdlog::info("other ranks say nothing");
  spdlog::warn("but their warnings");
  const std::string printed = testing::internal::GetCapturedStdout();
  EXPECT_THAT(printed, testing::MatchesRegex("\\[..:..:..\\] step 1/4  loss 2.0000\n"
                                             "\\[..:..:..\\] \\[rank 1\\] warning: but their "
                                             "warnings\n"));
}

}  // namespace
}  // namespace sigtrain
