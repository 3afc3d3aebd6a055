// How the blocks of a persistent grid share out the tiles of attention.
#pragma once

#include "attention.h"
#include "ptx_sm90.cuh"

namespace sigtrain::kernels {

struct WorkTile {
  int tile, head, batch;
};

/// Tiles of `group` (sequence, head) pairs are worked on together, few enough for what they share
/// to stay in L2. In a group the tiles come by falling index, or by rising index with `rising`:
/// under a causal mask the longest first, so that the short ones fill up the end.
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

/// Hands out tickets 0, 1, ... to whichever block asks next. One thread of a block draws them; all
/// roles of the block read each one. `tickets` are two zeros in global memory, which the last block
/// leaves as zeros.
class TicketDesk {
 public:
  static constexpr int shared_bytes = 24;

  __device__ explicit TicketDesk(SharedAddress at) : full_(at), empty_(at + 8), ticket_(at + 16) {}
  __device__ void init(int readers) const {
    barrier_init(full_, 1);
    barrier_init(empty_, readers);
  }

  __device__ void serve(int* tickets, int count) {
    for (int ticket = 0; ticket < count;) {
      ticket = atomicAdd(tickets, 1);
      barrier_wait(empty_, parity_ ^ 1);
      store_shared(ticket_, static_cast<uint32_t>(ticket));
      barrier_arrive(full_);
      parity_ ^= 1;
    }
    __threadfence();
    if (atomicAdd(tickets + 1, 1) == static_cast<int>(gridDim.x) - 1) {
      tickets[0] = 0;
      tickets[1] = 0;
    }
  }
  /// The next ticket, for a role of one thread.
  __device__ int draw() {
    barrier_wait(full_, parity_);
    parity_ ^= 1;
    const int ticket = static_cast<int>(load_shared(ticket_));
    barrier_arrive(empty_);
    return ticket;
  }
  /// The next ticket, for a whole warp as one reader. All lanes wait, so that none can miss a phase
  /// and the warp stays together, without which ptxas makes every product wait; the first one
  /// reads.
  __device__ int draw_in_warp() {
    barrier_wait(full_, parity_);
    parity_ ^= 1;
    const int ticket = static_cast<int>(load_shared_if(lane_index() == 0, ticket_));
    __syncwarp();
    if (lane_index() == 0) barrier_arrive(empty_);
    return uniform(ticket);
  }

 private:
  SharedAddress full_, empty_, ticket_;
  uint32_t parity_ = 0;
};

}  // namespace sigtrain::kernels
