// What the tests of the programs share: a folder with a small corpus and a small config, and a
// short way to run trainer, generate and tokenize in it.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "../file_testing.h"
#include "process.h"

namespace sigtrain {

namespace fs = std::filesystem;

/// Everything with state that a resumed run must bring back is on: dropout, stochastic depth,
/// averaged weights, gradient accumulation.
inline constexpr const char* kSmallConfig = R"(run: {name: small}
model:
  seq_len: 32
  layers: 2
  width: 32
  heads: 4
  kv_heads: 2
  attention: {kind: sigmoid, bias: -log(seq_len), qk_norm: true}
  norm: {structure: hybrid}
  position: {kind: alibi}
  mlp: {hidden: 64}
  dropout: 0.1
  stochastic_depth: 0.2
optimizer: {learning_rate: 0.01, ema_decay: 0.9}
schedule: {warmup_steps: 2}
train: {steps: 16, micro_batch: 2, global_batch: 4}
data: {train: [tokens/train], validation: [tokens/validation], tokenizer: bytes}
eval: {every: 5, sequences: 6}
checkpoint: {every: 4, keep: 3}
log: {every: 1}
)";

/// The overrides that make the config its softmax twin.
inline const std::vector<std::string> kSoftmaxTwin = {
    "--set", "model.attention.kind=softmax", "--set", "model.attention.bias=0",
    "--set", "model.norm.structure=pre",     "--set", "model.position.kind=rope"};

inline std::vector<std::string> operator+(std::vector<std::string> a,
                                          const std::vector<std::string>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

class SmallRun : public testing::Test {
 protected:
  SmallRun() {
    std::string text;
    for (int i = 0; i < 120; ++i) {
      text += "Line " + std::to_string(i) + " says: the gr\xC3\xBCn fox \xE2\x80\x94 number " +
              std::to_string(i * i % 97) + ", \xE6\x97\xA5\xE6\x9C\xAC.\n";
    }
    spill(folder() / "text.txt", text);
    spill(folder() / "small.yaml", kSmallConfig);
    const ProcessResult made =
        run("tokenize", {"text.txt", "--output", "tokens", "--validation-fraction", "0.2"});
    EXPECT_EQ(made.exit_code, 0) << made.output();
  }

  const fs::path& folder() const { return folder_.path(); }
  fs::path runs(const std::string& name) const { return folder() / "runs" / name; }

  /// Threads wait without spinning: tests share the processors.
  std::unique_ptr<Process> start(const std::string& program,
                                 const std::vector<std::string>& arguments, int threads = 1) {
    const std::string path = fs::path(SIGTRAIN_BINARY_DIR) / program;
    return std::make_unique<Process>(
        std::vector<std::string>{path} + arguments, folder(),
        std::map<std::string, std::string>{{"OMP_NUM_THREADS", std::to_string(threads)},
                                           {"OMP_WAIT_POLICY", "passive"}});
  }
  ProcessResult run(const std::string& program, const std::vector<std::string>& arguments,
                    int threads = 1) {
    return start(program, arguments, threads)->wait();
  }
  /// trainer --config small.yaml and `arguments`.
  ProcessResult train(const std::vector<std::string>& arguments, int threads = 1) {
    return run("trainer", std::vector<std::string>{"--config", "small.yaml"} + arguments, threads);
  }
  ProcessResult train_well(const std::vector<std::string>& arguments, int threads = 1) {
    const ProcessResult result = train(arguments, threads);
    EXPECT_EQ(result.exit_code, 0) << result.output();
    return result;
  }

  /// The lines of a run's metrics.jsonl; without `timing`, less what differs by the clock.
  std::vector<nlohmann::ordered_json> metrics(const std::string& run, bool timing = false) const {
    std::istringstream text(slurp(runs(run) / "metrics.jsonl"));
    std::vector<nlohmann::ordered_json> lines;
    for (std::string line; std::getline(text, line);) {
      lines.push_back(nlohmann::ordered_json::parse(line));
      if (timing) continue;
      lines.back().erase("seconds");
      for (const char* timing : {"tokens_per_second", "images_per_second", "tflops", "mfu"})
        lines.back().erase(timing);
    }
    return lines;
  }
  fs::path checkpoint(const std::string& run, int64_t step) const {
    std::string digits = std::to_string(step);
    return runs(run) / "checkpoints" / ("step_" + std::string(8 - digits.size(), '0') + digits);
  }
  /// Every path below the folder, to see that nothing was written.
  std::vector<std::string> files() const {
    std::vector<std::string> found;
    for (const auto& entry : fs::recursive_directory_iterator(folder())) {
      found.push_back(entry.path().string());
    }
    std::sort(found.begin(), found.end());
    return found;
  }

  /// Two runs with the same lines and the same last weights, bit for bit.
  void expect_same_run(const std::string& a, const std::string& b, int64_t steps) const {
    EXPECT_EQ(metrics(a), metrics(b));
    for (const char* file : {"model.safetensors", "optimizer.safetensors"}) {
      const std::string ours = slurp(checkpoint(a, steps) / file);
      EXPECT_FALSE(ours.empty()) << checkpoint(a, steps) / file;
      EXPECT_TRUE(ours == slurp(checkpoint(b, steps) / file)) << file << " differs";
    }
  }

 private:
  TemporaryFolder folder_;
};

/// Changes one byte in the middle of a file.
inline void flip_byte(const fs::path& path) {
  std::string bytes = slurp(path);
  ASSERT_FALSE(bytes.empty());
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 0x10);
  spill(path, bytes);
}

}  // namespace sigtrain
