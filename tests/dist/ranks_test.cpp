// The trainer among several ranks on the CPU, as mpirun starts it.
#include <chrono>
#include <cmath>
#include <cstring>
#include <fstream>

#include "../trainer/small_image_run.h"
#include "../trainer/small_run.h"
#include "../trainer/small_speech_run.h"

namespace sigtrain {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using Words = std::vector<std::string>;

/// What a rank's shell runs before the trainer, with its rank in $rank.
constexpr const char* kPlain = "";

class Ranks : public SmallRun {
 protected:
  void SetUp() override {
    if (std::string(SIGTRAIN_MPIEXEC).empty()) GTEST_SKIP() << "this build has no MPI";
  }

  /// mpirun -np N trainer --config small.yaml ARGUMENTS, through a shell that first does `before`;
  /// `run` is the shell's command that becomes the trainer.
  std::unique_ptr<Process> launch(int ranks, const Words& arguments,
                                  const std::string& before = kPlain,
                                  const std::string& run = "exec \"$@\"") {
    const Words words = Words{SIGTRAIN_MPIEXEC,
                              "-np",
                              std::to_string(ranks),
                              "/bin/sh",
                              "-c",
                              "rank=${OMPI_COMM_WORLD_RANK:-$PMI_RANK}; " + before + "\n" + run,
                              "sh",
                              trainer(),
                              "--config",
                              (folder() / "small.yaml").string(),
                              "--device",
                              "cpu"} +
                        arguments;
    return std::make_unique<Process>(
        words, folder(),
        std::map<std::string, std::string>{{"OMP_NUM_THREADS", "1"},
                                           {"OMP_WAIT_POLICY", "passive"},
                                           // Open MPI: more ranks than cores, anywhere, by anyone.
                                           {"OMPI_MCA_rmaps_base_oversubscribe", "1"},
                                           {"OMPI_MCA_hwloc_base_binding_policy", "none"},
                                           {"OMPI_MCA_btl_vader_single_copy_mechanism", "none"},
                                           {"OMPI_ALLOW_RUN_AS_ROOT", "1"},
                                           {"OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"}});
  }
  ProcessResult run_ranks(int ranks, const Words& arguments, const std::string& before = kPlain) {
    return launch(ranks, arguments, before)->wait();
  }
  ProcessResult run_ranks_well(int ranks, const Words& arguments) {
    const ProcessResult result = run_ranks(ranks, arguments);
    EXPECT_EQ(result.exit_code, 0) << result.output();
    return result;
  }
  static std::string trainer() { return (fs::path(SIGTRAIN_BINARY_DIR) / "trainer").string(); }

  /// Losses agree to 1e-6: of their size, where that is more than 1 and `relative`.
  static double allowed(double loss, bool relative) {
    return 1e-6 * (relative ? std::max(1.0, loss) : 1.0);
  }

  /// Losses agree. Gradients of float are added in another order, and steps amplify those roundings
  /// of 2^-24, by how much depends on the processor: some hundred times in 20 steps. A part of a
  /// gradient that is missing, doubled or stale moves its norm by percents, and diagnostics of a
  /// part of the batch differ by percents from those of all. Norms, of each layer too, are held to
  /// 1e-4 of the norm of all; diagnostics to 1e-4 of themselves.
  void expect_same_curve(const std::string& a, const std::string& b, bool relative = false) const {
    const auto ours = metrics(a), theirs = metrics(b);
    ASSERT_EQ(ours.size(), theirs.size());
    for (size_t i = 0; i < ours.size(); ++i) {
      SCOPED_TRACE(b + ": " + theirs[i].dump());
      for (const char* key : {"step", "split", "tokens", "images", "audio_seconds", "skipped_steps",
                              "targets", "letter_error_rate", "word_error_rate"})
        EXPECT_EQ(ours[i].contains(key) ? ours[i][key] : nullptr,
                  theirs[i].contains(key) ? theirs[i][key] : nullptr);
      for (const char* key :
           {"loss", "objective", "loss_ema", "accuracy", "accuracy_ema", "top5"}) {
        if (!ours[i].contains(key)) continue;
        const auto expected = ours[i][key].get<double>();
        EXPECT_NEAR(expected, theirs[i][key].get<double>(), allowed(expected, relative)) << key;
      }
      if (ours[i]["split"] != "train") continue;
      const auto norm = ours[i]["grad_norm"].get<double>();
      const auto expect_same_norm = [&](double ours, double theirs) {
        EXPECT_NEAR(ours, theirs, 1e-4 * norm);
      };
      expect_same_norm(norm, theirs[i]["grad_norm"].get<double>());
      ASSERT_GT(ours[i]["layer_grad_norm"].size(), 0u);
      for (size_t group = 0; group < ours[i]["layer_grad_norm"].size(); ++group)
        expect_same_norm(ours[i]["layer_grad_norm"][group].get<double>(),
                         theirs[i]["layer_grad_norm"][group].get<double>());
      for (const char* key : {"attention_out_rms", "attention_branch_rms", "attention_row_sum"}) {
        ASSERT_EQ(ours[i][key].size(), theirs[i][key].size());
        for (size_t layer = 0; layer < ours[i][key].size(); ++layer) {
          const auto expected = ours[i][key][layer].get<double>();
          EXPECT_NEAR(theirs[i][key][layer].get<double>(), expected, 1e-4 * expected)
              << key << " of layer " << layer;
        }
      }
    }
  }

