#include "train/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <numeric>

#include "../file_testing.h"
#include "core/error.h"

namespace sigtrain {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

const char* const file_names[] = {"model.safetensors", "optimizer.safetensors", "state.json",
                                  "config.yaml", "MANIFEST.json"};

// A small model whose every number tells the step.
class CheckpointTest : public testing::Test {
 protected:
  CheckpointContents contents(int64_t step) {
    std::fill(weight_.begin(), weight_.end(), static_cast<float>(step));
    std::iota(moment_.begin(), moment_.end(), static_cast<float>(step));
    CheckpointContents result;
    result.model = {{"embedding.weight", {weight_.data(), DType::f32, {4, 8}}}};
    result.optimizer = {{"adam.m.embedding.weight", {moment_.data(), DType::f32, {4, 8}}},
                        {"adam.v.embedding.weight", {moment_.data(), DType::f32, {32}}}};
    result.state = {.step = step,
                    .tokens = step * 1024,
                    .seed = UINT64_MAX,
                    .data_position = {{"shard", 3}, {"offset", 12345678901}},
                    .skipped_steps = 2,
                    .skipped_in_a_row = 1,
                    .code_version = "0.1.0",
                    .extra = {{"best", 3.25}}};
    result.config_yaml = "train:\n  steps: 100\n";
    return result;
  }

  fs::path write(int64_t step, int64_t keep = 0) {
    return write_checkpoint(runs(), contents(step), keep);
  }
  fs::path runs() const { return folder_ / "checkpoints"; }

  std::vector<std::string> names() const {
    std::vector<std::string> found;
    for (const auto& entry : fs::directory_iterator(runs())) {
      found.push_back(entry.path().filename().string());
    }
    std::sort(found.begin(), found.end());
    return found;
  }

  // The step that is resumed from, or -1; what is passed over goes to warnings_.
  int64_t resumable_step() {
    warnings_.clear();
    const auto found =
        find_resumable(runs(), [&](const std::string& text) { warnings_.push_back(text); });
    return found ? found->state().step : -1;
  }

