#include "models/speech_encoder.h"

namespace sigtrain {
namespace {

// A stream of random numbers above all blocks'.
constexpr uint64_t kInputDropoutStream = uint64_t{1} << 23;

}  // namespace

SpeechEncoder::SpeechEncoder(ParameterTable& table, const ModelConfig& config) : config_(config) {
  table.begin_group("front");
  convolution_.emplace(table, "convolution", config.speech.kernel * config.speech.mel_bins,
                       2 * config.width, true);
  stack_.emplace(table, config);
  head_.emplace(table, "head", config.width, config.vocab_size, true);
}

void SpeechEncoder::make_tables(Ops& ops) { stack_->make_tables(ops); }

void SpeechEncoder::forward(const Context& context, const SpokenBatch& batch, Pass& pass) const {
  const SpeechConfig& speech = config_.speech;
  Ops& ops = context.ops;
  pass.windows = context.activation(speech.kernel * speech.mel_bins);
  pass.gated = context.activation(2 * config_.width);
  const Tensor x = context.activation(config_.width);
  const UnfoldDesc unfold{context.batch,          batch.features.shape[1], context.seq_len,
                          speech.mel_bins,        speech.kernel,           speech.stride,
                          (speech.kernel - 1) / 2};
  ops.unfold(unfold, batch.features, batch.feature_lengths, pass.windows);
  convolution_->forward(context, pass.windows, Activation::none, {}, pass.gated);
  ops.glu_forward(pass.gated, x);
  const PositionKind position = config_.position.kind;
  if (position == PositionKind::sincos || position == PositionKind::cape)
    ops.add_sinusoids(batch.positions, x);
  if (context.training && config_.dropout > 0.0)
    ops.dropout({context.seed, kInputDropoutStream}, config_.dropout, x, x);
  pass.output = stack_->forward(context, x, batch.frame_lengths, pass.stack);
}

CtcDesc SpeechEncoder::loss(const Context& context, const SpokenBatch& batch,
                            double gradient_scale) const {
  return {context.batch, context.seq_len, config_.vocab_size, batch.targets.columns(), 0,
          gradient_scale};
}

void SpeechEncoder::train(const Context& context, const SpokenBatch& batch, double gradient_scale,
                          const Tensor& sums) const {
  ArenaScope scope(context.arena);
  Ops& ops = context.ops;
  const Tensor logits = context.activation(config_.vocab_size);
  const Tensor d_logits = context.activation(config_.vocab_size, Purpose::gradient);
  Pass pass;
  forward(context, batch, pass);
  head_->forward(context, pass.output, Activation::none, {}, logits);
  ops.ctc_loss(loss(context, batch, gradient_scale), logits, batch.frame_lengths, batch.targets,
               batch.target_lengths, batch.losses, sums, d_logits);
  head_->backward(context, pass.output, d_logits, Activation::none, {},
                  stack_->d_output(pass.stack));
  const Tensor dx = stack_->backward(context, pass.stack);
  if (config_.dropout > 0.0)
    ops.dropout({context.seed, kInputDropoutStream}, config_.dropout, dx, dx);
  const Tensor d_gated = context.activation(2 * config_.width, Purpose::gradient);
  ops.glu_backward(pass.gated, dx, d_gated);
  convolution_->backward(context, pass.windows, d_gated, Activation::none, {}, {});
}

void SpeechEncoder::evaluate(const Context& context, const SpokenBatch& batch, const Tensor& logits,
                             const Tensor& sums) const {
  transcribe(context, batch, logits);
  context.ops.ctc_loss(loss(context, batch, 1.0), logits, batch.frame_lengths, batch.targets,
                       batch.target_lengths, batch.losses, sums, {});
}

void SpeechEncoder::transcribe(const Context& context, const SpokenBatch& batch,
                               const Tensor& logits) const {
  ArenaScope scope(context.arena);
  Pass pass;
  forward(context, batch, pass);
  head_->forward(context, pass.output, Activation::none, {}, logits);
}

}  // namespace sigtrain
