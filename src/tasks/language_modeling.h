// Next-token prediction on token shards, or on synthetic tokens to measure speed.
#pragma once

#include <memory>
#include <optional>

#include "config/schema.h"
#include "data/prefetcher.h"
#include "data/token_loader.h"
#include "models/decoder_lm.h"
#include "tasks/task.h"

namespace sigtrain {

class LanguageModeling final : public Task {
 public:
  /// Builds the model of config.model; no data is touched until open_data().
  explicit LanguageModeling(const Config& config);

  /// Opens the token shards. Throws what TokenCorpus throws.
  void open_data() override;

  const ParameterTable& parameters() const override { return table_; }
  int64_t layers() const override { return config_.model.layers; }
  int64_t seq_len() const override { return config_.model.seq_len; }
  int64_t units_per_step() const override {
    return config_.train.global_batch * config_.model.seq_len;
  }
  std::string_view unit() const override { return "token"; }
  void prepare(Ops& ops) override;
  size_t batch_bytes() const override { return tokens_.bytes() + targets_.bytes(); }
  void begin_step(Ops& ops, int64_t step) override;
  int64_t step_targets() const override { return step_targets_; }
  int64_t micro_steps() const override { return own_rows() / config_.train.micro_batch; }
  void micro_step(Context& context, int64_t micro_step) override;
  LossReport step_report(Ops& ops) const override;
  LossReport evaluate(Context& context) override;
  bool has_validation() const override {
    return config_.data.source == DataSource::text && !config_.data.validation.empty();
  }
  nlohmann::json data_state(int64_t step) const override;
  uint64_t validation_hash() const override { return validation_hash_; }
  void check_data_state(const nlohmann::json& state) const override;

 private:
  CrossEntropyDesc loss_desc(int64_t counted_targets) const;
  /// Sequences of the global batch that are this rank's.
  int64_t own_rows() const { return config_.train.global_batch / group().size(); }

  Config config_;
  ParameterTable table_;
  DecoderLm model_;
  std::unique_ptr<TokenSource> train_;
  std::unique_ptr<SequentialTokens> validation_;
  std::optional<uint64_t> vocabulary_hash_, tokens_hash_;  // of the shards, where there are any
  uint64_t validation_hash_ = 0;
  std::optional<Prefetcher<TokenBatch>> prefetcher_;
  DeviceMemory memory_;
  Tensor tokens_, targets_;  // i32 [own_rows(), seq_len]
  Tensor sums_;              // [loss_sum_slots]
  int64_t step_targets_ = 1;
};

/// The vocabulary of the shards named in config.data.train; for a config that leaves
/// model.vocab_size at 0.
int64_t shard_vocab_size(const Config& config);

}  // namespace sigtrain
