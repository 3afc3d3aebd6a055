// FlashSigmoid, forward: attention on Hopper's warpgroup products and copy engine, for sigmoid and
// softmax alike.
//
// A block has one producer warpgroup, which does nothing but start copies (a warp for queries, a
// warp for keys and values, and one to draw the next tile), and two or three consumer warpgroups of
// 64 queries each. They talk through mbarriers: `full` when a tile has arrived, `empty` when every
// consumer is done with it. The grid is persistent: tiles of the next piece of work are on their
// way while this one ends.
//
// A consumer's step, with S_j = Q K_j^T and P_j = weights of S_j (after FlashAttention-3, Shah et
// al. 2024, whose softmax has to rescale O in between):
//
//     issue S_{j+1}, issue O += P_j V_j     both run on the tensor cores, one after the other
//     wait for S_{j+1}, exponentiate it     while P_j V_j and the other consumers' products run
//     wait for P_j V_j, finish P_{j+1}      in the registers that this product was reading
//
// Where two consumers share the tensor cores (head_dim > 64) they take turns at issuing, so that
// one weighs while the other multiplies; three at head_dim 64 keep out of each other's way by
// themselves.
//
// Floors, for one head of T queries and keys: 4 T^2 D operations of tensor cores, of which a
// multiprocessor does 4096 a clock; T^2 special-function operations (sigmoid: 1.25 T^2 where logits
// are large), 16 a clock. So at D = 64 the tensor cores take 16 clocks for 256 elements, and the
// special-function unit takes 16 to 20.
#pragma once

#include "attention_geometry.cuh"
#include "attention_weights_sm90.cuh"
#include "ring_sm90.cuh"
#include "tile_order_sm90.cuh"
#include "wgmma_sm90.cuh"

namespace sigtrain::kernels {

/// How work is cut, by head dimension: what fits the registers (a consumer thread has head_dim / 2
/// sums, keys / 2 logits and keys / 4 packed weights) and 227 KiB of shared memory.
template <int HeadDim>
struct ForwardTilingSm90 {
  static constexpr int consumers = HeadDim == 64 ? 3 : 2;
  static constexpr int keys = HeadDim == 192 ? 96 : 128;
  static constexpr int stages = HeadDim == 64 ? 4 : 2;
  static constexpr int q_buffers = HeadDim == 192 ? 1 : 2;
  static constexpr bool takes_turns = consumers == 2;
  static constexpr int consumer_registers = consumers == 3 ? 160 : 240;
  static constexpr int producer_registers = consumers == 3 ? 32 : 24;