  /// The losses of a run resumed at `step`, those that an unbroken one has from there on.
  void expect_same_rest(const std::string& whole, const std::string& resumed, int64_t step,
                        bool relative = false) const {
    const auto all = metrics(whole), rest = metrics(resumed);
    ASSERT_FALSE(rest.empty());
    EXPECT_EQ(rest.front()["step"], step + 1);
    ASSERT_LE(rest.size(), all.size());
    for (size_t i = 0; i < rest.size(); ++i) {
      const auto& expected = all[all.size() - rest.size() + i];
      EXPECT_EQ(rest[i]["step"], expected["step"]);
      const auto loss = expected["loss"].get<double>();
      EXPECT_NEAR(rest[i]["loss"].get<double>(), loss, allowed(loss, relative))
          << resumed << " " << rest[i].dump();
    }
  }

  /// The process of a rank, told by its environment; 0 until it runs.
  pid_t find_rank(int rank) const {
    const std::string program = trainer();
    for (const auto& entry : fs::directory_iterator("/proc")) {
      const std::string name = entry.path().filename().string();
      if (name.find_first_not_of("0123456789") != std::string::npos) continue;
      std::error_code code;
      if (fs::read_symlink(entry.path() / "exe", code) != fs::path(program)) continue;
      // Of this test's mpirun and no other's.
      if (fs::read_symlink(entry.path() / "cwd", code) != fs::canonical(folder())) continue;
      const std::string environment = slurp(entry.path() / "environ");
      for (const char* variable : {"OMPI_COMM_WORLD_RANK=", "PMI_RANK="}) {
        const size_t at = environment.find(variable);
        if (at == std::string::npos) continue;
        if (std::atoi(environment.c_str() + at + std::strlen(variable)) == rank)
          return std::stoi(name);
      }
    }
    return 0;
  }
  void wait_for_step(const std::string& run, int64_t step, Process& process) const {
    const auto lines = [&] {
      const std::string text = slurp(runs(run) / "metrics.jsonl");
      return std::count(text.begin(), text.end(), '\n');
    };
    while (process.is_running() && lines() < step)
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
};

// Four micro-batches of two sequences a step, whoever computes them; more than one bucket.
const Words kRun = {"--set", "train.steps=20",           "--set", "train.global_batch=8",
                    "--set", "train.bucket_bytes=40000", "--set", "optimizer.learning_rate=0.003",
                    "--set", "log.tensorboard=false"};
// A run that does not end by itself within a test.
const Words kLongRun = kRun + Words{"--set", "train.steps=1000000", "--set", "checkpoint.every=10",
                                    "--set", "eval.every=0",        "--set", "run.name=long"};

Words named(const std::string& name) { return {"--set", "run.name=" + name}; }
const Words kSharded = {"--set", "optimizer.shard=true"};

class RanksOfAKind : public Ranks, public testing::WithParamInterface<const char*> {
 protected:
  /// How often a text says something.
  static int64_t times(const std::string& text, const std::string& part) {
    int64_t found = 0;
    for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1))
      ++found;
    return found;
  }
  Words kind() const { return GetParam() == std::string("softmax") ? kSoftmaxTwin : Words{}; }
};

