// Runs the trainer as a user does, and reads what it leaves.
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <array>
#include <bit>
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

/// A command, through the shell.
inline ProgramResult run_command(const std::string& text) {
  const std::string command = text + " 2>&1";
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

/// trainer ARGUMENTS.
inline ProgramResult run_trainer(const std::string& arguments) {
  return run_command(SIGTRAIN_BINARY_DIR "/trainer " + arguments);
}

/// mpirun -np RANKS trainer ARGUMENTS.
inline ProgramResult run_ranks(int ranks, const std::string& arguments) {
  return run_command("OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 " SIGTRAIN_MPIEXEC
                     " -np " +
                     std::to_string(ranks) + " " SIGTRAIN_BINARY_DIR "/trainer " + arguments);
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

/// Writes a byte-tokenised text with something to learn, FOLDER/train and FOLDER/validation: after
/// each of 26 letters comes one of five others, the first half of the time, the next a quarter, and
/// so on. Its loss falls steadily to the text's entropy, about 1.3 nats: no sudden insight that two
/// devices could have some steps apart. How far they come apart on real text is the text's and the
/// model's doing: see GpuTraining.FollowsTheCpusLossCurve.
inline void write_learnable_text(const std::filesystem::path& folder) {
  const RandomStream random{2024, 1};
  const ByteTokenizer tokenizer;
  uint64_t block = 0;
  uint32_t letter = 0;
  for (const auto& [part, letters] : {std::pair{"train", 300000}, {"validation", 8000}}) {
    std::string text;
    for (int i = 0; i < letters; ++i) {
      const Philox drawn = random.block(block++, 0);
      const auto choice = static_cast<uint32_t>(std::countl_zero(drawn.words[0] | 0x08000000u));
      letter = (5 * letter + 7 * choice + 3) % 26;
      text += static_cast<char>('a' + letter);
    }
    TokenShardSetWriter writer((folder / part).string(), {tokenizer.vocab_size(), tokenizer.hash()},
                               int64_t{1} << 30);
    writer.append(tokenizer.encode(text));
    writer.finish();
  }
}

}  // namespace sigtrain
