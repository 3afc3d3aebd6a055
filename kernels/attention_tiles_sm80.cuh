// Tiles of bf16 rows in shared memory, and the fragments that tensor cores take from them.
//
// A fragment is how one 16x16 or 16x8 block lies in the registers of a warp (PTX ISA,
// mma.m16n8k16). With g = lane / 4 and t = lane % 4, accumulator c[0..3] holds (row g, columns 2t,
// 2t + 1) and (row g + 8, columns 2t, 2t + 1). Two neighbouring accumulators, rounded and packed,
// are the left operand of the next product as they lie: the weights never leave the registers
// between products.
#pragma once

#include "attention.h"
#include "mma_sm80.cuh"

namespace sigtrain::kernels {

/// Rows of `Columns` bf16, cut into 16-byte chunks. The chunks of a row are permuted by the row's
/// index so that the 8 rows of one matrix load, at equal columns, fall into 8 different groups of
/// four banks; without it they would fall into one or two, and each load would take 4 to 8 passes.
template <int Columns>
struct SharedTile {
  static_assert(Columns % 32 == 0);
  static constexpr int chunks = Columns / 8;
  static constexpr int pitch = Columns * 2;

  /// Rows of an odd multiple of 64 bytes already alternate between two halves of the banks.
  __device__ static constexpr int swizzle(int row, int chunk) {
    return chunk ^ (Columns % 64 == 0 ? row & 7 : (row >> 1) & 3);
  }
  __device__ static SharedAddress at(SharedAddress tile, int row, int chunk) {
    return tile + row * pitch + swizzle(row, chunk) * 16;
  }