TEST_P(RanksOfAKind, GiveTheLossesOfOne) {
  const ProcessResult alone = train(Words{"--device", "cpu"} + kRun + kind() + named("alone"));
  ASSERT_EQ(alone.exit_code, 0) << alone.output();
  ASSERT_EQ(metrics("alone").size(), 20u + 4u);
  run_ranks_well(1, kRun + kind() + named("plain1"));
  expect_same_run("alone", "plain1", 20);
  for (const int ranks : {2, 4}) {
    const std::string plain = "plain" + std::to_string(ranks);
    const std::string sharded = "sharded" + std::to_string(ranks);
    run_ranks_well(ranks, kRun + kind() + named(plain));
    run_ranks_well(ranks, kRun + kind() + kSharded + named(sharded));
    expect_same_curve("alone", plain);
    expect_same_curve("alone", sharded);
  }
}

INSTANTIATE_TEST_SUITE_P(BothKinds, RanksOfAKind, testing::Values("sigmoid", "softmax"));

TEST_F(Ranks, ACheckpointOfFourGoesOnOnTwoAndOnOne) {
  run_ranks_well(4, kRun + named("whole"));
  const Words half = kRun + Words{"--set", "checkpoint.every=12", "--set", "checkpoint.keep=5"};
  run_ranks_well(4, half + kSharded + named("sharded"));
  run_ranks_well(4, half + named("plain"));
  const auto resumed = [&](const std::string& from, const std::string& name) {
    return kRun + named(name) + Words{"--resume", checkpoint(from, 12).string()};
  };
  run_ranks_well(2, resumed("sharded", "a"));
  run_ranks_well(2, resumed("plain", "b") + kSharded);
  const ProcessResult alone = train(resumed("sharded", "c") + Words{"--device", "cpu"});
  EXPECT_EQ(alone.exit_code, 0) << alone.output();
  for (const char* run : {"a", "b", "c"}) expect_same_rest("whole", run, 12);
  // And evaluation shares the validation data out.
  const ProcessResult four = run_ranks_well(4, kRun + named("whole") + Words{"--eval-only"});
  const ProcessResult one = train(kRun + named("whole") + Words{"--device", "cpu", "--eval-only"});
  const std::string loss = one.out.substr(one.out.find("validation loss"), 25);
  EXPECT_THAT(four.out, HasSubstr(loss));
}

class KilledRank : public Ranks, public testing::WithParamInterface<int> {};

TEST_P(KilledRank, EndsTheOthersAndTheRunGoesOn) {
  const int victim = GetParam();
  // The shell outlives its trainer, so the launcher sees nothing and ends nobody.
  const auto process = launch(4, kLongRun + kSharded, "",
                              "\"$@\"; echo \"rank $rank ended with $?\"; sleep 0.3; exit 0");
  wait_for_step("long", 25, *process);
  const pid_t id = find_rank(victim);
  ASSERT_GT(id, 0) << process->out();
  const auto begin = std::chrono::steady_clock::now();
  ::kill(id, SIGKILL);
  const ProcessResult result = process->wait();
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  EXPECT_LT(took.count(), 30.0);
  for (int rank = 0; rank < 4; ++rank) {
    SCOPED_TRACE(result.output());
    if (rank == victim) continue;
    EXPECT_THAT(result.output(), HasSubstr("rank " + std::to_string(rank) + "] error: rank " +
                                           std::to_string(victim) + " ended without a word"));
    EXPECT_THAT(result.output(), HasSubstr("rank " + std::to_string(rank) + " ended with 1"));
  }

  const auto lines = metrics("long");
  const auto last = lines.back()["step"].get<int64_t>() + 10;
  const ProcessResult resumed = run_ranks(
      2, kLongRun + Words{"--resume", "auto", "--set", "train.steps=" + std::to_string(last)});
  EXPECT_EQ(resumed.exit_code, 0) << resumed.output();
  EXPECT_THAT(resumed.output(), AllOf(HasSubstr("resuming"), Not(HasSubstr("passing over"))));
  EXPECT_EQ(metrics("long").back()["step"], last);
}

