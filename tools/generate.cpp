// Samples text from a checkpoint of a language model.
#include <spdlog/spdlog.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "config/enum_names.h"
#include "config/reader.h"
#include "core/log.h"
#include "data/fnv.h"
#include "data/tokenizer.h"
#include "data/utf8.h"
#include "models/decoder_lm.h"
#include "models/sampler.h"
#include "ops/backend.h"
#include "ops/planning_ops.h"
#include "run_tool.h"
#include "train/snapshot.h"

namespace sigtrain {
namespace {

struct Arguments {
  std::string checkpoint;
  std::string tokenizer;
  std::string prompt;
  int64_t tokens = 200;
  SamplingConfig sampling{0.8, 0, 0.95};
  uint64_t seed = 1;
  std::string device = "auto";
  bool average = false;
};

/// Writes the decoded bytes as whole UTF-8 characters. Bytes that may yet become one are kept back,
/// and bytes that never will are shown as U+FFFD: a model of bytes can sample any of them.
class TextPrinter {
 public:
  void add(const std::string& bytes) {
    pending_ += bytes;
    const size_t whole = whole_characters(pending_);
    fmt::print("{}", replace_invalid_utf8(std::string_view(pending_).substr(0, whole)));
    std::fflush(stdout);
    pending_.erase(0, whole);
  }

 private:
  std::string pending_;
};

int run(const Arguments& arguments) {
  const CheckpointReader checkpoint = open_run_or_checkpoint(
      arguments.checkpoint, [](const std::string& message) { spdlog::warn("{}", message); });
  const Config config = read_config((checkpoint.path() / "config.yaml").string(), {});
  if (config.task != TaskKind::language_modeling)
    throw UsageError("{} holds no language model but one for {}", checkpoint.path().string(),
                     enum_name(config.task));
  const std::string spec =
      arguments.tokenizer.empty() ? config.data.tokenizer : arguments.tokenizer;
  if (spec.empty())
    throw UsageError(
        "the checkpoint's config names no data.tokenizer: give one with --tokenizer "
        "bytes|FILE.model");
  std::error_code ignored;
  if (spec.ends_with(".model") && !std::filesystem::exists(spec, ignored)) {
    throw UsageError("there is no tokenizer {}: say with --tokenizer FILE.model where it is now",
                     spec);
  }
  const std::unique_ptr<Tokenizer> tokenizer = make_tokenizer(spec);
  if (tokenizer->vocab_size() > config.model.vocab_size) {
    throw UsageError("tokenizer {} has {} tokens, the model {}: it was trained with another one",
                     spec, tokenizer->vocab_size(), config.model.vocab_size);
  }
  // Two vocabularies of one size are told apart by their hash; synthetic tokens have none.
  const std::string hash = checkpoint.state().data_position.value("vocabulary_hash", "");
  if (!hash.empty() && hash != hash_text(tokenizer->hash())) {
    throw UsageError(
        "tokenizer {} has the vocabulary {}, the model was trained with {}: give that tokenizer "
        "with --tokenizer",
        spec, hash_text(tokenizer->hash()), hash);
  }
  const std::unique_ptr<Ops> ops = make_backend(arguments.device);
  ParameterTable table;
  DecoderLm model(table, config.model);
  const int64_t seq_len = config.model.seq_len, vocab_size = config.model.vocab_size;

  // The longest pass, planned and allocated once.
  PlanningOps planning(*ops);
  Arena counting = Arena::planning();
  const ParameterStore planned = ParameterStore::planning(table, planning, {});
  const Tensor logits_shape{nullptr, ops->compute_dtype(), {1, vocab_size}};
  model.make_tables(planning);
  model.next_token_logits({planning, counting, planned, 1, seq_len},
                          {nullptr, DType::i32, {seq_len}}, seq_len - 1, logits_shape);
  ParameterStore parameters(table, *ops, {});
  SingleProcess alone;
  LocalCommunicator communicator(alone);
  DataParallel ranks(communicator, parameters);
  load_weights(&checkpoint, *ops, ranks, arguments.average);
  model.make_tables(*ops);
  const DeviceMemory arena_memory = ops->allocate(counting.peak()),
                     workspace = ops->allocate(planning.workspace_bytes());
  const DeviceMemory token_memory = ops->allocate(static_cast<size_t>(seq_len) * sizeof(int32_t));
  const DeviceMemory logits_memory =
      ops->allocate(2 * static_cast<size_t>(vocab_size) * sizeof(float));
  ops->set_workspace({workspace.get(),
                      DType::f32,
                      {static_cast<int64_t>(planning.workspace_bytes() / sizeof(float))}});
  Arena arena(arena_memory.get(), counting.peak());
  const Tensor logits{logits_memory.get(), ops->compute_dtype(), {1, vocab_size}};
  const Tensor wide_logits{
      static_cast<float*>(logits_memory.get()) + vocab_size, DType::f32, {1, vocab_size}};

  // A new document follows the end of another, as in training.
  std::vector<int32_t> ids{tokenizer->eos_id()};
  for (int32_t id : tokenizer->encode(arguments.prompt)) ids.push_back(id);
  TextPrinter printer;
  printer.add(arguments.prompt);
  std::vector<float> host(static_cast<size_t>(vocab_size));
  for (int64_t n = 0; n < arguments.tokens; ++n) {
    const auto length = std::min(static_cast<int64_t>(ids.size()), seq_len);
    const Tensor tokens{token_memory.get(), DType::i32, {length}};
    ops->upload(tokens, ids.data() + static_cast<int64_t>(ids.size()) - length);
    model.next_token_logits({*ops, arena, parameters, 1, length}, tokens, length - 1, logits);
    ops->copy(logits, wide_logits);
    ops->download(host.data(), wide_logits);
    host.resize(static_cast<size_t>(tokenizer->vocab_size()));  // the model's may be rounded up
    const double uniform =
        uniform_from_bits(philox(arguments.seed, static_cast<uint64_t>(n), 0).words[0]);
    const int32_t next = sample(host, arguments.sampling, uniform);
    host.resize(static_cast<size_t>(vocab_size));
    if (next == tokenizer->eos_id()) break;
    ids.push_back(next);
    printer.add(tokenizer->decode(std::span(&next, 1)));
  }
  fmt::print("\n");
  return 0;
}

}  // namespace
}  // namespace sigtrain

