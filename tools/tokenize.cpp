// Turns text into token shards for training and validation, and trains the vocabulary if asked to.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/file_io.h"
#include "data/corpus_encoder.h"
#include "data/sentencepiece_tokenizer.h"
#include "data/sentencepiece_trainer.h"
#include "data/text_corpus.h"
#include "data/token_corpus.h"
#include "data/tokenizer.h"
#include "run_tool.h"

namespace {

using namespace sigtrain;
namespace fs = std::filesystem;

struct Options {
  std::vector<std::string> inputs;
  std::string output;
  std::string tokenizer = "bytes";
  int64_t bpe_size = 0;
  uint64_t bpe_bytes = SentencePieceTrainer::kDefaultMaxBytes;
  double validation_fraction = 0.05;
  int64_t shard_tokens = 100'000'000;
  std::vector<std::string> extensions = {".txt"};
  bool skip_bad = false;
  bool overwrite = false;
  bool check = false;
};

/// A name that is removed, with all below it, when it goes out of scope.
class Temporary {
 public:
  explicit Temporary(fs::path path) : path_(std::move(path)) { fs::remove_all(path_); }
  ~Temporary() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  Temporary(const Temporary&) = delete;
  Temporary& operator=(const Temporary&) = delete;
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

/// Standard input copied to `path`, because it is read more than once.
Document document_of_stdin(const fs::path& path) {
  std::ofstream file(path, std::ios::binary);
  std::vector<char> buffer(size_t{1} << 20);
  uint64_t bytes = 0;
  while (std::cin.read(buffer.data(), static_cast<std::streamsize>(buffer.size())),
         std::cin.gcount() > 0) {
    file.write(buffer.data(), std::cin.gcount());
    bytes += static_cast<uint64_t>(std::cin.gcount());
  }
  file.close();
  if (!file) throw Error("{}: cannot write a copy of standard input", path.string());
  return {path.string(), "standard input", "-", bytes};
}

std::vector<Document> collect_documents(const Options& options, const fs::path& stdin_copy) {
  std::vector<Document> documents;
  for (const std::string& input : options.inputs) {
    if (input == "-") {
      documents.push_back(document_of_stdin(stdin_copy));
    } else {
      const auto found = find_documents({input}, options.extensions);
      documents.insert(documents.end(), found.begin(), found.end());
    }
  }
  return documents;
}

/// The documents that are not empty and valid UTF-8. Throws at the first bad one, or reports and
/// leaves it out with --skip-bad.
std::vector<Document> check_documents(const std::vector<Document>& documents, bool skip_bad) {
  std::vector<Document> good;
  for (const Document& document : documents) {
    try {
      check_document(document);
      good.push_back(document);
    } catch (const Error& error) {
      if (!skip_bad) {
        throw Error("{}; correct or remove the file, or leave such files out with --skip-bad",
                    error.what());
      }
      fmt::print(stderr, "skipped {}\n", error.what());
    }
  }
  if (good.empty()) throw Error("no document is left: all {} were skipped", documents.size());
  return good;
}

uint64_t bytes_of(const std::vector<TextRange>& ranges) {
  uint64_t bytes = 0;
  for (const TextRange& range : ranges) bytes += range.end - range.begin;
  return bytes;
}

std::string train_bpe(const std::vector<TextRange>& ranges, const Options& options) {
  SentencePieceTrainer trainer(bytes_of(ranges), options.bpe_bytes);
  for (const TextRange& range : ranges) {
    TextReader reader(range);
    std::string piece;
    while (reader.next(piece)) trainer.add(piece);
  }
  return trainer.train(options.bpe_size);
}

/// The bytes of the .model to keep beside the shards; none for bytes.
std::string model_of(const std::vector<TextRange>& train, const Options& options) {
  if (options.bpe_size > 0) return train_bpe(train, options);
  if (options.tokenizer == "bytes") return {};
  return read_file(options.tokenizer);
}

/// The tokenizer to use; a vocabulary trained here is called by the name it will have.
std::unique_ptr<Tokenizer> tokenizer_of(const Options& options, const std::string& model,
                                        const fs::path& model_path) {
  if (options.bpe_size == 0) return make_tokenizer(options.tokenizer);
  return std::make_unique<SentencePieceTokenizer>(model_path.string(), model);
}

void encode_side(const char* side, const std::vector<TextRange>& ranges, const Tokenizer& tokenizer,
                 const fs::path& folder, int64_t shard_tokens) {
  TokenShardSetWriter writer(folder, {tokenizer.vocab_size(), tokenizer.hash()}, shard_tokens);
  encode_corpus(ranges, tokenizer, writer);
  const uint64_t bytes = bytes_of(ranges);
  fmt::print("{}: {} documents, {} bytes, {} tokens, {:.3f} bytes a token, {} shards\n", side,
             ranges.size(), bytes, writer.tokens(),
             static_cast<double>(bytes) / static_cast<double>(writer.tokens()), writer.shards());
}

void refuse_to_overwrite(const fs::path& path, bool overwrite) {
  if (!overwrite && fs::exists(path)) {
    throw UsageError("{} exists; choose another --output, or replace it with --overwrite",
                     path.string());
  }
}

void tokenize(const Options& options) {
  const fs::path output = options.output;
  const fs::path train = output / "train", validation = output / "validation";
  const fs::path model_path = output / "tokenizer.model";
  for (const auto& path : {train, validation, model_path}) {
    refuse_to_overwrite(path, options.overwrite);
  }
  if (options.bpe_size == 0) make_tokenizer(options.tokenizer);  // a wrong one is found out now
  std::error_code error;
  fs::create_directories(output, error);
  if (error) throw Error("{}: cannot make the folder: {}", output.string(), error.message());

  const Temporary stdin_copy(output / "stdin.partial");
  const auto found = collect_documents(options, stdin_copy.path());
  const auto documents = check_documents(found, options.skip_bad);
  const CorpusSplit split = split_documents(documents, options.validation_fraction);
  const std::string model = model_of(split.train, options);
  const auto tokenizer = tokenizer_of(options, model, model_path);

  // Both sides appear under their names only when all is written, so no run sees half a corpus.
  const Temporary train_partial(output / "train.partial");
  const Temporary validation_partial(output / "validation.partial");
  encode_side("train", split.train, *tokenizer, train_partial.path(), options.shard_tokens);
  if (!split.validation.empty()) {
    encode_side("validation", split.validation, *tokenizer, validation_partial.path(),
                options.shard_tokens);
  }
  for (const auto& path : {train, validation, model_path}) fs::remove_all(path);
  if (!model.empty()) write_file(model_path, model);
  if (!split.validation.empty()) fs::rename(validation_partial.path(), validation);
  fs::rename(train_partial.path(), train);

  if (!split.validation.empty() && !split.by_document) {
    fmt::print("validation is the last {:g}% of each document, there being few\n",
               100 * options.validation_fraction);
  }
  if (found.size() != documents.size()) {
    fmt::print("skipped {} of {} documents\n", found.size() - documents.size(), found.size());
  }
  fmt::print("tokenizer: {}, vocabulary of {}\n", model.empty() ? "bytes" : model_path.string(),
             tokenizer->vocab_size());
}

void check_shards(const std::vector<std::string>& inputs) {
  const TokenCorpus corpus(inputs);
  for (const TokenShard& shard : corpus.shards()) shard.verify();
  fmt::print("{} shards, {} tokens, vocabulary of {}: all checksums match\n",
             corpus.shards().size(), corpus.size(), corpus.vocabulary().size);
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app(
      "Turns text into token shards: OUTPUT/train/*.tok, OUTPUT/validation/*.tok and, unless the "
      "tokens are bytes, OUTPUT/tokenizer.model. Every file is a document.");
  app.add_option("input", options.inputs,
                 "files, folders (searched to any depth) or - for standard input")
      ->required();
  auto* output = app.add_option("--output", options.output, "folder to write to");
  auto* tokenizer = app.add_option("--tokenizer", options.tokenizer,
                                   "\"bytes\" or the path of a SentencePiece .model")
                        ->capture_default_str();
  auto* bpe = app.add_option("--train-bpe", options.bpe_size,
                             "train a byte-pair vocabulary of this many ids on the training text")
                  ->check(positive_number())
                  ->excludes(tokenizer);
  app.add_option("--bpe-bytes", options.bpe_bytes,
                 "bytes of text to train the vocabulary on; lines are sampled from more")
      ->capture_default_str()
      ->check(positive_number())
      ->needs(bpe);
  app.add_option("--validation-fraction", options.validation_fraction,
                 "share of the text set aside for validation")
      ->capture_default_str();
  app.add_option("--shard-tokens", options.shard_tokens, "tokens in a shard")
      ->capture_default_str()
      ->check(positive_number());
  app.add_option("--extensions", options.extensions, "files to take from folders, as .txt,.md")
      ->delimiter(',')
      ->capture_default_str();
  app.add_flag("--skip-bad", options.skip_bad,
               "leave out, and report, documents that are empty or not UTF-8");
  app.add_flag("--overwrite", options.overwrite, "replace an earlier output");
  app.add_flag("--check", options.check, "verify the checksums of the token shards given as input")
      ->excludes(output);
  return run_tool(app, argc, argv, [&] {
    if (options.check) {
      check_shards(options.inputs);
    } else if (options.output.empty()) {
      throw UsageError("--output is missing: name the folder to write to");
    } else {
      tokenize(options);
    }
    return 0;
  });
}
