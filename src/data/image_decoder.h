// JPEG and PNG files to pixels.
#pragma once

#include <functional>
#include <limits>
#include <string>
#include <string_view>

#include "core/error.h"
#include "data/image.h"

namespace sigtrain {

/// A file that is no image, or whose image is not whole.
class DamagedImage : public Error {
 public:
  using Error::Error;
};

/// What of an image of a given size is wanted: `box` of it, as `out` pixels later on. It may be
/// decoded at a smaller scale that still has `oversampling` pixels a side for each of `out`.
struct Part {
  Box box;
  ImageSize out;
  double oversampling = std::numeric_limits<double>::infinity();  // never smaller
};
using ChoosePart = std::function<Part(ImageSize)>;

/// The image, or the rows and columns around the part, perhaps scaled down, and where the part lies
/// in that.
struct DecodedPart {
  Image image;
  Box box;
  ImageSize out;
};

/// Decodes what `choose` wants of the image in `bytes` to 1 or 3 channels. A JPEG is decoded at the
/// smallest of the scales 1/8 ... 8/8 that the part allows, which saves most of the work of a large
/// one, and only the blocks around it. Throws DamagedImage.
DecodedPart decode_part(std::string_view bytes, int64_t channels, const ChoosePart& choose);

/// Throws DamagedImage if a file's header claims a size that no image has.
void check_size(ImageSize size);

/// Decodes all of it at full size.
Image decode_image(std::string_view bytes, int64_t channels);

}  // namespace sigtrain