  TemporaryFolder folder_;
  std::vector<std::string> warnings_;
  std::vector<float> weight_ = std::vector<float>(32), moment_ = std::vector<float>(32);
};

TEST_F(CheckpointTest, RoundTrips) {
  const fs::path path = write(7);
  EXPECT_EQ(path, runs() / "step_00000007");
  const CheckpointContents written = contents(7);
  std::fill(weight_.begin(), weight_.end(), 0.0f);
  std::fill(moment_.begin(), moment_.end(), 0.0f);

  const CheckpointReader reader = open_checkpoint(path);
  load_tensors(reader.model(), written.model);
  load_tensors(reader.optimizer(), written.optimizer);
  EXPECT_EQ(weight_[31], 7.0f);
  EXPECT_EQ(moment_[31], 38.0f);
  const TrainingState& state = reader.state();
  EXPECT_EQ(state.step, 7);
  EXPECT_EQ(state.tokens, 7 * 1024);
  EXPECT_EQ(state.seed, UINT64_MAX);
  EXPECT_EQ(state.data_position.at("offset"), 12345678901);
  EXPECT_EQ(state.skipped_steps, 2);
  EXPECT_EQ(state.skipped_in_a_row, 1);
  EXPECT_EQ(state.code_version, "0.1.0");
  EXPECT_EQ(state.extra.at("best"), 3.25);
  EXPECT_EQ(reader.config_yaml(), written.config_yaml);
}

TEST_F(CheckpointTest, TruncationOfEveryFileIsNamed) {
  const fs::path path = write(1);
  for (const char* name : file_names) {
    const std::string whole = slurp(path / name);
    for (const size_t n : {size_t{0}, size_t{1}, whole.size() / 2, whole.size() - 1}) {
      spill(path / name, whole.substr(0, n));
      EXPECT_THAT(message_of<Error>([&] { open_checkpoint(path); }),
                  HasSubstr((path / name).string()))
          << n;
    }
    spill(path / name, whole);
  }
  EXPECT_EQ(open_checkpoint(path).state().step, 1);
}

TEST_F(CheckpointTest, AlteredBytesAreNoticedAndTheFileNamed) {
  const fs::path path = write(1);
  for (const char* name : file_names) {
    const std::string whole = slurp(path / name);
    for (size_t i = 0; i < whole.size(); i += 1 + whole.size() / 97) {
      for (const int mask : {0x01, 0x20, 0xff}) {
        std::string altered = whole;
        altered[i] = static_cast<char>(altered[i] ^ mask);
        spill(path / name, altered);
        const auto message = message_of<Error>([&] { open_checkpoint(path); });
        // A changed size or checksum in the manifest shows as the fault of the file it describes.
        if (name != std::string("MANIFEST.json")) {
          EXPECT_THAT(message, HasSubstr((path / name).string())) << i;
        }
      }
    }
    spill(path / name, whole);
  }
  EXPECT_EQ(open_checkpoint(path).state().step, 1);
}

TEST_F(CheckpointTest, MissingFilesAreNamed) {
  for (const char* name : file_names) {
    const fs::path path = write(1);
    fs::remove(path / name);
    EXPECT_THAT(message_of<Error>([&] { open_checkpoint(path); }), HasSubstr(name));
  }
  EXPECT_THAT(message_of<Error>([&] { open_checkpoint(runs() / "step_9"); }),
              HasSubstr("no checkpoint folder"));
}

TEST_F(CheckpointTest, ALaterFormatIsRefused) {
  const fs::path path = write(1);
  std::string manifest = slurp(path / "MANIFEST.json");
  const std::string version = "\"format_version\": 1";
  manifest.replace(manifest.find(version), version.size(), "\"format_version\": 2");
  spill(path / "MANIFEST.json", manifest);
  EXPECT_THAT(message_of<Error>([&] { open_checkpoint(path); }),
              HasSubstr("format version 2; this program reads version 1"));
}

TEST_F(CheckpointTest, KeepsTheLastIntactOnes) {
  for (const int64_t step : {10, 20, 30}) write(step, 3);
  EXPECT_THAT(names(), ElementsAre("step_00000010", "step_00000020", "step_00000030"));
  // A damaged one does not take the place of a good one.
  fs::resize_file(runs() / "step_00000030" / "model.safetensors", 5);
  write(40, 3);
  EXPECT_THAT(names(),
              ElementsAre("step_00000010", "step_00000020", "step_00000030", "step_00000040"));
  write(50, 2);
  EXPECT_THAT(names(), ElementsAre("step_00000040", "step_00000050"));
}

TEST_F(CheckpointTest, LaterStepsNeverPushOutTheOneJustWritten) {
  for (const int64_t step : {10, 20, 30}) write(step);
  write(15, 1);
  EXPECT_THAT(names(), ElementsAre("step_00000015", "step_00000020", "step_00000030"));
  EXPECT_EQ(set_aside_after(runs(), 15).size(), 2u);
  EXPECT_EQ(resumable_step(), 15);
  write(20);
  set_aside_after(runs(), 15);
  EXPECT_THAT(names(), ElementsAre("abandoned_step_00000020", "abandoned_step_00000020_2",
                                   "abandoned_step_00000030", "step_00000015"));
}

TEST_F(CheckpointTest, ReplacesTheSameStepAndRemovesWhatAKilledRunLeft) {
  write(5);
  fs::create_directories(runs() / "incomplete_step_00000009");
  spill(runs() / "incomplete_step_00000009" / "model.safetensors", "half");
  CheckpointContents again = contents(5);
  again.config_yaml = "second\n";
  write_checkpoint(runs(), again, 1);
  EXPECT_THAT(names(), ElementsAre("step_00000005"));
  EXPECT_EQ(open_checkpoint(runs() / "step_00000005").config_yaml(), "second\n");
}

TEST_F(CheckpointTest, ResumesFromTheNewestGoodOne) {
  EXPECT_EQ(resumable_step(), -1);
  for (const int64_t step : {10, 20, 30, 40}) write(step);
  fs::create_directories(runs() / "incomplete_step_00000050");
  fs::create_directories(runs() / "step_notes");
  EXPECT_EQ(resumable_step(), 40);
  EXPECT_TRUE(warnings_.empty());

  fs::remove(runs() / "step_00000040" / "MANIFEST.json");
  std::string bytes = slurp(runs() / "step_00000030" / "optimizer.safetensors");
  bytes.back() ^= 1;
  spill(runs() / "step_00000030" / "optimizer.safetensors", bytes);
  EXPECT_EQ(resumable_step(), 20);
  EXPECT_THAT(warnings_,
              ElementsAre(AllOf(HasSubstr("step_00000040"), HasSubstr("MANIFEST.json")),
                          AllOf(HasSubstr("step_00000030"), HasSubstr("optimizer.safetensors is "
                                                                      "altered"))));
  fs::remove_all(runs() / "step_00000010");
  fs::resize_file(runs() / "step_00000020" / "state.json", 3);
  EXPECT_THAT(message_of<Error>([&] { resumable_step(); }),
              HasSubstr("none of the 3 checkpoints under " + runs().string() + " is intact"));
  EXPECT_EQ(warnings_.size(), 3u);
}

TEST_F(CheckpointTest, AWriteThatFailsLeavesTheEarlierOnes) {
  write(10, 1);
  // Stands for a full disk: files of this process may not grow past 200 bytes.
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  const auto earlier = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit limit{200, before.rlim_max};
  setrlimit(RLIMIT_FSIZE, &limit);
  const auto full = message_of<Error>([&] { write(20, 1); });
  const auto same_step = message_of<Error>([&] { write(10, 1); });
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, earlier);
  EXPECT_THAT(full, AllOf(HasSubstr("model.safetensors"), HasSubstr("File too large")));
  EXPECT_THAT(same_step, HasSubstr("File too large"));
  EXPECT_THAT(names(), ElementsAre("step_00000010"));
  EXPECT_EQ(resumable_step(), 10);

  spill(folder_ / "file", "x");
  EXPECT_THAT(message_of<Error>([&] { write_checkpoint(folder_ / "file/c", contents(1), 1); }),
              AllOf(HasSubstr("file/c"), HasSubstr("Not a directory")));
}

}  // namespace
}  // namespace sigtrain
