#include "models/vision_transformer.h"

#include "config/derived.h"
#include "nn/positions.h"

namespace sigtrain {
namespace {

// A stream of random numbers above all blocks'.
constexpr uint64_t kEmbeddingDropoutStream = uint64_t{1} << 23;

/// As in the published models: small beside patches, which start at unit variance.
constexpr Initializer kTokenInitializer{0.0, 0.02};

}  // namespace

VisionTransformer::VisionTransformer(ParameterTable& table, const ModelConfig& config,
                                     const ImageDataConfig& image)
    : config_(config), image_(image) {
  const VisionConfig& vision = config.vision;
  table.begin_group("embedding");
  table.set_frozen(vision.frozen_patch_embedding);
  patch_embedding_.emplace(table, "patch_embedding",
                           vision.channels * vision.patch_size * vision.patch_size, config.width,
                           true);
  table.set_frozen(false);
  if (vision.pool == ImagePool::class_token) {
    class_token_ =
        table.add("class_token", {1, config.width}, ParameterKind::embedding, kTokenInitializer);
  }
  if (config.position.kind == PositionKind::learned) {
    positions_ = table.add("positions.weight", {config.seq_len, config.width},
                           ParameterKind::embedding, kTokenInitializer);
  }
  stack_.emplace(table, config);
  head_.emplace(table, "head", config.width, vision.classes, true);
}

int64_t VisionTransformer::patches() const {
  return config_.seq_len - (class_token_ != kNoParameter ? 1 : 0);
}

void VisionTransformer::make_tables(Ops& ops) {
  stack_->make_tables(ops);
  const VisionConfig& vision = config_.vision;
  std::vector<double> factors, offsets;
  for (size_t c = 0; c < image_.mean.size(); ++c) {
    factors.push_back(1.0 / (255.0 * image_.stddev[c]));
    offsets.push_back(-image_.mean[c] / image_.stddev[c]);
  }
  factors_ = make_table(ops, {vision.channels}, factors, ops.accumulate_dtype(), factors_memory_);
  offsets_ = make_table(ops, {vision.channels}, offsets, ops.accumulate_dtype(), offsets_memory_);
  if (config_.position.kind != PositionKind::sincos) return;
  // The class token is nowhere.
  std::vector<double> table(static_cast<size_t>((config_.seq_len - patches()) * config_.width));
  const std::vector<double> of_patches =
      sincos_2d_table(vision.image_size / vision.patch_size, config_.width);
  table.insert(table.end(), of_patches.begin(), of_patches.end());
  sincos_ =
      make_table(ops, {config_.seq_len, config_.width}, table, ops.compute_dtype(), sincos_memory_);
}

Tensor VisionTransformer::as_sequences(const Context& context, const Tensor& rows) const {
  return rows.reshape({context.batch, rows.rows() / context.batch, config_.width});
}

void VisionTransformer::forward(const Context& context, const Tensor& images, Pass& pass) const {
  const VisionConfig& vision = config_.vision;
  Ops& ops = context.ops;
  const DType dtype = ops.compute_dtype();
  const int64_t rows = context.batch * patches();
  pass.pooled = context.arena.allocate({context.batch, config_.width}, dtype, Purpose::activation);
  pass.patches = context.arena.allocate(
      {rows, vision.channels * vision.patch_size * vision.patch_size}, dtype, Purpose::activation);
  const Tensor x = context.activation(config_.width);
  ops.image_patches(vision.patch_size, images, factors_, offsets_, pass.patches);
  {
    ArenaScope scope(context.arena);
    const Tensor embedded =
        context.arena.allocate({rows, config_.width}, dtype, Purpose::temporary);
    patch_embedding_->forward(context, pass.patches, Activation::none, {}, embedded);
    const Tensor positions = positions_ != kNoParameter ? context.weight(positions_) : sincos_;
    ops.sequence_forward(context.weight(class_token_), as_sequences(context, embedded), positions,
                         as_sequences(context, x));
  }
  if (context.training && config_.dropout > 0.0)
    ops.dropout({context.seed, kEmbeddingDropoutStream}, config_.dropout, x, x);
  const Tensor output = stack_->forward(context, x, {}, pass.stack);
  ops.pool_forward(vision.pool, as_sequences(context, output), pass.pooled);
}

void VisionTransformer::backward(const Context& context, const Tensor& d_logits, Pass& pass) const {
  Ops& ops = context.ops;
  const Tensor d_pooled =
      context.arena.allocate(pass.pooled.shape, ops.compute_dtype(), Purpose::gradient);
  head_->backward(context, pass.pooled, d_logits, Activation::none, {}, d_pooled);
  ops.pool_backward(config_.vision.pool, d_pooled,
                    as_sequences(context, stack_->d_output(pass.stack)));
  const Tensor dx = stack_->backward(context, pass.stack);
  if (config_.dropout > 0.0)
    ops.dropout({context.seed, kEmbeddingDropoutStream}, config_.dropout, dx, dx);
  Tensor d_embedded, d_sequences;
  if (!config_.vision.frozen_patch_embedding) {
    d_embedded = context.arena.allocate({context.batch * patches(), config_.width},
                                        ops.compute_dtype(), Purpose::gradient);
    d_sequences = as_sequences(context, d_embedded);
  }
  ops.sequence_backward(as_sequences(context, dx), d_sequences, context.gradient(class_token_),
                        context.gradient(positions_));
  if (d_embedded)
    patch_embedding_->backward(context, pass.patches, d_embedded, Activation::none, {}, {});
}

void VisionTransformer::train(const Context& context, const LabelledImages& batch,
                              double gradient_scale, const Tensor& sums) const {
  ArenaScope scope(context.arena);
  Ops& ops = context.ops;
  Pass pass;
  const Shape shape{context.batch, config_.vision.classes};
  const Tensor logits = context.arena.allocate(shape, ops.compute_dtype(), Purpose::activation);
  const Tensor d_logits = context.arena.allocate(shape, ops.compute_dtype(), Purpose::gradient);
  forward(context, batch.images, pass);
  head_->forward(context, pass.pooled, Activation::none, {}, logits);
  ops.classification_loss(gradient_scale, logits, batch.labels, batch.targets, sums, d_logits);
  backward(context, d_logits, pass);
}

void VisionTransformer::evaluate(const Context& context, const LabelledImages& batch,
                                 const Tensor& sums) const {
  ArenaScope scope(context.arena);
  const Tensor logits = context.arena.allocate({context.batch, config_.vision.classes},
                                               context.ops.compute_dtype(), Purpose::activation);
  classify(context, batch.images, logits);
  context.ops.classification_loss(1.0, logits, batch.labels, {}, sums, {});
}

void VisionTransformer::classify(const Context& context, const Tensor& images,
                                 const Tensor& logits) const {
  ArenaScope scope(context.arena);
  Pass pass;
  forward(context, images, pass);
  head_->forward(context, pass.pooled, Activation::none, {}, logits);
}

}  // namespace sigtrain