int main(int argc, char** argv) {
  using namespace sigtrain;
  CLI::App app{"Samples text from a checkpoint.", "generate"};
  Arguments arguments;
  app.add_option("checkpoint", arguments.checkpoint,
                 "A checkpoint folder, or a run's folder (its newest checkpoint)")
      ->required();
  app.add_option("--prompt", arguments.prompt, "Text to go on from");
  app.add_option("--tokens", arguments.tokens, "At most this many tokens")
      ->capture_default_str()
      ->check(positive_number());
  app.add_option("--temperature", arguments.sampling.temperature, "0: the most likely token")
      ->capture_default_str()
      ->check(non_negative_number());
  app.add_option("--top-k", arguments.sampling.top_k, "0: all tokens")
      ->capture_default_str()
      ->check(non_negative_number());
  app.add_option("--top-p", arguments.sampling.top_p, "Probability mass that is sampled from")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1.0));
  app.add_option("--seed", arguments.seed, "Of the random numbers")->capture_default_str();
  app.add_option("--tokenizer", arguments.tokenizer, "bytes or a .model file, if not the config's");
  app.add_option("--device", arguments.device, "auto, cpu or cuda")->capture_default_str();
  app.add_flag("--average", arguments.average, "Use the averaged weights (optimizer.ema_decay)");
  return run_tool(app, argc, argv, [&] { return run(arguments); });
}
