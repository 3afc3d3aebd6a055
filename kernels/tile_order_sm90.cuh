// How the blocks of a persistent grid share out the tiles of attention.
#pragma once

#include "attention.h"
#include "launch.h"
#include "ptx_sm90.cuh"

namespace sigtrain::kernels {

struct WorkTile {
  int tile, head, batch;
};

/// Tiles of `group` (sequence, head) pairs are worked on together. In a group the tiles come by
/// falling index, or by rising index with `rising`: under a causal mask the longest first, so that
/// the short ones fill up the end.
struct TileOrder {
  int tiles, heads, pairs, group;
  bool rising;

  __host__ __device__ int count() const { return tiles * pairs; }

  __device__ WorkTile at(int index) const {
    const int first_pair = index / (group * tiles) * group;
    const int here = min(group, pairs - first_pair);
    const int in_group = index - first_pair * tiles;
    const int pair = first_pair + in_group % here;
    const int tile = in_group / here;
    return {rising ? tile : tiles - 1 - tile, pair % heads, pair / heads};
  }
};

/// The size of a TileOrder's groups of at most `at_once` pairs, such that the last one is not much
/// smaller and fills the device too.
inline int pairs_of_equal_groups(int64_t pairs, int64_t at_once) {
  return static_cast<int>(ceil_div(pairs, ceil_div(pairs, at_once)));
}

/// Hands out the tiles of an order, one after the other, to whichever block asks next. One thread
/// of a block draws them, and finds out which they are, so that this is computed once a block; all
/// roles of the block read each one. `tickets` are two zeros in global memory, which the last block
/// leaves as zeros. (batch and heads have 16 bits, see check_counts().)
class TicketDesk {
 public:
  static constexpr int shared_bytes = 24;

  __device__ explicit TicketDesk(SharedAddress at) : full_(at), empty_(at + 8), drawn_(at + 16) {}
  __device__ void init(int readers) const {
    barrier_init(full_, 1);
    barrier_init(empty_, readers);
  }

  __device__ void serve(int* tickets, const TileOrder& order) {
    for (bool is_tile = true; is_tile;) {
      const int ticket = atomicAdd(tickets, 1);
      is_tile = ticket < order.count();
      const WorkTile at = is_tile ? order.at(ticket) : WorkTile{-1, 0, 0};
      barrier_wait(empty_, parity_ ^ 1);
      store_shared(drawn_, static_cast<uint32_t>(at.tile));
      store_shared(drawn_ + 4, static_cast<uint32_t>(at.batch) << 16 | at.head);
      barrier_arrive(full_);
      parity_ ^= 1;
    }
    __threadfence();
    if (atomicAdd(tickets + 1, 1) == static_cast<int>(gridDim.x) - 1) {
      tickets[0] = 0;
      tickets[1] = 0;
    }
  }
  /// The next tile, for a role of one thread. False if there is none.
  __device__ bool draw(WorkTile& next) {
    barrier_wait(full_, parity_);
    parity_ ^= 1;
    const uint2 drawn = load_shared_pair_if(true, drawn_);
    barrier_arrive(empty_);
    return unpack(drawn.x, drawn.y, next);
  }
  /// The next tile, for a whole warp as one reader. False if there is none. All lanes wait, so that
  /// none can miss a phase and the warp stays together, without which ptxas makes every product
  /// wait; the first one reads.
  __device__ bool draw_in_warp(WorkTile& next) {
    barrier_wait(full_, parity_);
    parity_ ^= 1;
    const uint2 drawn = load_shared_pair_if(lane_index() == 0, drawn_);
    __syncwarp();
    if (lane_index() == 0) barrier_arrive(empty_);
    return unpack(uniform(drawn.x), uniform(drawn.y), next);
  }

 private:
  SharedAddress full_, empty_, drawn_;
  uint32_t parity_ = 0;

  __device__ static bool unpack(uint32_t tile, uint32_t batch_head, WorkTile& next) {
    next = {static_cast<int>(tile), static_cast<int>(batch_head & 0xffff),
            static_cast<int>(batch_head >> 16)};
    return next.tile >= 0;
  }
};

}  // namespace sigtrain::kernels
