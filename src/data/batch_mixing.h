// Mixup and CutMix: images of a micro-batch are mixed with others of it, and so are their targets.
#pragma once

#include "config/schema.h"
#include "data/image.h"
#include "data/image_batch.h"
#include "data/sample_random.h"

namespace sigtrain {

/// targets [rows, classes] of the batch's labels: 1 - smoothing for the label, and the smoothing
/// spread evenly over all classes (Szegedy et al. 2016).
void make_targets(ImageBatch& batch, int64_t classes, double smoothing);

/// batch[i] = share batch[i] + (1 - share) batch[i - distance], images (rounded to bytes) and
/// targets, the row before the first being the last (Zhang et al. 2018; at distance 1 torchvision's
/// MixUp). distance: 0 to batch.rows.
void mix(ImageBatch& batch, int64_t distance, double share);

/// Puts `box` of batch[i - distance] into batch[i]; targets are mixed by the share of pixels (Yun
/// et al. 2019; at distance 1 torchvision's CutMix). `size` is that of the images.
void cut_and_mix(ImageBatch& batch, int64_t distance, ImageSize size, const Box& box);

/// The rectangle of about 1 - share of the image's area around pixel (x, y), cut off at its edges;
/// and around a random one.
Box cut_around(ImageSize size, double share, int64_t x, int64_t y);
Box random_cut(ImageSize size, double share, SampleRandom& random);

/// What the config says of a batch, whose targets are made. The rows of one image lie together,
/// config.repeats of them, so that is the distance to the nearest row that is of another one.
void mix_batch(const AugmentConfig& config, ImageSize size, SampleRandom& random,
               ImageBatch& batch);

}  // namespace sigtrain