  /// Left operand [16, 16] from rows `row`.. and columns `column`...
  __device__ static void load_left(uint32_t (&a)[4], SharedAddress tile, int row, int column) {
    const int lane = lane_index();
    load_matrices(a, at(tile, row + (lane & 15), column / 8 + (lane >> 4)));
  }
  /// Left operand [16, 16] of the transposed tile: element (m, k) is the tile's (k, m).
  __device__ static void load_left_transposed(uint32_t (&a)[4], SharedAddress tile, int m, int k) {
    const int lane = lane_index();
    load_matrices_transposed(a,
                             at(tile, k + (lane & 7) + (lane >> 4) * 8, m / 8 + ((lane >> 3) & 1)));
  }
  /// Right operands of two products, columns n.. n+7 and n+8.. n+15, each [16, 8], of the
  /// transposed tile: element (k, n) is the tile's (n, k).
  __device__ static void load_right_transposed(uint32_t (&b)[4], SharedAddress tile, int k, int n) {
    const int lane = lane_index();
    load_matrices(b, at(tile, n + (lane & 7) + (lane >> 4) * 8, k / 8 + ((lane >> 3) & 1)));
  }
  /// Likewise of the tile itself: element (k, n) is the tile's (k, n).
  __device__ static void load_right(uint32_t (&b)[4], SharedAddress tile, int k, int n) {
    const int lane = lane_index();
    load_matrices_transposed(b, at(tile, k + (lane & 15), n / 8 + (lane >> 4)));
  }
  /// Two neighbouring elements of a row; `column` is even.
  __device__ static void store_pair(SharedAddress tile, int row, int column, uint32_t pair) {
    store_shared(at(tile, row, column / 8) + (column & 7) * 2, pair);
  }
};

/// One head's rows of one sequence in global memory, row 0 first.
struct HeadRows {
  __nv_bfloat16* data;
  int64_t row_stride;
  __device__ HeadRows(const HeadsPointer& heads, const AttentionShape& shape, int batch, int head)
      : data(heads.data + static_cast<int64_t>(batch) * shape.seq_len * heads.row_stride +
             static_cast<int64_t>(head) * shape.head_dim),
        row_stride(heads.row_stride) {}
  __device__ __nv_bfloat16* row(int i) const { return data + i * row_stride; }
};

/// Starts copying rows [first, first + Rows) into a tile; rows from `end` on become zeros, whatever
/// memory holds there, so that no product ever sees them. To be called by threads 0 to Threads - 1:
/// 8 neighbours copy 128 bytes of a row at a time (4 copy 64 where rows are no multiple of that),
/// so that a thread has one address for each of its rows.
template <int Rows, int Columns, int Threads>
__device__ __forceinline__ void copy_rows_async(SharedAddress tile, const HeadRows& source,
                                                int first, int end) {
  using Tile = SharedTile<Columns>;
  constexpr int row_threads = Columns % 64 == 0 ? 8 : 4, rows_at_once = Threads / row_threads;
  static_assert(Rows % rows_at_once == 0);
  const int thread_row = threadIdx.x / row_threads, thread_chunk = threadIdx.x % row_threads;
#pragma unroll
  for (int i = 0; i < Rows; i += rows_at_once) {
    const int row = i + thread_row;
    const bool valid = first + row < end;
    const __nv_bfloat16* from = source.row(valid ? first + row : 0) + thread_chunk * 8;
#pragma unroll
    for (int chunk = 0; chunk < Tile::chunks; chunk += row_threads)
      copy_async_16(Tile::at(tile, row, chunk + thread_chunk), from + chunk * 8, valid);
  }
}

/// Writes rows of a tile [Rows, Columns] to rows first.. of global memory, those before `end`. The
/// `Threads` threads that call it are numbered by `thread`.
template <int Rows, int Columns, int Threads>
__device__ __forceinline__ void write_rows(SharedAddress tile, const HeadRows& destination,
                                           int first, int end, int tile_row, int thread) {
  using Tile = SharedTile<Columns>;
  static_assert(Rows * Tile::chunks % Threads == 0);
#pragma unroll
  for (int i = 0; i < Rows * Tile::chunks / Threads; ++i) {
    const unsigned index = static_cast<unsigned>(thread) + i * Threads;
    const int row = index / Tile::chunks, chunk = index % Tile::chunks;
    if (first + row < end) {
      *reinterpret_cast<float4*>(destination.row(first + row) + chunk * 8) =
          load_shared_float4(Tile::at(tile, tile_row + row, chunk));
    }
  }
}

/// Rounds accumulators [16, Columns] of a warp, times `factor`, into rows `row`.. of a tile. Rows g
/// and g + 8 have their own factor.
template <int Columns>
__device__ __forceinline__ void store_accumulators(SharedAddress tile, int row,
                                                   const float (&c)[Columns / 8][4],
                                                   float factor_low, float factor_high) {
  const int g = lane_index() >> 2, t = lane_index() & 3;
#pragma unroll
  for (int n = 0; n < Columns / 8; ++n) {
    SharedTile<Columns>::store_pair(tile, row + g, n * 8 + 2 * t,
                                    pack_bf16(c[n][0] * factor_low, c[n][1] * factor_low));
    SharedTile<Columns>::store_pair(tile, row + g + 8, n * 8 + 2 * t,
                                    pack_bf16(c[n][2] * factor_high, c[n][3] * factor_high));
  }
}

/// Two neighbouring accumulators as the left operand of the next product.
__device__ __forceinline__ void pack_left(uint32_t (&a)[4], const float (&c0)[4],
                                          const float (&c1)[4]) {
  a[0] = pack_bf16(c0[0], c0[1]);
  a[1] = pack_bf16(c0[2], c0[3]);
  a[2] = pack_bf16(c1[0], c1[1]);
  a[3] = pack_bf16(c1[2], c1[3]);
}

template <int Rows, int Tiles>
__device__ __forceinline__ void set_zero(float (&c)[Rows][Tiles][4]) {
#pragma unroll
  for (int m = 0; m < Rows; ++m)
#pragma unroll
    for (int n = 0; n < Tiles; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) c[m][n][e] = 0.0f;
}

/// c [16 Rows, 8 Tiles] += left [16 Rows, Depth] right [8 Tiles, Depth]^T, both in shared memory:
/// the rows of `left` from left_row on, the rows of `right` from right_row on.
template <int Depth, int Rows, int Tiles>
__device__ __forceinline__ void product_of_rows(float (&c)[Rows][Tiles][4], SharedAddress left,
                                                int left_row, SharedAddress right, int right_row) {
  using Tile = SharedTile<Depth>;
#pragma unroll
  for (int k = 0; k < Depth; k += 16) {
    uint32_t a[Rows][4];
#pragma unroll
    for (int m = 0; m < Rows; ++m) Tile::load_left(a[m], left, left_row + m * 16, k);
#pragma unroll
    for (int n = 0; n < Tiles; n += 2) {
      uint32_t b[4];
      Tile::load_right_transposed(b, right, k, right_row + n * 8);
#pragma unroll
      for (int m = 0; m < Rows; ++m) {
        multiply_add(c[m][n], a[m], b[0], b[1]);
        multiply_add(c[m][n + 1], a[m], b[2], b[3]);
      }
    }
  }
}

/// c [16 Rows, 8 Tiles] += left [16 Rows, 16 Depth] right [16 Depth, 8 Tiles]: left in registers,
/// right the rows of a tile from right_row on.
template <int Columns, int Rows, int Tiles, int Depth>
__device__ __forceinline__ void product_of_registers(float (&c)[Rows][Tiles][4],
                                                     const uint32_t (&left)[Rows][Depth][4],
                                                     SharedAddress right, int right_row) {
  static_assert(Columns == Tiles * 8);
#pragma unroll
  for (int k = 0; k < Depth; ++k) {
#pragma unroll
    for (int n = 0; n < Tiles; n += 2) {
      uint32_t b[4];
      SharedTile<Columns>::load_right(b, right, right_row + k * 16, n * 8);
#pragma unroll
      for (int m = 0; m < Rows; ++m) {
        multiply_add(c[m][n], left[m][k], b[0], b[1]);
        multiply_add(c[m][n + 1], left[m][k], b[2], b[3]);
      }
    }
  }
}

}  // namespace sigtrain::kernels