INSTANTIATE_TEST_SUITE_P(OfFour, KilledRank, testing::Values(0, 2));

TEST_F(Ranks, OneThatIsKilledUnderMpirunIsNamed) {
  const auto process = launch(4, kLongRun);
  wait_for_step("long", 25, *process);
  const pid_t id = find_rank(1);
  ASSERT_GT(id, 0);
  ::kill(id, SIGKILL);
  const ProcessResult result = process->wait();
  EXPECT_NE(result.exit_code, 0);
  EXPECT_THAT(result.output(), HasSubstr("error: rank 1 ended without a word"));
}

TEST_F(Ranks, ASlowOneIsWaitedFor) {
  const Words longer = kRun + Words{"--set", "train.steps=150", "--set", "log.every=1"};
  const auto process = launch(3, longer + named("slow") + Words{"--set", "train.global_batch=6"});
  wait_for_step("slow", 10, *process);
  const pid_t id = find_rank(2);
  ASSERT_GT(id, 0);
  ::kill(id, SIGSTOP);
  std::this_thread::sleep_for(std::chrono::seconds(2));
  EXPECT_TRUE(process->is_running());
  EXPECT_LT(metrics("slow").size(), 150u) << "nobody waited";
  ::kill(id, SIGCONT);
  const ProcessResult result = process->wait();
  EXPECT_EQ(result.exit_code, 0) << result.output();
  EXPECT_EQ(metrics("slow").back()["step"], 150);
}

TEST_F(Ranks, OneThatCannotReadItsDataEndsTheRun) {
  fs::create_directory(folder() / "elsewhere");
  const ProcessResult result =
      run_ranks(3, kRun + Words{"--set", "train.global_batch=6"}, "[ $rank != 2 ] || cd elsewhere");
  EXPECT_NE(result.exit_code, 0);
  for (int rank = 0; rank < 3; ++rank) {
    EXPECT_THAT(result.output(),
                HasSubstr("rank 2 failed: data.train: tokens/train does not exist"))
        << rank;
  }
  EXPECT_FALSE(fs::exists(runs("small")));
}

TEST_F(Ranks, OneThatFailsOnTheWayEndsTheRun) {
  // Rank 1 reads shards of its own, which say that they are like the others'.
  fs::create_directory(folder() / "elsewhere");
  fs::copy(folder() / "tokens", folder() / "elsewhere/tokens", fs::copy_options::recursive);
  const fs::path shard = folder() / "elsewhere/tokens/train/shard_000000.tok";
  std::string bytes = slurp(shard);
  for (size_t i = 64; i < bytes.size(); ++i) bytes[i] = '\x7F';
  spill(shard, bytes);
  const ProcessResult result = run_ranks(2, kRun, "[ $rank != 1 ] || cd elsewhere");
  EXPECT_NE(result.exit_code, 0);
  EXPECT_THAT(result.output(),
              AllOf(HasSubstr("[rank 0] error: rank 1 failed: tokens/train/shard"),
                    HasSubstr("[rank 1] error: tokens/train/shard"), HasSubstr("32639")));
}

