// A DecoderLm with its memory, on any backend: what the tests of whole models share.
#pragma once

#include <optional>
#include <span>
#include <utility>

#include "models/decoder_lm.h"
#include "ops/host_values.h"
#include "ops/op_testing.h"
#include "ops/planning_ops.h"
#include "train/optimizer.h"

namespace sigtrain {

/// One thread as long as it lives: models so small lose by more, most of all on a busy machine.
class OneThread {
 public:
  OneThread() { omp_set_num_threads(1); }
  ~OneThread() { omp_set_num_threads(before_); }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int before_ = omp_get_max_threads();
};

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

struct LmPlan {
  size_t arena = 0, workspace = 0;
  size_t total() const { return arena + workspace; }
};

/// What one training pass over `batch` sequences, an evaluation and an optimizer step need.
inline LmPlan plan_lm(const ModelConfig& model, int64_t batch, const LossConfig& loss,
                      const Ops& backend, Recompute recompute = Recompute::none) {
  ParameterTable table;
  DecoderLm lm(table, model);
  PlanningOps ops(backend);
  lm.make_tables(ops);
  const ParameterStore parameters = ParameterStore::planning(table, ops, {true, true, false});
  Diagnostics diagnostics = Diagnostics::planning(ops, model.layers);
  Arena arena = Arena::planning();
  Context context{ops, arena, parameters, batch, model.seq_len, 0, true, &diagnostics, recompute};
  const Tensor tokens{nullptr, DType::i32, {batch * model.seq_len}};
  const Tensor sums{nullptr, ops.accumulate_dtype(), {loss_sum_slots}};
  const CrossEntropyDesc desc{-1, loss.label_smoothing, loss.z_loss, loss.chunk_rows, 1.0};
  lm.train(context, tokens, tokens, desc, sums);
  Optimizer(parameters, ops, {}, model.width).step(ops);
  context.training = false;
  lm.evaluate(context, tokens, tokens, desc, sums);
  return {arena.peak(), ops.workspace_bytes()};
}

/// Real is the type of gradients and losses. Functions that give spans are for CPU backends.
template <typename Real, typename Backend = CpuOps<Real>>
class SmallLm {
 public:
  /// At most `batch` sequences at a time. Weights are drawn from `seed`.
  SmallLm(const ModelConfig& model, int64_t batch, const LossConfig& loss = {}, uint64_t seed = 1,
          Recompute recompute = Recompute::none)
      : model_(model),
        loss_(loss),
        seed_(seed),
        recompute_(recompute),
        lm_(table_, model),
        parameters_(table_, ops_, {true, true, false}),
        diagnostics_(ops_, model.layers) {
    const LmPlan plan = plan_lm(model, batch, loss, ops_, recompute);
    arena_memory_ = ops_.allocate(plan.arena);
    arena_.emplace(arena_memory_.get(), plan.arena);
    workspace_ = ops_.allocate(plan.workspace);
    ops_.set_workspace(
        {workspace_.get(), DType::f32, {static_cast<int64_t>(plan.workspace / sizeof(float))}});
    lm_.make_tables(ops_);
    parameters_.initialize(ops_, seed);
  }

  Ops& ops() { return ops_; }
  const ParameterTable& table() const { return table_; }
  const ParameterStore& parameters() const { return parameters_; }
  Diagnostics& diagnostics() { return diagnostics_; }
  /// Told by training passes from now on.
  void set_exchange(ParameterExchange* exchange) { exchange_ = exchange; }
  int64_t tensors() const { return static_cast<int64_t>(table_.parameters().size()); }

  /// The weights and gradients of one parameter, where they are.
  std::span<Real> weight(ParameterId id) { return elements(parameters_.weight(id)); }
  std::span<Real> gradient(ParameterId id) { return elements(parameters_.gradient(id)); }
  std::span<Real> gradients() { return elements(parameters_.gradients()); }
  /// A copy of one parameter's gradient, on any backend.
  std::vector<double> gradient_values(ParameterId id) {
    return host_values(ops_, parameters_.gradient(id));
  }
  void zero_gradients() { ops_.fill(parameters_.gradients(), 0.0); }

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
    Buffer<Real> logits({1, model_.vocab_size});
    const Tensor tokens = flat_rows(rows.tokens, 0, rows.sequences());
    lm_.next_token_logits(context(rows.sequences(), false), tokens, tokens.numel() - 1, logits);
    return logits;
  }

 private:
  std::span<Real> elements(const Tensor& x) {
    return {x.as<Real>(), static_cast<size_t>(x.numel())};
  }
  Context context(int64_t batch, bool training) {
    return {ops_,           *arena_,  parameters_, batch,
            model_.seq_len, seed_,    training,    training ? nullptr : &diagnostics_,
            recompute_,     exchange_};
  }
  /// Where the backend's operations can read it.
  DeviceMemory on_device(Tensor& host) {
    DeviceMemory memory = ops_.allocate(host.bytes());
    const void* values = std::exchange(host.data, memory.get());
    ops_.upload(host, values);
    return memory;
  }
  std::vector<double> pass(TokenRows& rows, int64_t begin, int64_t end, double counted,
                           bool training) {
    Tensor tokens = flat_rows(rows.tokens, begin, end),
           targets = flat_rows(rows.targets, begin, end);
    Buffer<Real> zeros({loss_sum_slots});
    std::fill(zeros.values.begin(), zeros.values.end(), Real(0));
    Tensor sums = zeros;
    const DeviceMemory memory[] = {on_device(tokens), on_device(targets), on_device(sums)};
    const CrossEntropyDesc desc{-1, loss_.label_smoothing, loss_.z_loss, loss_.chunk_rows,
                                1.0 / counted};
    ops_.set_random_step(7);
    if (training) {
      lm_.train(context(end - begin, true), tokens, targets, desc, sums);
    } else {
      lm_.evaluate(context(end - begin, false), tokens, targets, desc, sums);
    }
    return host_values(ops_, sums);
  }

  ModelConfig model_;
  LossConfig loss_;
  uint64_t seed_;
  Recompute recompute_;
  ParameterExchange* exchange_ = nullptr;
  Backend ops_;
  ParameterTable table_;
  DecoderLm lm_;
  ParameterStore parameters_;
  Diagnostics diagnostics_;
  DeviceMemory arena_memory_, workspace_;
  std::optional<Arena> arena_;
};

}  // namespace sigtrain
