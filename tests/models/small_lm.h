// A DecoderLm for tests, on any backend, and batches for it.
#pragma once

#include <vector>

#include "models/decoder_lm.h"
#include "models/small_model.h"

namespace sigtrain {

/// Token ids and targets, i32 [sequences, seq_len].
struct TokenRows {
  Buffer<int32_t> tokens, targets;
  int64_t sequences() const { return tokens.shape[0]; }
};

/// Uniform token ids; targets are drawn independently of them.
inline TokenRows random_tokens(RandomValues& random, const ModelConfig& model, int64_t sequences) {
  const Shape shape{sequences, model.seq_len};
  TokenRows rows;
  rows.tokens = random.integers(shape, 0, model.vocab_size);
  rows.targets = random.integers(shape, 0, model.vocab_size);
  return rows;
}

/// Sequences [begin, end) as the models take them: i32 [N].
inline Tensor flat_rows(Buffer<int32_t>& buffer, int64_t begin, int64_t end) {
  const Tensor rows = Tensor(buffer).slice(begin, end);
  return rows.reshape({rows.numel()});
}

/// What one training pass over `batch` sequences, an evaluation and an optimizer step need.
inline ModelMemory plan_lm(const ModelConfig& model, int64_t batch, const LossConfig& loss,
                           const Ops& backend, Recompute recompute = Recompute::none) {
  return plan_model(
      model, batch, backend, recompute,
      [&](ParameterTable& table) { return DecoderLm(table, model); },
      [&](DecoderLm& lm, Context& context) {
        const Tensor tokens{nullptr, DType::i32, {batch * model.seq_len}};
        const Tensor sums{nullptr, context.ops.accumulate_dtype(), {loss_sum_slots}};
        const CrossEntropyDesc desc{-1, loss.label_smoothing, loss.z_loss, loss.chunk_rows, 1.0};
        context.training ? lm.train(context, tokens, tokens, desc, sums)
                         : lm.evaluate(context, tokens, tokens, desc, sums);
      });
}

/// A DecoderLm with its memory.
template <typename Real, typename Backend = CpuOps<Real>>
class SmallLm : public SmallModel<Real, Backend> {
  using Base = SmallModel<Real, Backend>;

 public:
  /// At most `batch` sequences at a time. Weights are drawn from `seed`.
  SmallLm(const ModelConfig& model, int64_t batch, const LossConfig& loss = {}, uint64_t seed = 1,
          Recompute recompute = Recompute::none)
      : Base(model, seed, recompute), loss_(loss), lm_(this->table_, model) {
    this->start(lm_, plan_lm(model, batch, loss, this->ops_, recompute));
  }

  /// Told by training passes from now on.
  void set_exchange(ParameterExchange* exchange) { exchange_ = exchange; }

  /// Forward and backward over sequences [begin, end): adds to the gradients those of the objective
  /// over `counted` targets, and returns the sums of the loss. Dropout draws the same numbers each
  /// time.
  std::vector<double> train(TokenRows& rows, int64_t begin, int64_t end, double counted) {
    return pass(rows, begin, end, counted, true);
  }
  /// Forward alone; leaves the model's diagnostics.
  std::vector<double> evaluate(TokenRows& rows, int64_t begin, int64_t end) {
    return pass(rows, begin, end, 1.0, false);
  }
  /// Logits behind the last token of the batch.
  Buffer<Real> last_logits(TokenRows& rows) {
    Buffer<Real> logits({1, this->model_.vocab_size});
    const Tensor tokens = flat_rows(rows.tokens, 0, rows.sequences());
    lm_.next_token_logits(this->context(rows.sequences(), this->model_.seq_len, false), tokens,
                          tokens.numel() - 1, logits);
    return logits;
  }

 private:
  std::vector<double> pass(TokenRows& rows, int64_t begin, int64_t end, double counted,
                           bool training) {
    this->begin_pass();
    const Tensor tokens = this->on_device(flat_rows(rows.tokens, begin, end));
    const Tensor targets = this->on_device(flat_rows(rows.targets, begin, end));
    const Tensor sums = this->on_device(this->ops_.accumulate_dtype(), {loss_sum_slots}, 0.0);
    const CrossEntropyDesc desc{-1, loss_.label_smoothing, loss_.z_loss, loss_.chunk_rows,
                                1.0 / counted};
    Context context = this->context(end - begin, this->model_.seq_len, training);
    context.exchange = exchange_;
    training ? lm_.train(context, tokens, targets, desc, sums)
             : lm_.evaluate(context, tokens, targets, desc, sums);
    return host_values(this->ops_, sums);
  }

  LossConfig loss_;
  ParameterExchange* exchange_ = nullptr;
  DecoderLm lm_;
};

}  // namespace sigtrain
