// Mixup and CutMix: images of a micro-batch are mixed with their neighbours in it, and so are their
// targets.
#pragma once

#include "config/schema.h"
#include "data/image.h"
#include "data/image_batch.h"
#include "data/sample_random.h"

namespace sigtrain {

/// targets [rows, classes] of the batch's labels: 1 - smoothing for the label, and the smoothing
/// spread evenly over all classes (Szegedy et al. 2016).
void make_targets(ImageBatch& batch, int64_t classes, double smoothing);

/// batch[i] = share batch[i] + (1 - share) batch[i - 1], images (rounded to bytes) and targets, the
/// row before the first being the last (Zhang et al. 2018, as torchvision's MixUp).
void mix(ImageBatch& batch, double share);

/// Puts `box` of batch[i - 1] into batch[i]; targets are mixed by the share of pixels (Yun et al.
/// 2019, as torchvision's CutMix). `size` is that of the images.
void cut_and_mix(ImageBatch& batch, ImageSize size, const Box& box);

/// The rectangle of about 1 - share of the image's area around pixel (x, y), cut off at its edges;
/// and around a random one.
Box cut_around(ImageSize size, double share, int64_t x, int64_t y);
Box random_cut(ImageSize size, double share, SampleRandom& random);

/// What the config says of a batch, whose targets are made.
void mix_batch(const AugmentConfig& config, ImageSize size, SampleRandom& random,
               ImageBatch& batch);

}  // namespace sigtrain
