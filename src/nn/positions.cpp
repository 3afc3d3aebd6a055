#include "nn/positions.h"

#include <bit>
#include <cmath>

namespace sigtrain {
namespace {

/// Row t holds first(angle_i) for i < n/2 and then second(angle_i), angle_i = t * theta^(-2i/n).
template <typename First, typename Second>
std::vector<double> angle_table(int64_t rows, int64_t n, double theta, First first, Second second) {
  std::vector<double> table(static_cast<size_t>(rows * n));
  for (int64_t t = 0; t < rows; ++t) {
    for (int64_t i = 0; i < n / 2; ++i) {
      const double angle = static_cast<double>(t) *
                           std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(n));
      table[static_cast<size_t>(t * n + i)] = first(angle);
      table[static_cast<size_t>(t * n + n / 2 + i)] = second(angle);
    }
  }
  return table;
}

double cosine(double x) { return std::cos(x); }
double sine(double x) { return std::sin(x); }

}  // namespace

std::vector<double> rope_table(int64_t seq_len, int64_t head_dim, double theta) {
  return angle_table(seq_len, head_dim, theta, cosine, sine);
}

std::vector<double> sincos_table(int64_t seq_len, int64_t width) {
  return angle_table(seq_len, width, 10000.0, sine, cosine);
}

std::vector<double> sincos_2d_table(int64_t side, int64_t width) {
  const int64_t half = width / 2;
  const std::vector<double> line = sincos_table(side, half);
  std::vector<double> table;
  table.reserve(static_cast<size_t>(side * side * width));
  for (int64_t row = 0; row < side; ++row) {
    for (int64_t column = 0; column < side; ++column) {
      for (const int64_t coordinate : {column, row}) {
        const auto start = line.begin() + coordinate * half;
        table.insert(table.end(), start, start + half);
      }
    }
  }
  return table;
}

std::vector<double> alibi_slopes(int64_t heads) {
  const auto power = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(heads)));
  std::vector<double> slopes;
  for (int64_t k = 1; k <= power; ++k)
    slopes.push_back(std::exp2(-8.0 * static_cast<double>(k) / static_cast<double>(power)));
  for (int64_t k = 1; static_cast<int64_t>(slopes.size()) < heads; k += 2) {
    slopes.push_back(std::exp2(-4.0 * static_cast<double>(k) / static_cast<double>(power)));
  }
  return slopes;
}

}  // namespace sigtrain