TEST_F(Ranks, WithAnotherConfigProgramOrVocabularyAreRefused) {
  const auto refused = [&](int ranks, const Words& arguments, const std::string& before,
                           const std::string& message) {
    SCOPED_TRACE(message);
    const ProcessResult result = run_ranks(ranks, kRun + arguments, before);
    EXPECT_EQ(result.exit_code, 2) << result.output();
    EXPECT_THAT(result.output(), HasSubstr(message));
    for (const char* begun : {"runs/small", "here/runs", "here_bytes/runs"})
      EXPECT_FALSE(fs::exists(folder() / begun)) << "a run was begun";
  };
  refused(4, {}, "[ $rank != 3 ] || set -- \"$@\" --set optimizer.beta1=0.8",
          "rank 3 has optimizer.beta1 0.8, rank 0 has optimizer.beta1 0.9");
  fs::copy_file(trainer(), folder() / "trainer");
  std::ofstream(folder() / "trainer", std::ios::app) << "another";
  refused(2, {}, "if [ $rank = 1 ]; then shift; set -- ./trainer \"$@\"; fi",
          "rank 1 has the program ");
  // Vocabularies of one size, made of other text; one vocabulary of other text; and other text to
  // evaluate alone.
  const auto tokenize = [&](const std::string& text, const std::string& output, const Words& more) {
    const ProcessResult made =
        run("tokenize", Words{text, "--output", output, "--validation-fraction", "0.2"} + more);
    ASSERT_EQ(made.exit_code, 0) << made.output();
  };
  std::string other = slurp(folder() / "text.txt");
  std::replace(other.begin(), other.end(), 'o', 'a');
  spill(folder() / "other.txt", other);
  for (const auto& [folder, text] : {std::pair{"here", "text.txt"}, {"elsewhere", "other.txt"}}) {
    tokenize(text, std::string(folder) + "/tokens", {"--train-bpe", "300"});
    tokenize(text, std::string(folder) + "_bytes/tokens", {});
  }
  const Words anyhow = {"--set", "data.tokenizer=''", "--set", "model.vocab_size=300"};
  refused(2, anyhow, "if [ $rank = 1 ]; then cd elsewhere; else cd here; fi",
          "rank 1 has data like ");
  refused(2, anyhow, "if [ $rank = 1 ]; then cd elsewhere_bytes; else cd here_bytes; fi",
          "rank 1 has data like ");
  fs::remove_all(folder() / "elsewhere_bytes/tokens/train");
  fs::copy(folder() / "here_bytes/tokens/train", folder() / "elsewhere_bytes/tokens/train",
           fs::copy_options::recursive);
  refused(2, anyhow, "if [ $rank = 1 ]; then cd elsewhere_bytes; else cd here_bytes; fi",
          "rank 1 has validation data of hash ");
  refused(3, {}, "",
          "train.global_batch, 8, is not a multiple of train.micro_batch, 2, times 3 ranks");
}

TEST_F(Ranks, ALauncherOfAnotherMpiIsRefused) {
  Process process({trainer(), "--config", "small.yaml", "--device", "cpu"}, folder(),
                  {{"PMI_RANK", "0"}, {"PMI_SIZE", "2"}, {"OMPI_ALLOW_RUN_AS_ROOT", "1"}});
  const ProcessResult result = process.wait();
  EXPECT_EQ(result.exit_code, 2) << result.output();
  EXPECT_THAT(result.err, HasSubstr("started 2 processes, but MPI knows of 1"));
}

TEST_F(SmallRun, WithoutMpiSaysWhatToInstall) {
  if (!std::string(SIGTRAIN_MPIEXEC).empty()) GTEST_SKIP() << "this build has MPI";
  const auto launched = [&](const std::string& ranks) {
    return Process({(fs::path(SIGTRAIN_BINARY_DIR) / "trainer").string(), "--config", "small.yaml",
                    "--device", "cpu"},
                   folder(), {{"OMPI_COMM_WORLD_RANK", "0"}, {"OMPI_COMM_WORLD_SIZE", ranks}})
        .wait();
  };
  const ProcessResult two = launched("2");
  EXPECT_EQ(two.exit_code, 2) << two.output();
  EXPECT_THAT(two.err, AllOf(HasSubstr("Open MPI's mpirun started 2 processes"),
                             HasSubstr("this build has no MPI")));
  EXPECT_EQ(launched("1").exit_code, 0);
}

TEST_F(Ranks, WhatIsWrongOnAllIsToldOnce) {
  const auto told_once = [&](const Words& arguments, const std::string& message) {
    const ProcessResult result = run_ranks(4, arguments);
    EXPECT_EQ(result.exit_code, 2);
    const std::string said = result.output();
    const size_t at = said.find(message);
    ASSERT_NE(at, std::string::npos) << said;
    EXPECT_EQ(said.find(message, at + 1), std::string::npos) << said;
  };
  told_once({"--set", "train.step=3"}, "did you mean 'steps'?");
  told_once(kRun + Words{"--eval-only"}, "no checkpoint under");
  run_ranks_well(4, kRun);
  told_once(kRun + Words{"--eval-only", "--set", "data.validation=[]", "--set", "eval.every=0"},
            "no validation data");
}

