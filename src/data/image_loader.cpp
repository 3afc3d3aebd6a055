#include "data/image_loader.h"

#include <malloc.h>

#include <algorithm>
#include <iterator>
#include <utility>

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

int64_t bytes_of_image(const Config& config) {
  const VisionConfig& vision = config.model.vision;
  return vision.image_size * vision.image_size * vision.channels;
}

/// Each image takes and frees a megabyte: the allocator is to keep that, as the system would hand
/// it out again page by page, zeroed, at a tenth of the loader's time.
void keep_freed_memory() {
#ifdef __GLIBC__
  mallopt(M_MMAP_THRESHOLD, 32 << 20);  // glibc's most
  mallopt(M_TRIM_THRESHOLD, 256 << 20);
#endif
}

DamagedSample damaged_sample(const ImageSet& images, int64_t index, const DamagedImage& error) {
  return {index, fmt::format("{}: {}", images.name(index), error.what())};
}

/// Of a piece: enough that its making outlasts the taking of a lock, even of images of 32 x 32, and
/// few enough that a batch has pieces for many threads.
constexpr int64_t kRowsOfPiece = 16;

}  // namespace

BatchMaker<ImageBatch> ImageSource::maker(std::function<int64_t(int64_t)> number) const {
  return {[this, number](int64_t step) { return begin(number(step)); }, pieces(),
          [this, number](int64_t step, int64_t piece, ImageBatch& batch) {
            make_piece(number(step), piece, batch);
          },
          [this, number](int64_t step, ImageBatch& batch) { finish(number(step), batch); }};
}

int64_t ImageRows::pieces() const { return (batch_ + kRowsOfPiece - 1) / kRowsOfPiece; }

ImageBatch ImageRows::begin(int64_t /*number*/) const {
  ImageBatch batch;
  batch.rows = batch_;
  batch.images.resize(static_cast<size_t>(batch_ * bytes_));
  batch.labels.resize(static_cast<size_t>(batch_));
  batch.damaged_of_pieces.resize(static_cast<size_t>(pieces()));
  return batch;
}

void ImageRows::make_piece(int64_t number, int64_t piece, ImageBatch& batch) const {
  const int64_t first = piece * kRowsOfPiece;
  for (int64_t row = first; row < std::min(batch_, first + kRowsOfPiece); ++row) {
    batch.labels[static_cast<size_t>(row)] =
        make_row(number, row, batch.images.data() + row * bytes_,
                 batch.damaged_of_pieces[static_cast<size_t>(piece)]);
  }
}

void ImageRows::finish(int64_t number, ImageBatch& batch) const {
  for (std::vector<DamagedSample>& of_piece : std::exchange(batch.damaged_of_pieces, {}))
    std::move(of_piece.begin(), of_piece.end(), std::back_inserter(batch.damaged));
  batch.counted = batch_ - std::count(batch.labels.begin(), batch.labels.end(), kNoLabel);
  mix_rows(number, batch);
}

ShuffledImages::ShuffledImages(std::shared_ptr<const ImageSet> images, const Config& config)
    : ImageRows(config.train.micro_batch, bytes_of_image(config)),
      images_(std::move(images)),
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

int32_t ShuffledImages::make_row(int64_t number, int64_t row, uint8_t* pixels,
                                 std::vector<DamagedSample>& damaged) const {
  const int64_t count = images_->size();
  const int64_t sample = number * batch_ + row, place = sample / augment_.repeats;
  const auto epoch = static_cast<uint64_t>(place / count);
  const Permutation order(static_cast<uint64_t>(count), {seed_, kOrderStream}, epoch);
  auto index = static_cast<int64_t>(order(static_cast<uint64_t>(place % count)));
  for (int64_t tries = 1;; ++tries) {
    try {
      const Image image = view(index, sample);
      std::copy(image.pixels.begin(), image.pixels.end(), pixels);
      return images_->label(index);
    } catch (const DamagedImage& error) {
      damaged.push_back(damaged_sample(*images_, index, error));
      if (tries == count) {
        throw Error("all of the {} images are damaged; the last: {}", count, damaged.back().text);
      }
      index = (index + 1) % count;
    }
  }
}

void ShuffledImages::mix_rows(int64_t number, ImageBatch& batch) const {
  const bool mixes = augment_.mixup > 0.0 || augment_.cutmix > 0.0;
  if (mixes || label_smoothing_ > 0.0) make_targets(batch, classes_, label_smoothing_);
  SampleRandom random({seed_, kBatchStream}, number);
  mix_batch(augment_, {size_, size_}, random, batch);
}

ImageEvaluation::ImageEvaluation(std::shared_ptr<const ImageSet> images, const Config& config)
    : ImageRows(config.train.micro_batch, bytes_of_image(config)),
      images_(std::move(images)),
      channels_(config.model.vision.channels),
      count_(images_->size()),
      view_(config.data.image.eval_resize, config.model.vision.image_size) {
  if (config.eval.sequences > 0) count_ = std::min(count_, config.eval.sequences);
}

int32_t ImageEvaluation::make_row(int64_t number, int64_t row, uint8_t* pixels,
                                  std::vector<DamagedSample>& damaged) const {
  const int64_t place = number * batch_ + row;
  if (place < count_) {
    const int64_t index = place * images_->size() / count_;
    try {
      const DecodedPart part = read_named(*images_, index, channels_,
                                          [&](ImageSize size) { return view_.choose(size); });
      const Image image = view_.make(part);
      std::copy(image.pixels.begin(), image.pixels.end(), pixels);
      return images_->label(index);
    } catch (const DamagedImage& error) {
      damaged.push_back(damaged_sample(*images_, index, error));
    }
  }
  std::fill_n(pixels, bytes_, uint8_t{0});
  return kNoLabel;
}

SyntheticImages::SyntheticImages(const Config& config)
    : batch_(config.train.micro_batch),
      bytes_(bytes_of_image(config)),
      classes_(config.model.vision.classes),
      seed_(config.train.seed) {}

ImageBatch SyntheticImages::begin(int64_t number) const {
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
