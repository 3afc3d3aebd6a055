#include "tasks/language_modeling.h"

#include "data/fnv.h"
#include "data/tokenizer.h"
#include "ops/host_values.h"
#include "tasks/data_state.h"

namespace sigtrain {
namespace {

/// The means that the sums [loss_sum_slots] of a step or an evaluation stand for.
LossReport mean_of(const std::vector<double>& sums) {
  const double count = sums[loss_sum_count];
  if (count == 0.0) return {};
  return {sums[loss_sum_nll] / count, sums[loss_sum_objective] / count,
          sums[loss_sum_correct] / count, static_cast<int64_t>(count)};
}

}  // namespace

LanguageModeling::LanguageModeling(const Config& config)
    : config_(config), model_(table_, config.model) {}

void LanguageModeling::open_data() {
  const int64_t seq_len = config_.model.seq_len;
  const int64_t rank = group().rank(), ranks = group().size();
  const BatchShape train_shape{seq_len, config_.train.global_batch, rank, ranks};
  if (config_.data.source == DataSource::synthetic) {
    train_ = std::make_unique<SyntheticTokens>(config_.model.vocab_size, train_shape,
                                               config_.train.seed);
    return;
  }
  VocabularyCheck check;
  check.model_vocab_size = config_.model.vocab_size;
  // Else the mistake would show only when text is generated.
  if (!config_.data.tokenizer.empty())
    check.tokenizer_hash = make_tokenizer(config_.data.tokenizer)->hash();
  auto train = std::make_shared<const TokenCorpus>(config_.data.train, check);
  vocabulary_hash_ = train->vocabulary().hash;
  tokens_hash_ = train->hash();
  train_ = std::make_unique<ShuffledTokens>(train, train_shape, config_.train.seed);
  if (!has_validation()) return;
  check.tokenizer_hash = vocabulary_hash_;
  auto validation = std::make_shared<const TokenCorpus>(config_.data.validation, check);
  validation_hash_ = validation->hash();
  validation_ = std::make_unique<SequentialTokens>(
      validation, BatchShape{seq_len, ranks * config_.train.micro_batch, rank, ranks},
      config_.eval.sequences);
}

void LanguageModeling::prepare(Ops& ops) {
  model_.make_tables(ops);
  const Shape shape{own_rows(), config_.model.seq_len};
  tokens_ = targets_ = {nullptr, DType::i32, shape};
  sums_ = {nullptr, ops.accumulate_dtype(), {loss_sum_slots}};
  if (ops.is_planning()) return;
  const size_t stride =
      (tokens_.bytes() + Arena::alignment - 1) / Arena::alignment * Arena::alignment;
  memory_ = ops.allocate(2 * stride + sums_.bytes());
  auto* start = static_cast<std::byte*>(memory_.get());
  tokens_.data = start;
  targets_.data = start + stride;
  sums_.data = start + 2 * stride;
}

CrossEntropyDesc LanguageModeling::loss_desc(int64_t counted_targets) const {
  return {kIgnoredTarget, config_.loss.label_smoothing, config_.loss.z_loss,
          config_.loss.chunk_rows, 1.0 / static_cast<double>(counted_targets)};
}

void LanguageModeling::begin_step(Ops& ops, int64_t step) {
  if (!prefetcher_ || prefetcher_->step() != step) {
    prefetcher_.emplace([this](int64_t s) { return train_->get(s); }, step, config_.data.prefetch);
  }
  const TokenBatch batch = *prefetcher_->next();
  ops.upload(tokens_, batch.inputs.data());
  ops.upload(targets_, batch.targets.data());
  ops.fill(sums_, 0.0);
  ops.set_random_step(static_cast<uint64_t>(global_number(step * micro_steps())));
  step_targets_ = static_cast<int64_t>(group().sum(static_cast<double>(batch.valid_targets)));
}

void LanguageModeling::micro_step(Context& context, int64_t micro_step) {
  const int64_t rows = config_.train.micro_batch, begin = micro_step * rows;
  context.batch = rows;
  context.seq_len = config_.model.seq_len;
  if (micro_step > 0) context.ops.next_random_step();
  const Shape flat{rows * context.seq_len};
  model_.train(context, tokens_.slice(begin, begin + rows).reshape(flat),
               targets_.slice(begin, begin + rows).reshape(flat), loss_desc(step_targets_), sums_);
}

LossReport LanguageModeling::step_report(Ops& ops) const {
  std::vector<double> sums = host_values(ops, sums_);
  group().sum(sums);
  return mean_of(sums);
}

LossReport LanguageModeling::evaluate(Context& context) {
  const int64_t rows = config_.train.micro_batch;
  context.batch = rows;
  context.seq_len = config_.model.seq_len;
  const Shape flat{rows * context.seq_len};
  const Tensor tokens = tokens_.slice(0, rows).reshape(flat),
               targets = targets_.slice(0, rows).reshape(flat);
  if (context.ops.is_planning()) {
    model_.evaluate(context, tokens, targets, loss_desc(1), sums_);
    return {};
  }
  std::vector<double> total(loss_sum_slots, 0.0);
  Prefetcher<TokenBatch> batches([this](int64_t step) { return validation_->get(step); }, 0,
                                 config_.data.prefetch, 1, validation_->steps());
  while (const std::optional<TokenBatch> batch = batches.next()) {
    context.ops.upload(tokens, batch->inputs.data());
    context.ops.upload(targets, batch->targets.data());
    context.ops.fill(sums_, 0.0);
    model_.evaluate(context, tokens, targets, loss_desc(1), sums_);
    const std::vector<double> sums = host_values(context.ops, sums_);
    for (int slot = 0; slot < loss_sum_slots; ++slot)
      total[static_cast<size_t>(slot)] += sums[static_cast<size_t>(slot)];
  }
  group().sum(total);
  return mean_of(total);
}

nlohmann::json LanguageModeling::data_state(int64_t step) const {
  // The loader is a pure function of the step; the rest says that the steps are of the same data.
  nlohmann::json state{{"step", step},
                       {"global_batch", config_.train.global_batch},
                       {"seq_len", config_.model.seq_len}};
  if (vocabulary_hash_) state["vocabulary_hash"] = hash_text(*vocabulary_hash_);
  if (tokens_hash_) state["tokens"] = hash_text(*tokens_hash_);
  return state;
}

void LanguageModeling::check_data_state(const nlohmann::json& state) const {
  const nlohmann::json own = data_state(0);
  const auto text = [](const nlohmann::json& json) {
    return json.value("vocabulary_hash", std::string("none"));
  };
  if (text(state) != text(own)) {
    throw Error(
        "the checkpoint was trained with vocabulary {}, but the shards of data.train have {}: use "
        "the same tokenizer",
        text(state), text(own));
  }
  // One may want a larger batch or more text late in a run.
  warn_of_other_data(state, own, {"global_batch", "seq_len", "tokens"}, "samples");
}

int64_t shard_vocab_size(const Config& config) {
  return TokenCorpus(config.data.train).vocabulary().size;
}

}  // namespace sigtrain