TEST_F(Ranks, AllStopAtTheStepInWhichOneIsToldTo) {
  const auto process = launch(3, kLongRun + Words{"--set", "train.global_batch=6"});
  wait_for_step("long", 25, *process);
  const pid_t id = find_rank(1);
  ASSERT_GT(id, 0);
  ::kill(id, SIGTERM);
  const ProcessResult result = process->wait();
  EXPECT_EQ(result.exit_code, 0) << result.output();
  const auto step = metrics("long").back()["step"].get<int64_t>();
  EXPECT_THAT(result.output(),
              AllOf(HasSubstr("stopped by SIGTERM after step " + std::to_string(step)),
                    HasSubstr("to go on: mpirun -np 3 ")));
  EXPECT_TRUE(fs::exists(checkpoint("long", step)));
}

/// scripts/launch_mpirun.sh -n 2, in a project that has nothing but it and the trainer.
class LaunchScript : public Ranks {
 protected:
  void SetUp() override {
    Ranks::SetUp();
    fs::create_directories(folder() / "build");
    fs::create_directories(folder() / "scripts");
    fs::create_symlink(trainer(), folder() / "build/trainer");
    for (const std::string name : {"launch_mpirun.sh", "common.sh"})
      fs::create_symlink(fs::path(SIGTRAIN_SOURCE_DIR) / "scripts" / name,
                         folder() / "scripts" / name);
  }
  std::unique_ptr<Process> launch_by_script(const Words& arguments) const {
    return std::make_unique<Process>(
        Words{"scripts/launch_mpirun.sh", "-n", "2", "small.yaml", "--device", "cpu"} + arguments,
        folder(), std::map<std::string, std::string>{{"OMPI_MCA_rmaps_base_oversubscribe", "1"}});
  }
};

TEST_F(LaunchScript, EndsWhenTheRanksRefuse) {
  const auto begin = std::chrono::steady_clock::now();
  const ProcessResult result =
      launch_by_script({"--set", "train.global_batch=12", "--set", "train.micro_batch=4"})->wait();
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  EXPECT_EQ(result.exit_code, 2) << result.output();
  EXPECT_THAT(result.output(), HasSubstr("set train.micro_batch=2, or another divisor of 6"));
  EXPECT_LT(took.count(), 30.0);
}

TEST_F(LaunchScript, LeavesTheCoresOfEachMachineToItsRanks) {
  // In mpirun's place, a program that tells what it was started with.
  fs::create_directory(folder() / "bin");
  spill(folder() / "bin/mpirun",
        "#!/bin/sh\n[ \"$1\" = --version ] && echo 'Open MPI' && exit\necho \"args: $*\"\nenv\n");
  fs::permissions(folder() / "bin/mpirun", fs::perms::owner_all);
  const auto started_with = [&](const Words& variables) {
    const Words words = Words{"/usr/bin/env", "-u", "OMP_NUM_THREADS"} +
                        Words{"PATH=" + (folder() / "bin").string() + ":" + std::getenv("PATH")} +
                        variables +
                        Words{"scripts/launch_mpirun.sh", "--hosts", "a:8,b:8", "small.yaml"};
    const ProcessResult result = Process(words, folder()).wait();
    EXPECT_EQ(result.exit_code, 0) << result.output();
    return result.out;
  };
  // A number would be one for all machines, and keep the trainer from counting each one's cores.
  EXPECT_THAT(started_with({}),
              AllOf(HasSubstr("args: -np 16 "), HasSubstr("--host a:8,b:8"),
                    HasSubstr("-x OMP_WAIT_POLICY"), Not(HasSubstr("OMP_NUM_THREADS"))));
  EXPECT_THAT(started_with({"OMP_NUM_THREADS=3"}),
              AllOf(HasSubstr("-x OMP_NUM_THREADS"), HasSubstr("\nOMP_NUM_THREADS=3\n")));
}

