// Runs the trainer as a user does, and reads what it leaves.
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <array>
#include <cstdio>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>
#include <string>

#include "core/philox.h"
#include "data/token_shard.h"
#include "data/tokenizer.h"
#include "file_testing.h"

namespace sigtrain {

struct ProgramResult {
  int exit_code;
  std::string output;  // both streams
};

/// trainer ARGUMENTS, through the shell.
inline ProgramResult run_trainer(const std::string& arguments) {
  const std::string command = SIGTRAIN_BINARY_DIR "/trainer " + arguments + " 2>&1";
  std::FILE* pipe = ::popen(command.c_str(), "r");
  if (pipe == nullptr) throw std::runtime_error("cannot run " + command);
  ProgramResult result;
  std::array<char, 4096> buffer;
  while (const size_t count = std::fread(buffer.data(), 1, buffer.size(), pipe))
    result.output.append(buffer.data(), count);
  const int status = ::pclose(pipe);
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return result;
}

/// The records of one split in RUN/metrics.jsonl, by step.
inline std::map<int64_t, nlohmann::json> metrics_of(const std::filesystem::path& run,
                                                    const std::string& split = "train") {
  std::map<int64_t, nlohmann::json> records;
  std::istringstream lines(slurp(run / "metrics.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    const nlohmann::json record = nlohmann::json::parse(line);
    if (record.at("split") == split) records[record.at("step").get<int64_t>()] = record;
  }
  return records;
}

/// One metric of the training records, by step.
inline std::map<int64_t, double> training_curve(const std::filesystem::path& run,
                                                const std::string& metric = "loss") {
  std::map<int64_t, double> curve;
  for (const auto& [step, record] : metrics_of(run)) curve[step] = record.at(metric).get<double>();
  return curve;
}

/// Writes a byte-tokenised text with something to learn, FOLDER/train and FOLDER/validation: sums
/// written out, in a random order, with names between them.
inline void write_learnable_text(const std::filesystem::path& folder) {
  const char* const names[] = {"Ada", "Blaise", "Carl", "David", "Emmy", "Felix", "Grace"};
  const RandomStream random{2024, 1};
  const ByteTokenizer tokenizer;
  uint64_t block = 0;
  for (const auto& [part, sentences] : {std::pair{"train", 8000}, {"validation", 200}}) {
    TokenShardSetWriter writer((folder / part).string(), {tokenizer.vocab_size(), tokenizer.hash()},
                               int64_t{1} << 30);
    for (int i = 0; i < sentences; ++i) {
      const Philox drawn = random.block(block++, 0);
      const uint32_t a = drawn.words[0] % 20, b = drawn.words[1] % 20;
      writer.append(tokenizer.encode(std::string(names[drawn.words[2] % 7]) + " knows that " +
                                     std::to_string(a) + " and " + std::to_string(b) + " make " +
                                     std::to_string(a + b) + ".\n"));
    }
    writer.finish();
  }
}

}  // namespace sigtrain
