#include "data/image_loader.h"

#include <malloc.h>

#include <algorithm>

#include "data/batch_mixing.h"
#include "data/permutation.h"

namespace sigtrain {
namespace {

// Of RandomStream's 2^24 streams, beside those of tokens.
constexpr uint64_t kOrderStream = 0xFFFF10;
constexpr uint64_t kSampleStream = 0xFFFF11;
constexpr uint64_t kBatchStream = 0xFFFF12;
constexpr uint64_t kSyntheticStream = 0xFFFF13;

/// Reads an image through `choose` and says which one it is if that fails for another reason than
/// damage, which is for the caller to deal with.
DecodedPart read_named(const ImageSet& images, int64_t index, int64_t channels,
                       const ChoosePart& choose) {
  try {
    return images.read(index, channels, choose);
  } catch (const DamagedImage&) {
    throw;
  } catch (const Error& error) {
    throw Error("{}: {}", images.name(index), error.what());
  }
}

/// Each image takes and frees a megabyte: the allocator is to keep that, as the system would hand
/// it out again page by page, zeroed, at a tenth of the loader's time.
void keep_freed_memory() {
#ifdef __GLIBC__
  mallopt(M_MMAP_THRESHOLD, 32 << 20);  // glibc's most
  mallopt(M_TRIM_THRESHOLD, 256 << 20);
#endif
}

void append(const Image& image, ImageBatch& batch) {
  batch.images.insert(batch.images.end(), image.pixels.begin(), image.pixels.end());
}

void note_damaged(const ImageSet& images, int64_t index, const DamagedImage& error,
                  ImageBatch& batch) {
  batch.damaged.push_back({index, fmt::format("{}: {}", images.name(index), error.what())});
}

}  // namespace

ShuffledImages::ShuffledImages(std::shared_ptr<const ImageSet> images, const Config& config)
    : images_(std::move(images)),
      batch_(config.train.micro_batch),
      channels_(config.model.vision.channels),
      classes_(config.model.vision.classes),
      size_(config.model.vision.image_size),
      seed_(config.train.seed),
      augment_(config.augment),
      label_smoothing_(config.loss.label_smoothing),
      view_(config.augment, size_, config.data.image.mean) {
  keep_freed_memory();
}

Image ShuffledImages::view(int64_t index, int64_t sample) const {
  SampleRandom random({seed_, kSampleStream}, sample);
  const DecodedPart part = read_named(*images_, index, channels_,
                                      [&](ImageSize size) { return view_.choose(size, random); });
  return view_.make(part, random);
}

ImageBatch ShuffledImages::get(int64_t number) const {
  ImageBatch batch;
  batch.rows = batch.counted = batch_;
  batch.images.reserve(static_cast<size_t>(batch_ * size_ * size_ * channels_));
  const int64_t count = images_->size();
  for (int64_t row = 0; row < batch_; ++row) {
    const int64_t sample = number * batch_ + row, place = sample / augment_.repeats;
    const auto epoch = static_cast<uint64_t>(place / count);
    const Permutation order(static_cast<uint64_t>(count), {seed_, kOrderStream}, epoch);
    auto index = static_cast<int64_t>(order(static_cast<uint64_t>(place % count)));
    for (int64_t tries = 1;; ++tries) {
      try {
        append(view(index, sample), batch);
        break;
      } catch (const DamagedImage& error) {
        note_damaged(*images_, index, error, batch);
        if (tries == count) {
          throw Error("all of the {} images are damaged; the last: {}", count,
                      batch.damaged.back().text);
        }
        index = (index + 1) % count;
      }
    }
    batch.labels.push_back(images_->label(index));
  }
  const bool mixes = augment_.mixup > 0.0 || augment_.cutmix > 0.0;
  if (mixes || label_smoothing_ > 0.0) make_targets(batch, classes_, label_smoothing_);
  SampleRandom random({seed_, kBatchStream}, number);
  mix_batch(augment_, {size_, size_}, random, batch);
  return batch;
}

ImageEvaluation::ImageEvaluation(std::shared_ptr<const ImageSet> images, const Config& config)
    : images_(std::move(images)),
      batch_(config.train.micro_batch),
      channels_(config.model.vision.channels),
      size_(config.model.vision.image_size),
      count_(images_->size()),
      view_(config.data.image.eval_resize, size_) {
  if (config.eval.sequences > 0) count_ = std::min(count_, config.eval.sequences);
}

ImageBatch ImageEvaluation::get(int64_t number) const {
  ImageBatch batch;
  batch.rows = batch_;
  batch.images.reserve(static_cast<size_t>(batch_ * size_ * size_ * channels_));
  const Image black(size_, size_, channels_);
  for (int64_t row = number * batch_; row < (number + 1) * batch_; ++row) {
    int32_t label = kNoLabel;
    if (row < count_) {
      const int64_t index = row * images_->size() / count_;
      try {
        const DecodedPart part = read_named(*images_, index, channels_,
                                            [&](ImageSize size) { return view_.choose(size); });
        append(view_.make(part), batch);
        label = images_->label(index);
        ++batch.counted;
      } catch (const DamagedImage& error) {
        note_damaged(*images_, index, error, batch);
      }
    }
    if (label == kNoLabel) append(black, batch);
    batch.labels.push_back(label);
  }
  return batch;
}

SyntheticImages::SyntheticImages(const Config& config)
    : batch_(config.train.micro_batch),
      bytes_(config.model.vision.image_size * config.model.vision.image_size *
             config.model.vision.channels),
      classes_(config.model.vision.classes),
      seed_(config.train.seed) {}

ImageBatch SyntheticImages::get(int64_t number) const {
  ImageBatch batch;
  batch.rows = batch.counted = batch_;
  batch.images.resize(static_cast<size_t>(batch_ * bytes_));
  SampleRandom random({seed_, kSyntheticStream}, number);
  for (int64_t row = 0; row < batch_; ++row)
    batch.labels.push_back(static_cast<int32_t>(random.integer(classes_)));
  // The same noise in every batch but for where it starts: this is to cost nothing.
  const size_t period = 8191;
  std::vector<uint8_t> noise(period);
  for (uint8_t& byte : noise) byte = static_cast<uint8_t>(random.bits());
  for (size_t at = 0; at < batch.images.size(); at += period) {
    const size_t length = std::min(period, batch.images.size() - at);
    std::copy_n(noise.begin(), length, batch.images.begin() + static_cast<std::ptrdiff_t>(at));
  }
  return batch;
}

}  // namespace sigtrain