TEST_F(LaunchScript, StopsTheRanksWithACheckpoint) {
  const auto process = launch_by_script(kLongRun);
  wait_for_step("long", 25, *process);
  process->send(SIGTERM);
  const ProcessResult result = process->wait();
  EXPECT_EQ(result.exit_code, 0) << result.output();
  const auto step = metrics("long").back()["step"].get<int64_t>();
  EXPECT_THAT(result.output(), HasSubstr("stopped by SIGTERM after step " + std::to_string(step)));
  EXPECT_TRUE(fs::exists(checkpoint("long", step)));
}

TEST_F(Ranks, OneOfThemWritesAndSpeaks) {
  const ProcessResult result = run_ranks_well(2, kRun);
  EXPECT_THAT(result.output(), AllOf(HasSubstr("[rank 0] step 20/20"), Not(HasSubstr("[rank 1]"))));
  EXPECT_THAT(slurp(runs("small") / "train.log"), HasSubstr("2 ranks"));
  run_ranks_well(2, kRun + kSharded + named("sharded"));
  for (const char* name : {"small", "sharded"}) {
    EXPECT_EQ(metrics(name).size(), 24u);
    for (const auto& line : metrics(name)) {
      if (line["split"] != "train") continue;
      EXPECT_GT(line["exchange_seconds"].get<double>(), 0.0);
      EXPECT_GT(line["exchange_waited_seconds"].get<double>(), 0.0);
    }
  }
  EXPECT_FALSE(fs::exists(runs("small.1")));
}

TEST_F(Ranks, ShardingTakesItsShareOfTheMemory) {
  const auto bytes = [&](int ranks, const Words& more) {
    const ProcessResult result = run_ranks_well(
        ranks,
        kRun + more + Words{"--dry-run", "--set", "model.width=512", "--set", "model.layers=8"});
    const size_t at = result.out.find("optimizer moments");
    EXPECT_NE(at, std::string::npos) << result.output();
    std::istringstream text(result.out.substr(at + std::string("optimizer moments").size()));
    double value = 0.0;
    std::string unit;
    text >> value >> unit;
    return unit == "MiB" ? value : NAN;
  };
  const double one = bytes(1, {});
  EXPECT_EQ(bytes(4, {}), one);
  EXPECT_NEAR(bytes(4, kSharded), one / 4, 0.01 * one);
}

// Four micro-batches of four images, whoever sees them; two of images to evaluate, which do not
// divide among four. Mixing, erasing, stochastic depth and dropout are on.
const Words kImages = {"--set", "train.steps=20",
                       "--set", "train.global_batch=16",
                       "--set", "augment.repeats=2",
                       "--set", "optimizer.learning_rate=0.003",
                       "--set", "data.workers=1",
                       "--set", "train.bucket_bytes=8000",
                       "--set", "data.image.max_damaged=0.2"};

class RanksOfImages : public RanksOfAKind {
 protected:
  void SetUp() override {
    RanksOfAKind::SetUp();
    write_small_images(folder());
    // What every rank may come across: one of the images to train with, one of those to evaluate.
    for (const char* name : {"images/train/class0/0.jpg", "images/test/class1/4.jpg"}) {
      const std::string bytes = slurp(folder() / name);
      ASSERT_FALSE(bytes.empty());
      spill(folder() / name, bytes.substr(0, bytes.size() / 2));
    }
  }
  Words kind() const {
    return GetParam() == std::string("softmax")
               ? Words{"--set", "model.attention.kind=softmax", "--set", "model.attention.bias=0"}
               : Words{};
  }
};