  static constexpr int queries = consumers * 64;
  static constexpr int threads = (consumers + 1) * warpgroup_size;
  static constexpr int panels = HeadDim / 64;
  static constexpr int q_panel = 64 * 128, kv_panel = keys * 128;
  static constexpr int q_bytes = panels * q_panel, kv_bytes = panels * kv_panel;
  static constexpr int barriers = 2 * consumers * q_buffers + 4 * stages;
  static constexpr int shared_bytes = consumers * q_buffers * q_bytes + stages * 2 * kv_bytes +
                                      barriers * 8 + TicketDesk::shared_bytes;
  static_assert(shared_bytes <= 227 << 10);
};

/// What lies where in shared memory.
template <typename Tiling>
struct ForwardShared {
  SharedAddress q, k, v, barriers;
  __device__ ForwardShared() {
    q = shared_memory();
    k = q + Tiling::consumers * Tiling::q_buffers * Tiling::q_bytes;
    v = k + Tiling::stages * Tiling::kv_bytes;
    barriers = v + Tiling::stages * Tiling::kv_bytes;
  }
  __device__ TicketDesk ticket_desk() const { return TicketDesk(barriers + Tiling::barriers * 8); }
  __device__ SharedAddress q_tile(int consumer, int buffer) const {
    return q + (buffer * Tiling::consumers + consumer) * Tiling::q_bytes;
  }
  __device__ SharedAddress q_full(int consumer, int buffer) const {
    return barriers + (buffer * Tiling::consumers + consumer) * 8;
  }
  __device__ SharedAddress q_empty(int consumer, int buffer) const {
    return q_full(consumer, buffer) + Tiling::consumers * Tiling::q_buffers * 8;
  }
  __device__ SharedAddress kv_barrier(int kind, int stage) const {
    return barriers +
           (2 * Tiling::consumers * Tiling::q_buffers + kind * Tiling::stages + stage) * 8;
  }
  __device__ SharedAddress k_full(int stage) const { return kv_barrier(0, stage); }
  __device__ SharedAddress k_empty(int stage) const { return kv_barrier(1, stage); }
  __device__ SharedAddress v_full(int stage) const { return kv_barrier(2, stage); }
  __device__ SharedAddress v_empty(int stage) const { return kv_barrier(3, stage); }
};

struct ForwardMaps {
  CUtensorMap q, k, v, out;
};

/// The whole call as the kernel sees it.
struct ForwardWork {
  ForwardMaps maps;
  AttentionForward call;
  TileOrder order;
};

namespace forward_sm90 {

template <int HeadDim>
__device__ void produce_queries(const ForwardWork& work) {
  using Tiling = ForwardTilingSm90<HeadDim>;
  const ForwardShared<Tiling> shared;
  RingPlace<Tiling::q_buffers> place;
  TicketDesk desk = shared.ticket_desk();
  for (int ticket; (ticket = desk.draw()) < work.order.count();) {
    const WorkTile at = work.order.at(ticket);
    for (int consumer = 0; consumer < Tiling::consumers; ++consumer) {
      const SharedAddress full = shared.q_full(consumer, place.index);
      barrier_wait(shared.q_empty(consumer, place.index), place.parity ^ 1);
      barrier_expect(full, Tiling::q_bytes);
      for (int panel = 0; panel < Tiling::panels; ++panel)
        load_box(shared.q_tile(consumer, place.index) + panel * Tiling::q_panel, &work.maps.q,
                 panel * 64, at.head, at.tile * Tiling::queries + consumer * 64, at.batch, full);
    }
    place.advance();
  }
}

template <int HeadDim>
__device__ void produce_keys_and_values(const ForwardWork& work) {
  using Tiling = ForwardTilingSm90<HeadDim>;
  const ForwardShared<Tiling> shared;
  const AttentionShape& shape = work.call.shape;
  const int group = shape.heads / shape.kv_heads;
  RingPlace<Tiling::stages> place;
  TicketDesk desk = shared.ticket_desk();
  for (int ticket; (ticket = desk.draw()) < work.order.count();) {
    const WorkTile at = work.order.at(ticket);
    const VisibleBand band(shape, work.call.key_lengths, at.batch);
    const Interval tiles = band.key_tiles(at.tile * Tiling::queries, Tiling::queries, Tiling::keys);
    for (int tile = tiles.end - 1; tile >= tiles.begin; --tile, place.advance()) {
      const auto load = [&](const CUtensorMap& map, SharedAddress to, SharedAddress full,
                            SharedAddress empty) {
        barrier_wait(empty, place.parity ^ 1);
        barrier_expect(full, Tiling::kv_bytes);
        for (int panel = 0; panel < Tiling::panels; ++panel)
          load_box(to + place.index * Tiling::kv_bytes + panel * Tiling::kv_panel, &map, panel * 64,
                   at.head / group, tile * Tiling::keys, at.batch, full);
      };
      load(work.maps.k, shared.k, shared.k_full(place.index), shared.k_empty(place.index));
      load(work.maps.v, shared.v, shared.v_full(place.index), shared.v_empty(place.index));
    }
  }
}

/// Starts s = Q K^T.
template <int HeadDim, int Keys>
__device__ __forceinline__ void start_logits(float (&s)[Keys / 2], SharedAddress q,
                                             SharedAddress k) {
  using Tiling = ForwardTilingSm90<HeadDim>;
  const uint64_t left = shared_operand(q), right = shared_operand(k);
  forget(s);
#pragma unroll
  for (int step = 0; step < HeadDim / 16; ++step)
    product<false, false>(s, advance(left, step / 4 * Tiling::q_panel + step % 4 * 32),
                          advance(right, step / 4 * Tiling::kv_panel + step % 4 * 32), step > 0);
  products_commit();
}

/// Starts o (+)= P V.
template <int HeadDim, int Keys>
__device__ __forceinline__ void start_output(float (&o)[HeadDim / 2], uint32_t (&p)[Keys / 4],
                                             SharedAddress v, bool add) {
  using Tiling = ForwardTilingSm90<HeadDim>;
  const uint64_t right = shared_operand(v, Tiling::kv_panel);
#pragma unroll
  for (int step = 0; step < Keys / 16; ++step)
    product<true>(o, p + step * 4, advance(right, step * 16 * 128), add || step > 0);
  products_commit();
}

/// Zeros for the rows of a tile of values from `from` on: their weights are 0, but 0 times what
/// memory holds behind a sequence's keys need not be.
template <typename Tiling>
__device__ void clear_values(SharedAddress v, int from, int thread) {
  const int words = (Tiling::keys - from) * 32;
  for (int panel = 0; panel < Tiling::panels; ++panel)
    for (int i = thread; i < words; i += warpgroup_size)
      store_shared(v + panel * Tiling::kv_panel + from * 128 + i * 4, 0u);
  fence_async_shared();
}

template <template <int, bool> typename WeightsOf, int HeadDim, bool Alibi>
__device__ void consume(const ForwardWork& work, int consumer) {
  using Tiling = ForwardTilingSm90<HeadDim>;
  constexpr int keys = Tiling::keys;
  using Weights = WeightsOf<keys, Alibi>;
  // Named barriers: 1 and 2 are the consumers' turns, 3 and on unite one consumer's warps.
  const int own_turn = 1 + consumer, other_turn = 2 - consumer, own_warps = 3 + consumer;
  const AttentionForward& call = work.call;
  const AttentionShape& shape = call.shape;
  const ForwardShared<Tiling> shared;
  const int thread = static_cast<int>(threadIdx.x) % warpgroup_size;
  const int lane = lane_index(), warp = thread / 32;
  const int row = warp * 16 + (lane >> 2), column = 2 * (lane & 3);
  const bool speaks = lane == 0;  // for its warp, at the barriers

  RingPlace<Tiling::q_buffers> q_place;
  RingPlace<Tiling::stages> place;
  if (Tiling::takes_turns && consumer == 1) named_arrive(other_turn, 2 * warpgroup_size);

  TicketDesk desk = shared.ticket_desk();
  for (int ticket; (ticket = desk.draw_in_warp()) < work.order.count();) {
    const WorkTile at = work.order.at(ticket);
    const VisibleBand band(shape, call.key_lengths, at.batch);
    LogitFactors factors(call, at.head, 1.0f);
    factors.constant += Weights::exponent_offset;
    const int first_query = at.tile * Tiling::queries + consumer * 64;
    const Interval tiles = band.key_tiles(at.tile * Tiling::queries, Tiling::queries, keys);
    // Consumers that take turns stay in step; others pass over tiles that only the others see.
    const Interval own = Tiling::takes_turns           ? tiles
                         : first_query < shape.seq_len ? band.key_tiles(first_query, 64, keys)
                                                       : Interval{0, 0};
    const SharedAddress q = shared.q_tile(consumer, q_place.index);

    float o[HeadDim / 2], s[keys / 2];
    uint32_t p[keys / 4];
    Weights weights(call);
    const auto exponentiate = [&](int tile) {
      const LogitPosition position{first_query + row, tile * keys + column};
      if (is_edge<Alibi>(band, first_query, 64, tile * keys, keys)) {
        // Keeps the compiler from computing what both branches begin with in front of them, where
        // it would have nothing to overlap with.
        asm volatile("");
        weights.template exponentiate<true>(s, factors, band, position);
      } else {
        weights.template exponentiate<false>(s, factors, band, position);
      }
    };
    const auto prepare_values = [&](int tile) {
      barrier_wait(shared.v_full(place.index), place.parity);
      const int from = band.keys - tile * keys;
      if (from < keys && band.keys < shape.seq_len) {
        clear_values<Tiling>(shared.v + place.index * Tiling::kv_bytes, from, thread);
        named_sync(own_warps, warpgroup_size);
      }
    };
    const auto pass_over = [&] {
      barrier_wait(shared.k_full(place.index), place.parity);
      barrier_wait(shared.v_full(place.index), place.parity);
      if (speaks) {
        barrier_arrive(shared.k_empty(place.index));
        barrier_arrive(shared.v_empty(place.index));
      }
      place.advance();
    };

    barrier_wait(shared.q_full(consumer, q_place.index), q_place.parity);
    int tile = tiles.end - 1;
    for (; tile >= max(own.end, tiles.begin); --tile) pass_over();
    if (own.begin < own.end) {
      barrier_wait(shared.k_full(place.index), place.parity);
      products_begin();
      start_logits<HeadDim, keys>(s, q, shared.k + place.index * Tiling::kv_bytes);
      products_wait<0>();
      pin(s);
      if (speaks) barrier_arrive(shared.k_empty(place.index));
      exponentiate(tile);
      weights.pack(p, s);

      bool add = false;
      for (; tile > own.begin; --tile) {
        RingPlace<Tiling::stages> next = place;
        next.advance();
        barrier_wait(shared.k_full(next.index), next.parity);
        prepare_values(tile);
        if (Tiling::takes_turns) named_sync(own_turn, 2 * warpgroup_size);
        pin(p);
        products_begin();
        start_logits<HeadDim, keys>(s, q, shared.k + next.index * Tiling::kv_bytes);
        start_output<HeadDim, keys>(o, p, shared.v + place.index * Tiling::kv_bytes, add);
        if (Tiling::takes_turns) named_arrive(other_turn, 2 * warpgroup_size);
        products_wait<1>();
        pin(s);
        if (speaks) barrier_arrive(shared.k_empty(next.index));
        exponentiate(tile - 1);
        products_wait<0>();
        pin(o);
        pin(p);
        if (speaks) barrier_arrive(shared.v_empty(place.index));
        weights.rescale(o);
        weights.pack(p, s);
        place = next;
        add = true;
      }
      prepare_values(tile);
      pin(p);
      products_begin();
      start_output<HeadDim, keys>(o, p, shared.v + place.index * Tiling::kv_bytes, add);
      products_wait<0>();
      pin(o);
      if (speaks) barrier_arrive(shared.v_empty(place.index));
      place.advance();
      --tile;
    } else {
#pragma unroll
      for (float& x : o) x = 0.0f;
    }
    for (; tile >= tiles.begin; --tile) pass_over();

    // The consumer's own queries, which only it has read, are the way to bulk writes.
    float factor[2];
    const int64_t statistics =
        (static_cast<int64_t>(at.batch) * shape.heads + at.head) * shape.seq_len;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float row_sum = 0.0f, log_sum_exp = 0.0f;
      factor[half] = weights.finish(half, factors, row_sum, log_sum_exp);
      const int query = first_query + row + 8 * half;
      if ((lane & 3) == 0 && query < shape.seq_len) {
        if (call.row_sum) call.row_sum[statistics + query] = row_sum;
        if (Weights::is_softmax && call.log_sum_exp)
          call.log_sum_exp[statistics + query] = log_sum_exp;
      }
    }
    const SharedAddress out_rows = matrix_rows(q, warp * 16);
#pragma unroll
    for (int block = 0; block < HeadDim / 16; ++block) {
      const float* x = o + 8 * block;
      store_matrices(at_block(out_rows, block, Tiling::q_panel),
                     pack_bf16(x[0] * factor[0], x[1] * factor[0]),
                     pack_bf16(x[2] * factor[1], x[3] * factor[1]),
                     pack_bf16(x[4] * factor[0], x[5] * factor[0]),
                     pack_bf16(x[6] * factor[1], x[7] * factor[1]));
    }
    fence_async_shared();
    named_sync(own_warps, warpgroup_size);
    if (thread == 0) {
      for (int panel = 0; panel < Tiling::panels; ++panel)
        store_box(&work.maps.out, q + panel * Tiling::q_panel, panel * 64, at.head, first_query,
                  at.batch);
      bulk_commit();
      bulk_wait_read();
      barrier_arrive(shared.q_empty(consumer, q_place.index));
    }
    q_place.advance();
  }
  if (thread == 0) bulk_wait();
}

}  // namespace forward_sm90

