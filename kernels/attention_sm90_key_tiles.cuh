// The backward pass by tiles of keys: what a block that owns one goes through.
#pragma once

#include "attention_geometry.cuh"
#include "tile_order_sm90.cuh"

namespace sigtrain::kernels {

/// The steps of one tile of keys: all heads that share it, of each the tiles of queries that see
/// it.
template <typename Tiling>
struct KeyTileWork {
  WorkTile at;
  VisibleBand band;
  Interval tiles;
  int first_key, group;

  __device__ KeyTileWork(const AttentionForward& call, const WorkTile& tile)
      : at(tile),
        band(call.shape, call.key_lengths, at.batch),
        first_key(at.tile * Tiling::keys),
        group(call.shape.heads / call.shape.kv_heads) {
    tiles = band.query_tiles(first_key, Tiling::keys, Tiling::queries);
  }
  __device__ int steps() const { return max(tiles.end - tiles.begin, 0) * group; }
  __device__ int head(int step) const {
    return at.head * group + (group == 1 ? 0 : step / (tiles.end - tiles.begin));
  }
  __device__ int query_tile(int step) const {
    return tiles.begin + (group == 1 ? step : step % (tiles.end - tiles.begin));
  }
  /// How many shares are added to the sums of a tile of queries before this tile of keys'.
  __device__ int turn(int query_tile) const {
    return at.tile -
           band.key_tiles(query_tile * Tiling::queries, Tiling::queries, Tiling::keys).begin;
  }
};

}  // namespace sigtrain::kernels