TEST_P(RanksOfImages, GiveTheLossesOfOne) {
  const ProcessResult alone = train(Words{"--device", "cpu"} + kImages + kind() + named("alone"));
  ASSERT_EQ(alone.exit_code, 0) << alone.output();
  ASSERT_EQ(metrics("alone").size(), 20u + 4u);
  EXPECT_EQ(metrics("alone").back()["targets"], 5);
  for (const int ranks : {2, 4}) {
    for (const std::string shard : {"false", "true"}) {
      const std::string name = "shard_" + shard + std::to_string(ranks);
      const ProcessResult result = run_ranks_well(
          ranks, kImages + kind() + named(name) + Words{"--set", "optimizer.shard=" + shard});
      expect_same_curve("alone", name);
      for (const std::string image : {"train/class0/0.jpg: ", "test/class1/4.jpg: "})
        EXPECT_EQ(times(result.output(), "left out: images/" + image), 1) << result.output();
    }
  }
  run_ranks_well(2, kImages + kind() + named("resumed") +
                        Words{"--resume", checkpoint("shard_true4", 12).string()});
  expect_same_rest("alone", "resumed", 12);
  // And a checkpoint is judged by all: what is said of it ends with its number of targets.
  const Words judge = kImages + kind() + named("alone") + Words{"--eval-only"};
  const ProcessResult one = train(Words{"--device", "cpu"} + judge);
  const ProcessResult four = run_ranks_well(4, judge);
  EXPECT_EQ(times(four.out, "over 5 targets"), 2) << four.out;  // of the averaged weights too
  for (size_t at = one.out.find("validation loss"); at != std::string::npos;
       at = one.out.find("validation loss", at + 1))
    EXPECT_THAT(four.out, HasSubstr(one.out.substr(at, one.out.find('\n', at) - at)));
}

INSTANTIATE_TEST_SUITE_P(BothKinds, RanksOfImages, testing::Values("sigmoid", "softmax"));

// Four batches a step, whoever hears them, of unequal lengths; an evaluation of batches that do not
// divide. Speed, SpecAugment, CAPE's shifts, dropout and layer drop are drawn. Losses of a letter
// begin at 7. Adam's eps keeps weights whose gradient is all rounding from making steps of their
// own.
const Words kSpeech = {"--set", "train.global_batch=4",
                       "--set", "train.steps=20",
                       "--set", "data.workers=1",
                       "--set", "optimizer.learning_rate=0.001",
                       "--set", "optimizer.eps=0.0001",
                       "--set", "train.bucket_bytes=20000",
                       "--set", "data.speech.max_damaged=0.25"};

class RanksOfSpeech : public RanksOfAKind {
 protected:
  void SetUp() override {
    RanksOfAKind::SetUp();
    write_small_speech(folder());
    for (const char* set : {"train", "test"}) {
      // The header is whole, the samples are not all there.
      const std::string name = std::string("cut_") + set + ".flac";
      write_sound((folder() / name).string(), tone(1.0, 300, 8000), 8000,
                  SF_FORMAT_FLAC | SF_FORMAT_PCM_16);
      fs::resize_file(folder() / name, fs::file_size(folder() / name) / 2);
      const fs::path manifest = folder() / (std::string(set) + ".tsv");
      spill(manifest, slurp(manifest) + name + "\t0\t0\ta\n");
    }
  }
  Words kind() const {
    return GetParam() == std::string("softmax")
               ? Words{"--set", "model.attention.kind=softmax", "--set", "model.attention.bias=0"}
               : Words{};
  }
};

TEST_P(RanksOfSpeech, GiveTheLossesOfOne) {
  const ProcessResult alone = train(Words{"--device", "cpu"} + kSpeech + kind() + named("alone"));
  ASSERT_EQ(alone.exit_code, 0) << alone.output();
  for (const int ranks : {2, 4}) {
    for (const std::string shard : {"false", "true"}) {
      const std::string name = "shard_" + shard + std::to_string(ranks);
      const ProcessResult result = run_ranks_well(
          ranks, kSpeech + kind() + named(name) + Words{"--set", "optimizer.shard=" + shard});
      expect_same_curve("alone", name, true);
      for (const std::string recording : {"cut_train.flac", "cut_test.flac"})
        EXPECT_EQ(times(result.output(), "left out: " + recording), 1) << result.output();
    }
  }
  run_ranks_well(2, kSpeech + kind() + named("resumed") +
                        Words{"--resume", checkpoint("shard_true4", 12).string()});
  expect_same_rest("alone", "resumed", 12, true);
}

INSTANTIATE_TEST_SUITE_P(BothKinds, RanksOfSpeech, testing::Values("sigmoid", "softmax"));

}  // namespace
}  // namespace sigtrain