template <template <int, bool> typename Weights, int HeadDim, bool Alibi>
__global__ void __launch_bounds__(ForwardTilingSm90<HeadDim>::threads, 1)
    attention_sm90_forward_kernel(const __grid_constant__ ForwardWork work) {
  using Tiling = ForwardTilingSm90<HeadDim>;
  if (threadIdx.x == 0) {
    const ForwardShared<Tiling> shared;
    for (int buffer = 0; buffer < Tiling::q_buffers; ++buffer) {
      for (int consumer = 0; consumer < Tiling::consumers; ++consumer) {
        barrier_init(shared.q_full(consumer, buffer), 1);
        barrier_init(shared.q_empty(consumer, buffer), 1);
      }
    }
    for (int stage = 0; stage < Tiling::stages; ++stage) {
      barrier_init(shared.k_full(stage), 1);
      barrier_init(shared.v_full(stage), 1);
      barrier_init(shared.k_empty(stage), Tiling::consumers * 4);
      barrier_init(shared.v_empty(stage), Tiling::consumers * 4);
    }
    shared.ticket_desk().init(2 + Tiling::consumers * 4);
    barrier_init_fence();
  }
  __syncthreads();
  const int warpgroup = warpgroup_index();
  if (warpgroup == 0) {
    give_registers<Tiling::producer_registers>();
    if (threadIdx.x == 0) forward_sm90::produce_keys_and_values<HeadDim>(work);
    if (threadIdx.x == 32) forward_sm90::produce_queries<HeadDim>(work);
    if (threadIdx.x == 64)
      ForwardShared<Tiling>().ticket_desk().serve(work.call.tickets, work.order.count());
  } else {
    take_registers<Tiling::consumer_registers>();
    forward_sm90::consume<Weights, HeadDim, Alibi>(work, warpgroup - 1);
  }
}

}  // namespace sigtrain::kernels
