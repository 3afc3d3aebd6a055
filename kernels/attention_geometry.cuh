// Which keys a query sees, and what that means for tiles.
//
// Key k is seen from query q if low <= q - k <= high and k < keys. So the keys of a tile of queries
// are one interval, as are the queries of a tile of keys, and a tile pair that lies inside the band
// needs no mask. Both passes, and the order of accumulation, derive from this one predicate.
#pragma once

#include "attention.h"

namespace sigtrain::kernels {

struct Interval {
  int begin, end;  // half-open; empty where end <= begin
};

struct VisibleBand {
  int seq_len, keys, low, high;

  __host__ __device__ VisibleBand(const AttentionShape& shape, const int32_t* key_lengths,
                                  int batch)
      : seq_len(shape.seq_len), keys(shape.seq_len) {
    const int reach = shape.window > 0 && shape.window < seq_len ? shape.window : seq_len;
    high = reach - 1;
    low = shape.causal ? 0 : -high;
    if (key_lengths) {
      const int length = key_lengths[batch];
      keys = length < 0 ? 0 : length < seq_len ? length : seq_len;
    }
  }

  __device__ bool sees(int query, int key) const {
    // One unsigned comparison for both ends of [low, high].
    return static_cast<unsigned>(query - key - low) <= static_cast<unsigned>(high - low) &&
           key < keys;
  }
  /// Tiles of `key_tile` keys with a key visible from the queries [first, first + count).
  __device__ Interval key_tiles(int first, int count, int key_tile) const {
    const int last = min(first + count, seq_len) - 1;
    const int begin = max(first - high, 0), end = min(last - low + 1, keys);
    return begin < end ? Interval{begin / key_tile, (end - 1) / key_tile + 1} : Interval{0, 0};
  }
  /// Tiles of `key_tile` keys of which the queries [first, first + count) all see every one.
  __device__ Interval whole_key_tiles(int first, int count, int key_tile) const {
    const int begin = max(first + count - 1 - high, 0), end = min(first - low + 1, keys);
    return {(begin + key_tile - 1) / key_tile, end / key_tile};
  }
  /// Tiles of `query_tile` queries that see one of the keys [first, first + count).
  __device__ Interval query_tiles(int first, int count, int query_tile) const {
    const int last = min(first + count, keys) - 1;
    const int begin = max(first + low, 0), end = min(last + high + 1, seq_len);
    return first <= last && begin < end ? Interval{begin / query_tile, (end - 1) / query_tile + 1}
                                        : Interval{0, 0};
  }
  /// True if some pair of [query, query + query_count) and [key, key + key_count) is not visible.
  __device__ bool needs_mask(int query, int query_count, int key, int key_count) const {
    return query - (key + key_count - 1) < low || query + query_count - 1 - key > high ||
           key + key_count > keys;
  }
};

}  // namespace sigtrain::kernels
