// PNG files to pixels.
#pragma once

#include "data/image_decoder.h"

namespace sigtrain {

/// As decode_part, all of it at full size. As Pillow reads them: numbers are levels of sRGB
/// whatever a gAMA chunk says of them, of 16 bits the upper 8 are taken, and grey of colours is
/// (299 R + 587 G + 114 B) / 1000. Transparent pixels lie on black.
DecodedPart decode_png(std::string_view bytes, int64_t channels, const ChoosePart& choose);

}  // namespace sigtrain
