#include "tasks/image_classification.h"

#include <algorithm>

#include "data/fnv.h"
#include "data/loader_threads.h"
#include "ops/host_values.h"
#include "tasks/data_state.h"

namespace sigtrain {
namespace {

/// The means that the sums [class_sum_slots] of a step or an evaluation stand for.
LossReport mean_of(const std::vector<double>& sums) {
  const double count = sums[class_sum_count];
  if (count == 0.0) return {};
  return {sums[class_sum_nll] / count, sums[class_sum_objective] / count,
          sums[class_sum_correct] / count, static_cast<int64_t>(count),
          sums[class_sum_correct_of_5] / count};
}

DamageCount damage_of(const ImageSet& images, const Config& config) {
  return {images.size(), images.fingerprint(), config.data.image.max_damaged, "images",
          "data.image.max_damaged"};
}

std::unique_ptr<ImageSet> open(const Config& config, const std::vector<std::string>& paths) {
  const VisionConfig& vision = config.model.vision;
  return open_image_set(config.data.source, paths, vision.channels, vision.classes);
}

}  // namespace

ImageClassification::ImageClassification(const Config& config)
    : config_(config), model_(table_, config.model, config.data.image) {}

void ImageClassification::open_data() {
  if (config_.data.source == DataSource::synthetic) {
    train_ = std::make_unique<SyntheticImages>(config_);
    return;
  }
  std::shared_ptr<const ImageSet> train = open(config_, config_.data.train);
  check_classes_have_images(*train);
  fingerprint_ = train->fingerprint();
  train_ = std::make_unique<ShuffledImages>(train, config_);
  damage_.train = damage_of(*train, config_);
  if (!has_validation()) return;
  std::shared_ptr<const ImageSet> validation = open(config_, config_.data.validation);
  if (validation->class_names() != train->class_names()) {
    throw UsageError(
        "data.validation has other classes than data.train ({} and {}): labels would not mean the "
        "same",
        validation->class_names().size(), train->class_names().size());
  }
  validation_ = std::make_unique<ImageEvaluation>(validation, config_);
  validation_fingerprint_ = validation->fingerprint();
  damage_.validation = damage_of(*validation, config_);
}

void ImageClassification::prepare(Ops& ops) {
  model_.make_tables(ops);
  const VisionConfig& vision = config_.model.vision;
  const AugmentConfig& augment = config_.augment;
  const int64_t batch = own_rows();
  images_ = {nullptr, DType::u8, {batch, vision.image_size, vision.image_size, vision.channels}};
  labels_ = {nullptr, DType::i32, {batch}};
  sums_ = {nullptr, ops.accumulate_dtype(), {class_sum_slots}};
  targets_ = {};
  const bool soft =
      config_.loss.label_smoothing > 0.0 || augment.mixup > 0.0 || augment.cutmix > 0.0;
  if (soft && config_.data.source != DataSource::synthetic)
    targets_ = {nullptr, DType::f32, {batch, vision.classes}};
  if (ops.is_planning()) return;
  Tensor* const all[] = {&images_, &labels_, &sums_, &targets_};
  const auto padded = [](const Tensor* x) {
    return (x->bytes() + Arena::alignment - 1) / Arena::alignment * Arena::alignment;
  };
  size_t bytes = 0;
  for (const Tensor* tensor : all) bytes += padded(tensor);
  memory_ = ops.allocate(bytes);
  auto* next = static_cast<std::byte*>(memory_.get());
  for (Tensor* tensor : all) {
    tensor->data = next;
    next += padded(tensor);
  }
}

LabelledImages ImageClassification::rows(int64_t begin, int64_t end, bool with_targets) const {
  return {images_.slice(begin, end), labels_.slice(begin, end),
          with_targets && targets_ ? targets_.slice(begin, end) : Tensor{}};
}

void ImageClassification::begin_step(Ops& ops, int64_t step) {
  const int64_t first = step * micro_steps();
  if (!prefetcher_ || prefetcher_->step() != first) {
    const auto maker = train_->maker([this](int64_t own) { return global_number(own); });
    prefetcher_.emplace(
        maker, first, prefetch_depth(config_.data, group().cores(), micro_steps(), maker.threads()),
        loader_threads(config_.data, group().cores()));
  }
  std::vector<DamagedSample> damaged;
  for (int64_t begin = 0; begin < own_rows(); begin += config_.train.micro_batch) {
    const ImageBatch batch = *prefetcher_->next();
    const LabelledImages place = rows(begin, begin + config_.train.micro_batch, true);
    ops.upload(place.images, batch.images.data());
    ops.upload(place.labels, batch.labels.data());
    if (place.targets) ops.upload(place.targets, batch.targets.data());
    damaged.insert(damaged.end(), batch.damaged.begin(), batch.damaged.end());
  }
  if (damage_.train) damage_.train->add(group(), damaged);
  ops.fill(sums_, 0.0);
  ops.set_random_step(static_cast<uint64_t>(global_number(first)));
}

void ImageClassification::micro_step(Context& context, int64_t micro_step) {
  const int64_t count = config_.train.micro_batch, begin = micro_step * count;
  context.batch = count;
  context.seq_len = config_.model.seq_len;
  if (micro_step > 0) context.ops.next_random_step();
  model_.train(context, rows(begin, begin + count, true),
               1.0 / static_cast<double>(config_.train.global_batch), sums_);
}

LossReport ImageClassification::step_report(Ops& ops) const {
  std::vector<double> sums = host_values(ops, sums_);
  group().sum(sums);
  return mean_of(sums);
}

LossReport ImageClassification::evaluate(Context& context) {
  const int64_t count = config_.train.micro_batch;
  context.batch = count;
  context.seq_len = config_.model.seq_len;
  const LabelledImages batch = rows(0, count, false);
  if (context.ops.is_planning()) {
    model_.evaluate(context, batch, sums_);
    return {};
  }
  context.ops.fill(sums_, 0.0);
  // Rank r takes batches r, r + ranks, ...: how many there are need not divide.
  const int64_t ranks = group().size(), rank = group().rank();
  const auto maker = validation_->maker([=](int64_t own) { return own * ranks + rank; });
  Prefetcher<ImageBatch> batches(maker, 0,
                                 prefetch_depth(config_.data, group().cores(), 1, maker.threads()),
                                 loader_threads(config_.data, group().cores()),
                                 (validation_->batches() - rank + ranks - 1) / ranks);
  std::vector<DamagedSample> damaged;
  while (const std::optional<ImageBatch> next = batches.next()) {
    context.ops.upload(batch.images, next->images.data());
    context.ops.upload(batch.labels, next->labels.data());
    model_.evaluate(context, batch, sums_);
    damaged.insert(damaged.end(), next->damaged.begin(), next->damaged.end());
  }
  damage_.validation->add(group(), damaged);
  std::vector<double> sums = host_values(context.ops, sums_);
  group().sum(sums);
  const LossReport report = mean_of(sums);
  if (report.targets == 0) throw Error("none of the images of data.validation can be read");
  return report;
}

nlohmann::json ImageClassification::data_state(int64_t step) const {
  // The loader is a pure function of the step; the rest says that the steps are of the same data.
  nlohmann::json state{{"step", step},
                       {"global_batch", config_.train.global_batch},
                       {"repeats", config_.augment.repeats},
                       {"images", hash_text(fingerprint_)}};
  // Images are mixed with others of their micro-batch.
  if (config_.augment.mixup > 0.0 || config_.augment.cutmix > 0.0)
    state["micro_batch"] = config_.train.micro_batch;
  damage_.write_to(state);
  return state;
}

void ImageClassification::restore_data_state(const nlohmann::json& state) {
  damage_.restore(state);
}

void ImageClassification::check_data_state(const nlohmann::json& state) const {
  warn_of_other_data(state, data_state(0), {"global_batch", "repeats", "images", "micro_batch"},
                     "samples");
}

int64_t count_classes(const Config& config) {
  return static_cast<int64_t>(open(config, config.data.train)->class_names().size());
}

}  // namespace sigtrain
