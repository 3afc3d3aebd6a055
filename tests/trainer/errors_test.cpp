// What the user did wrong: exit code 2 before any work, 1 where a file or a device failed; always
// with what to change.
#include <array>

#include "small_run.h"

namespace sigtrain {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using Words = std::vector<std::string>;

class Errors : public SmallRun {
 protected:
  // Ends with the exit code and a message that has all the parts, and writes nothing.
  void expect_error(const ProcessResult& result, int exit_code, const Words& parts) {
    EXPECT_EQ(result.exit_code, exit_code) << result.output();
    for (const std::string& part : parts) EXPECT_THAT(result.output(), HasSubstr(part));
    EXPECT_FALSE(fs::exists(folder() / "runs")) << "a run was begun";
  }
};

TEST_F(Errors, OfTheCommandLine) {
  expect_error(run("trainer", {}), 2, {"--config is required"});
  expect_error(train({"--frobnicate"}), 2, {"--frobnicate"});
  expect_error(train({"stray"}), 2, {"stray"});
  expect_error(run("trainer", {"--config", "no.yaml"}), 2, {"no.yaml"});
  expect_error(train({"--device", "tpu"}), 2, {"--device tpu: expects auto, cpu or cuda"});
  expect_error(train({"--config", "small.yaml"}), 2,
               {"--config takes one file, not 2", "`base: FILE`"});
  expect_error(train({"train.steps=2"}), 2, {"train.steps=2", "--set KEY=VALUE"});
  expect_error(train({"--resume"}), 2, {"--resume", "auto|PATH missing"});
  expect_error(run("generate", {}), 2, {"checkpoint is required"});
  expect_error(run("generate", {"x", "--tokens", "0"}), 2,
               {"--tokens: must be a number greater than 0, is '0'"});
  expect_error(run("generate", {"x", "--temperature", "-1"}), 2, {"--temperature"});
  const ProcessResult keys = run("trainer", {"--keys"});
  EXPECT_EQ(keys.exit_code, 0);
  EXPECT_THAT(keys.out,
              AllOf(HasSubstr("train.recompute: none\n"), HasSubstr("\nlog.peak_tflops: 0\n")));
  const ProcessResult help = run("trainer", {"--help"});
  EXPECT_EQ(help.exit_code, 0);
  for (const char* flag :
       {"--config", "--set", "--device", "--resume", "--eval-only", "--dry-run"}) {
    EXPECT_THAT(help.out, HasSubstr(flag));
  }
}

TEST_F(Errors, OfTheConfigAllAtOnce) {
  expect_error(train({"--set", "train.step=3", "--set", "model.width=wide", "--set",
                      "model.heads=5", "--set", "nonsense"}),
               2, {"train.step", "did you mean 'steps'?", "model.width", "'wide'", "nonsense"});
  spill(folder() / "small.yaml", std::string(kSmallConfig) + "modle: {}\n");
  expect_error(train({"--set", "train.micro_batch=3"}), 2,
               {"small.yaml:21", "modle", "did you mean 'model'?", "train.global_batch",
                "is not a multiple of train.micro_batch"});
}

// All of it at once, each with what makes it.
TEST_F(Errors, OfMissingData) {
  const fs::path source = SIGTRAIN_SOURCE_DIR;
  for (const auto& [config, missing, maker] :
       {std::array{"lm_tiny_sigmoid", "data.validation: data/tiny/validation",
                   "scripts/quickstart.sh"},
        std::array{"lm_85m_sigmoid", "data.tokenizer: data/lm/tokenizer.model",
                   "scripts/prepare_english_and_code.sh"},
        std::array{"vit_digits_sigmoid", "data.train: data/digits/train-images-idx3-ubyte",
                   "tools/digits_to_idx.py"},
        std::array{"asr_prompts_sigmoid", "data.validation: data/prompts/test.tsv",
                   "scripts/prepare_prompts.sh"}}) {
    const std::string path = source / "configs" / (std::string(config) + ".yaml");
    expect_error(run("trainer", {"--config", path, "--device", "cpu"}), 2,
                 {std::string(missing) + " does not exist\n", std::string(maker),
                  "data.train: ", folder().string()});
    EXPECT_TRUE(fs::exists(source / maker)) << maker;
  }
  const std::string cifar = source / "configs/vit_cifar10_sigmoid.yaml";
  expect_error(
      run("trainer", {"--config", cifar, "--device", "cpu"}), 2,
      {"data_batch_1.bin does not exist", "data_batch_5.bin does not exist", "docs/images.md"});
}

TEST_F(Errors, OfMissingShards) {
  expect_error(train({"--set", "data.train=[nowhere]", "data.validation=[neither]"}), 2,
               {"data.train: nowhere does not exist", "data.validation: neither does not exist",
                "build/tokenize TEXT... --output DIR"});
  EXPECT_THAT(train({"--set", "data.train=[" + (folder() / "no").string() + "]"}).output(),
              Not(HasSubstr("Relative paths")));
  fs::create_directory(folder() / "empty");
  expect_error(train({"--set", "data.train=[empty]"}), 2, {"empty", "build/tokenize"});
}

TEST_F(Errors, OfDamagedShards) {
  const fs::path shard = folder() / "tokens/train/shard_000000.tok";
  const std::string bytes = slurp(shard);
  spill(shard, bytes.substr(0, bytes.size() - 10));
  expect_error(train({}), 1, {"tokens/train/shard_000000.tok", "truncated"});
  spill(shard, "this is text");
  expect_error(train({}), 1, {"tokens/train/shard_000000.tok"});
  spill(shard, "");
  expect_error(train({}), 1, {"tokens/train/shard_000000.tok", "empty"});
}

TEST_F(Errors, OfATokenOutsideTheVocabulary) {
  const fs::path shard = folder() / "tokens/train/shard_000000.tok";
  std::string bytes = slurp(shard);
  for (size_t i = 64; i < bytes.size(); ++i) bytes[i] = '\x7F';
  spill(shard, bytes);
  const ProcessResult result = train({});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.output(), AllOf(HasSubstr("tokens/train/shard_000000.tok"), HasSubstr("32639"),
                                     HasSubstr("257")));
}

