// Tables of positions: rotary angles, ALiBi slopes and sinusoids, computed on the host.
#pragma once

#include <cstdint>
#include <vector>

namespace sigtrain {

/// [seq_len, head_dim]: row t is (cos, sin) of t * theta^(-2i / head_dim), i < head_dim / 2 (Su et
/// al. 2021, eq. 15).
std::vector<double> rope_table(int64_t seq_len, int64_t head_dim, double theta);

/// One slope for each head: 2^(-8k/H), k = 1..H; for H not a power of two, the slopes of the next
/// lower power and then every second one of the next higher (Press et al. 2022, and their published
/// code).
std::vector<double> alibi_slopes(int64_t heads);

/// [seq_len, width]: row t is (sin, cos) of t * 10000^(-2i / width), i < width / 2 (Vaswani et al.
/// 2017).
std::vector<double> sincos_table(int64_t seq_len, int64_t width);

/// [side^2, width] for the patches of a square, row by row: (sincos of its column, sincos of its
/// row), each of width / 2 (He et al. 2022, MAE). width is a multiple of 4.
std::vector<double> sincos_2d_table(int64_t side, int64_t width);

}  // namespace sigtrain
