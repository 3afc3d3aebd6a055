// From CTC's logits to letters.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace sigtrain {

/// The likeliest label of each frame, repeats merged and blanks left out. logits are [frames,
/// vocab_size] with any offset a frame.
std::vector<int32_t> decode_greedy(std::span<const float> logits, int64_t vocab_size,
                                   int32_t blank);

/// The likeliest text found by prefix beam search (Graves & Jaitly 2014; Hannun et al. 2014): the
/// probabilities of all paths to the same text are summed, and the best `beam_width` texts kept at
/// each frame.
std::vector<int32_t> decode_beam(std::span<const float> logits, int64_t vocab_size, int32_t blank,
                                 int64_t beam_width);

}  // namespace sigtrain
