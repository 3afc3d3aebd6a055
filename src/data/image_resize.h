// Resizing as Pillow does it, to the bit, which torchvision follows to one grey level.
#pragma once

#include "data/image.h"

namespace sigtrain {

/// The pixels under `box` as an image of `out` pixels: bilinear, widened to an average where it
/// shrinks. Nothing outside of the pixels that the box touches has a part in it.
Image resize(const Image& image, const Box& box, ImageSize out);

/// The pixels [top, top + out.height) x [left, left + out.width); black outside of the image.
Image crop(const Image& image, int64_t top, int64_t left, ImageSize out);

/// Left becomes right.
void flip_horizontally(Image& image);

}  // namespace sigtrain