TEST_F(Errors, OfVocabulariesThatDoNotFit) {
  expect_error(train({"--set", "model.vocab_size=100"}), 1,
               {"shard_000000.tok", "the shard's vocabulary has 257 ids, the model's only 100",
                "set model.vocab_size to at least 257"});
  const ProcessResult made = run("tokenize", {"text.txt", "--output", "other", "--train-bpe", "320",
                                              "--validation-fraction", "0.2"});
  ASSERT_EQ(made.exit_code, 0) << made.output();
  expect_error(
      train({"--set", "model.vocab_size=320", "--set", "data.validation=[other/validation]"}), 1,
      {"other/validation/shard_000000.tok", "made with another tokenizer"});
  // The tokenizer that generate would use is not the one the shards were made with.
  expect_error(
      train({"--set", "model.vocab_size=320", "--set", "data.tokenizer=other/tokenizer.model"}), 1,
      {"tokens/train/shard_000000.tok", "made with another tokenizer"});
  expect_error(train({"--set", "data.train=[tokens/train, other/train]"}), 1,
               {"other/train/shard_000000.tok", "tokenize both with the same tokenizer"});
}

TEST_F(Errors, OfTooLittleText) {
  expect_error(train({"--set", "model.seq_len=100000"}), 2,
               {"the training text has", "fewer than the 100001", "shorter seq_len"});
}

// Whatever a config asks for, at once, and without a trace.
TEST_F(Errors, OfSizesThatNoMachineHas) {
  const Words synthetic = {"--set",        "data.source=synthetic", "data.train=[]",
                           "eval.every=0", "model.vocab_size=100",  "data.validation=[]"};
  const auto expect_too_large = [&](const Words& sizes, const Words& parts) {
    const ProcessResult result = train(synthetic + sizes);
    expect_error(result, 1, parts);
    EXPECT_LT(result.cpu_seconds, 10.0);
    EXPECT_LT(result.peak_kib, 2048 * 1024);
  };
  expect_too_large({"model.width=65536"}, {"out of host memory", "use a smaller"});
  expect_too_large({"model.width=16777216"}, {"16777216]", "use a smaller"});
  expect_too_large({"model.seq_len=16777216", "train.micro_batch=16777216",
                    "train.global_batch=16777216", "model.width=65536"},
                   {"use a smaller"});
  expect_error(train({"--set", "model.layers=16777216"}), 2, {"model.layers", "[1, 4096]"});
}

TEST_F(Errors, OfTooLittleMemoryLeaveAnEarlierRunWhereItIs) {
  train_well({"--set", "train.steps=2"});
  const auto before = files();
  const ProcessResult result = train({"--set", "model.width=65536"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.output(), HasSubstr("out of host memory"));
  EXPECT_EQ(files(), before);
}

TEST_F(Errors, OfTheDevice) {
  if (fs::exists("/dev/nvidiactl")) GTEST_SKIP() << "this machine has a GPU";
  expect_error(train({"--device", "cuda"}), 2, {"--device cuda"});
  const ProcessResult result =
      train({"--device", "cpu", "--set", "train.steps=1", "--set", "schedule.warmup_steps=0"});
  EXPECT_EQ(result.exit_code, 0) << result.output();
}

TEST_F(Errors, OfEvaluatingWithoutCheckpoint) {
  expect_error(train({"--eval-only"}), 2,
               {"--eval-only: no checkpoint under runs/small/checkpoints", "--resume PATH"});
}

TEST_F(Errors, OfAFolderThatCannotBeWritten) {
  spill(folder() / "file", "");
  expect_error(train({"--set", "run.dir=file/run"}), 1,
               {"cannot make the run's folder file/run", "Not a directory", "run.dir"});
  if (::geteuid() == 0) return;  // whom no permission stops
  fs::create_directory(folder() / "locked");
  fs::permissions(folder() / "locked", fs::perms::owner_read | fs::perms::owner_exec);
  expect_error(train({"--set", "run.dir=locked/run"}), 1, {"locked/run", "Permission denied"});
  fs::permissions(folder() / "locked", fs::perms::owner_all);
}

}  // namespace
}  // namespace sigtrain
