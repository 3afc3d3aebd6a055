// How the CPU backend cuts work into pieces: by shape alone, never by the number of threads, so
// that results are the same bits for any number of them.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/tensor.h"

namespace sigtrain {

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/// Calls body(begin, end) for consecutive pieces of `grain` indices of [0, count), one thread a
/// piece. body must not throw. One piece runs on the calling thread.
template <typename Body>
void for_pieces(int64_t count, int64_t grain, const Body& body) {
  const int64_t pieces = ceil_div(count, grain);
#pragma omp parallel for schedule(static) if (pieces > 1)
  for (int64_t piece = 0; piece < pieces; ++piece)
    body(piece * grain, std::min(count, (piece + 1) * grain));
}

/// Enough elements that starting a piece costs nothing beside it, few enough to stay in the
/// second-level cache.
constexpr int64_t kElementsPerPiece = 16384;

/// for_pieces over the elements of an elementwise operation.
template <typename Body>
void for_elements(int64_t count, const Body& body) {
  for_pieces(count, kElementsPerPiece, body);
}

/// for_pieces over whole rows of `width` elements.
template <typename Body>
void for_rows(int64_t rows, int64_t width, const Body& body) {
  for_pieces(rows, std::max<int64_t>(1, kElementsPerPiece / std::max<int64_t>(1, width)), body);
}

/// Rows cut into at most 64 chunks, each of which adds its rows into a partial sum of its own.
struct RowChunks {
  explicit RowChunks(int64_t row_count)
      : rows(row_count),
        rows_per_chunk(std::max<int64_t>(16, ceil_div(row_count, 64))),
        count(ceil_div(row_count, rows_per_chunk)) {}

  /// Calls body(chunk, begin, end) for the rows [begin, end) of each chunk, one thread a chunk.
  template <typename Body>
  void for_each(const Body& body) const {
    for_pieces(rows, rows_per_chunk,
               [&](int64_t begin, int64_t end) { body(begin / rows_per_chunk, begin, end); });
  }

  int64_t rows, rows_per_chunk, count;
};

/// result[c] += sum over chunks of partials[chunk * stride + c], in double and in order.
template <typename Partial, typename Real>
void add_partials(const Partial* partials, int64_t chunks, int64_t stride, int64_t columns,
                  Real* result) {
  constexpr int64_t block = 256;
  for_pieces(columns, block, [&](int64_t begin, int64_t end) {
    double sums[block] = {};
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      const Partial* row = partials + chunk * stride + begin;
#pragma omp simd
      for (int64_t c = 0; c < end - begin; ++c) sums[c] += row[c];
    }
#pragma omp simd
    for (int64_t c = 0; c < end - begin; ++c) result[begin + c] += static_cast<Real>(sums[c]);
  });
}

/// `count` elements of scratch at the start of the workspace; throws Error when the workspace is
/// smaller than the operation's *_workspace function says.
template <typename T>
T* scratch(const Tensor& workspace, int64_t count, const char* operation) {
  const size_t needed = static_cast<size_t>(count) * sizeof(T);
  if (workspace.bytes() < needed || (needed && !workspace.data)) {
    throw Error(
        "{} needs {} bytes of workspace and was given {}: set_workspace with the largest "
        "*_workspace of the run",
        operation, needed, workspace.data ? workspace.bytes() : 0);
  }
  return static_cast<T*>(workspace.data);
}

}  // namespace sigtrain
