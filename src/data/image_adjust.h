// Changes of an image's colours and shape, each defined as torchvision's function of the same name
// on images of bytes. Images have three channels unless said otherwise.
#pragma once

#include <array>

#include "data/image.h"

namespace sigtrain {

// Factor 1 changes nothing, 0 is black, grey, the mean grey of the image, or a blurred image.
void adjust_brightness(Image& image, double factor);  // any channels
void adjust_saturation(Image& image, double factor);
void adjust_contrast(Image& image, double factor);  // any channels
void adjust_sharpness(Image& image, double factor);
/// Turns the hue by `turns` of the circle, in [-0.5, 0.5].
void adjust_hue(Image& image, double turns);

/// Keeps the `bits` highest bits of each byte.
void posterize(Image& image, int bits);
/// Inverts bytes of at least `threshold`.
void solarize(Image& image, double threshold);
/// Stretches each channel to [0, 255].
void autocontrast(Image& image);
/// Makes each channel's histogram flat.
void equalize(Image& image);

/// Output pixel (x, y), from the middle of the image, is the input pixel nearest to
/// (m[0] x + m[1] y + m[2], m[3] x + m[4] y + m[5]); black where there is none. Of two that are
/// equally near torchvision takes the one that its float arithmetic happens to lead to.
void warp(Image& image, const std::array<double, 6>& m);
/// Counter-clockwise by `degrees` around the middle.
void rotate(Image& image, double degrees);
/// x += shear y, or y += shear x, from the upper left corner.
void shear_x(Image& image, double shear);
void shear_y(Image& image, double shear);
void translate(Image& image, int64_t right, int64_t down);

}  // namespace sigtrain
