// FlashSigmoid, backward, on Hopper: one pass over pairs of tiles.
//
// A block owns 128 keys, 64 a consumer warpgroup, and goes through the tiles of queries that see
// them. Logits are transposed (a row is a key), so that P^T and dS^T go from one product to the
// next in registers; only dS also passes through shared memory, to be multiplied with all the
// block's keys:
//
//     S^T = K Q^T    dP^T = V dO^T    dV += P^T dO    dK += dS^T Q    dQ share = dS K
//
// For a step i of a consumer the products stand in this order, so that the tensor cores have work
// while weights and their gradients are computed:
//
//     issue S_i; wait for dK_{i-1}; issue dP_i
//     wait for S_i, exponentiate it                 dP_i runs
//     wait for dP_i; P_i, dS_i; dS_i to shared memory
//     issue dV_i; meet the other consumer; issue dQ_i, dK_i
//     wait for dV_i and dQ_i; hand dQ_i on          dK_i runs
//
// At head_dim 64 it is dQ_{i-1} whose turn comes there, and nobody waits for the other consumer.
//
// (The loop holds each product once, and only dK is under way from one turn to the next: else ptxas
// copies accumulators, or sees no order in the products and runs them one at a time.)
//
// dQ's shares are added to fp32 sums in global memory by the copy engine, which two warps of the
// producer warpgroup start; a last kernel rounds the sums. With call.deterministic each share waits
// for those of earlier keys, so that sums have the same bits every time. These have earlier
// tickets, and each block works through its tickets in the order in which it drew them: so the
// earliest unfinished one waits for nobody, and all get done.
//
// Floors, for one head of T queries and keys: 10 T^2 D operations of tensor cores, 4096 a clock and
// multiprocessor; shared memory, at 128 bytes a clock: for a pair of tiles (128 keys, 128 queries,
// D = 64) the products read 224 KiB, dS and dQ are 112 KiB more, against 2560 clocks of products.
#pragma once

#include "attention_sm90_key_tiles.cuh"
#include "attention_weights_sm90.cuh"
#include "ring_sm90.cuh"
#include "tile_order_sm90.cuh"
#include "wgmma_sm90.cuh"

namespace sigtrain::kernels {

/// How work is cut, by head dimension: what fits the registers (a consumer thread has head_dim sums
/// of dK and dV, and `queries` of logits and gradients) and 227 KiB of shared memory.
template <int HeadDim>
struct BackwardTilingSm90 {
  static_assert(HeadDim == 64 || HeadDim == 128);
  static constexpr int consumers = 2;
  static constexpr int keys = consumers * 64;
  static constexpr int queries = HeadDim == 64 ? 128 : 64;
  static constexpr int q_stages = 3, d_out_stages = 2, ds_buffers = 2;
  static constexpr int consumer_registers = 240, producer_registers = 24;
  static_assert(registers_suffice(consumers, consumer_registers, producer_registers));

  static constexpr int threads = (consumers + 1) * warpgroup_size;
  static constexpr int panels = HeadDim / 64;
  static constexpr int kv_panel = keys * 128, kv_bytes = panels * kv_panel;
  static constexpr int q_panel = queries * 128, q_bytes = panels * q_panel;
  static constexpr int ds_panel = keys * 128, ds_bytes = queries / 64 * ds_panel;
  /// A consumer's part of dQ is 64 queries by 64 columns: half of the queries at head_dim 64, half
  /// of the columns at 128.
  static constexpr int dq_part = 64 * 64, dq_bytes = dq_part * 4;
  static_assert(queries * HeadDim == consumers * dq_part);
  static_assert(d_out_stages == 2 && ds_buffers == 2);  // consume() counts so
  /// Whether dQ is computed a step late. Then the consumers need not meet in every step, and while
  /// one exponentiates, which takes longest at head_dim 64, the other has products running. At 128
  /// it was slower.
  static constexpr bool dq_lags = HeadDim == 64;
  /// Each warp of a consumer gives one part of the sum of dS.
  static constexpr int bias_parts = consumers * 4;
  /// Deterministic: whether a share's arrival is waited for and told of only when the next one is
  /// on its way. It takes about as long as a step at head_dim 128; at 64 steps are longer, and
  /// those who wait for it gain by hearing of it at once.
  static constexpr bool tells_late = HeadDim == 128;
  static constexpr int statistics_bytes = queries * 8;
  static constexpr int barriers =
      2 + 2 * q_stages + 2 * d_out_stages + 2 * consumers + 2 * ds_buffers;
  static constexpr int shared_bytes =
      2 * kv_bytes + q_stages * q_bytes + d_out_stages * q_bytes + ds_buffers * ds_bytes +
      consumers * dq_bytes + q_stages * statistics_bytes + barriers * 8 + TicketDesk::shared_bytes;
  static_assert(shared_bytes <= 227 << 10);
};

/// What lies where in shared memory.
template <typename Tiling>
struct BackwardShared {
  SharedAddress k, v, q, d_out, ds, dq, statistics, barriers;
  __device__ BackwardShared() {
    k = shared_memory();
    v = k + Tiling::kv_bytes;
    q = v + Tiling::kv_bytes;
    d_out = q + Tiling::q_stages * Tiling::q_bytes;
    ds = d_out + Tiling::d_out_stages * Tiling::q_bytes;
    dq = ds + Tiling::ds_buffers * Tiling::ds_bytes;
    statistics = dq + Tiling::consumers * Tiling::dq_bytes;
    barriers = statistics + Tiling::q_stages * Tiling::statistics_bytes;
  }
  __device__ SharedAddress kv_full() const { return barriers; }
  __device__ SharedAddress kv_empty() const { return barriers + 8; }
  __device__ SharedAddress q_full(int stage) const { return barriers + (2 + stage) * 8; }
  __device__ SharedAddress q_empty(int stage) const { return q_full(Tiling::q_stages + stage); }
  __device__ SharedAddress d_out_full(int stage) const {
    return q_full(2 * Tiling::q_stages + stage);
  }
  __device__ SharedAddress d_out_empty(int stage) const {
    return d_out_full(Tiling::d_out_stages + stage);
  }
  __device__ SharedAddress dq_full(int consumer) const {
    return d_out_full(2 * Tiling::d_out_stages + consumer);
  }
  __device__ SharedAddress dq_empty(int consumer) const {
    return dq_full(Tiling::consumers + consumer);
  }
  __device__ SharedAddress ds_full(int buffer) const {
    return dq_full(2 * Tiling::consumers + buffer);
  }
  __device__ SharedAddress ds_empty(int buffer) const {
    return ds_full(Tiling::ds_buffers + buffer);
  }
  __device__ TicketDesk ticket_desk() const { return TicketDesk(barriers + Tiling::barriers * 8); }
};

struct BackwardMaps {
  CUtensorMap q, k, v, d_out, dk, dv;
};

/// The whole call as the kernels see it.
struct BackwardWorkSm90 {
  BackwardMaps maps;
  AttentionBackward call;
  TileOrder order;       // of tiles of keys, by (sequence, key head)
  float* dq_sums;        // [batch, heads, query_tiles, consumers, 64, 64], columns swizzled
  float* statistics;     // softmax: [batch, heads, query_tiles * queries, 2]
  float* bias_partials;  // [heads, batch, key_tiles, bias_parts]: a warp's sum of dS
  int* turns;  // deterministic: [batch, heads, query_tiles, consumers]: shares added so far
  int query_tiles, key_tiles;

  __device__ int64_t query_tile(int batch, int head, int tile) const {
    return (static_cast<int64_t>(batch) * call.forward.shape.heads + head) * query_tiles + tile;
  }
  /// Where the first of a tile's parts of d_head_bias[head] goes.
  template <typename Tiling>
  __device__ float* bias_parts(const WorkTile& at, int head) const {
    return bias_partials +
           ((static_cast<int64_t>(head) * call.forward.shape.batch + at.batch) * key_tiles +
            at.tile) *
               Tiling::bias_parts;
  }
};

namespace backward_sm90 {

template <bool Softmax, int HeadDim>
__device__ void produce(const BackwardWorkSm90& work) {
  using Tiling = BackwardTilingSm90<HeadDim>;
  const BackwardShared<Tiling> shared;
  TicketDesk desk = shared.ticket_desk();
  RingPlace<1> kv;
  RingPlace<Tiling::q_stages> q;
  RingPlace<Tiling::d_out_stages> d_out;
  for (WorkTile next; desk.draw(next); kv.advance()) {
    const KeyTileWork<Tiling> tile(work.call.forward, next);
    barrier_wait(shared.kv_empty(), kv.parity ^ 1);
    barrier_expect(shared.kv_full(), 2 * Tiling::kv_bytes);
    for (int panel = 0; panel < Tiling::panels; ++panel) {
      load_box(shared.k + panel * Tiling::kv_panel, &work.maps.k, panel * 64, tile.at.head,
               tile.first_key, tile.at.batch, shared.kv_full());
      load_box(shared.v + panel * Tiling::kv_panel, &work.maps.v, panel * 64, tile.at.head,
               tile.first_key, tile.at.batch, shared.kv_full());
    }
    for (int step = 0; step < tile.steps(); ++step, q.advance(), d_out.advance()) {
      const int head = tile.head(step), query_tile = tile.query_tile(step);
      const SharedAddress q_full = shared.q_full(q.index);
      barrier_wait(shared.q_empty(q.index), q.parity ^ 1);
      barrier_expect(q_full, Tiling::q_bytes + (Softmax ? Tiling::statistics_bytes : 0));
      for (int panel = 0; panel < Tiling::panels; ++panel)
        load_box(shared.q + q.index * Tiling::q_bytes + panel * Tiling::q_panel, &work.maps.q,
                 panel * 64, head, query_tile * Tiling::queries, tile.at.batch, q_full);
      if (Softmax)
        load_bulk(shared.statistics + q.index * Tiling::statistics_bytes,
                  work.statistics +
                      work.query_tile(tile.at.batch, head, query_tile) * Tiling::queries * 2,
                  Tiling::statistics_bytes, q_full);
      const SharedAddress d_out_full = shared.d_out_full(d_out.index);
      barrier_wait(shared.d_out_empty(d_out.index), d_out.parity ^ 1);
      barrier_expect(d_out_full, Tiling::q_bytes);
      for (int panel = 0; panel < Tiling::panels; ++panel)
        load_box(shared.d_out + d_out.index * Tiling::q_bytes + panel * Tiling::q_panel,
                 &work.maps.d_out, panel * 64, head, query_tile * Tiling::queries, tile.at.batch,
                 d_out_full);
    }
  }
}

/// Adds one consumer's shares of dQ to the sums.
template <int HeadDim>
__device__ void add_shares(const BackwardWorkSm90& work, int consumer) {
  using Tiling = BackwardTilingSm90<HeadDim>;
  const BackwardShared<Tiling> shared;
  TicketDesk desk = shared.ticket_desk();
  const SharedAddress from = shared.dq + consumer * Tiling::dq_bytes;
  const bool deterministic = work.call.deterministic;
  RingPlace<1> place;
  int* arriving = nullptr;  // where to tell of the share that is on its way
  const auto tell = [&] {
    fence_async_global();
    add_release(arriving, 1);
    arriving = nullptr;
  };
  for (WorkTile next; desk.draw(next);) {
    const KeyTileWork<Tiling> tile(work.call.forward, next);
    for (int step = 0; step < tile.steps(); ++step, place.advance()) {
      const int query_tile = tile.query_tile(step);
      const int64_t part =
          work.query_tile(tile.at.batch, tile.head(step), query_tile) * Tiling::consumers +
          consumer;
      if (deterministic) {
        const int turn = tile.turn(query_tile);
        if (load_acquire(work.turns + part) != turn) {
          // Nobody may wait for a share of this block while this one waits for another block's.
          if (arriving) {
            bulk_wait();
            tell();
          }
          while (load_acquire(work.turns + part) != turn) {
          }
        }
        // The copy engine is a proxy of its own, and what it added for another block belongs before
        // what it will add for this one. One proxy keeps its order within a block only (PTX ISA,
        // proxy-preserved base causality order): so both sides of a turn have a proxy fence.
        fence_async_global();
      }
      barrier_wait(shared.dq_full(consumer), place.parity);
      add_bulk(work.dq_sums + part * Tiling::dq_part, from, Tiling::dq_bytes);
      bulk_commit();
      if (arriving) {
        bulk_wait<1>();
        tell();
      }
      bulk_wait_read();
      barrier_arrive(shared.dq_empty(consumer));
      if (deterministic) {
        arriving = work.turns + part;
        if (!Tiling::tells_late) {
          bulk_wait();
          tell();
        }
      }
    }
    if (arriving) {
      bulk_wait();
      tell();
    }
  }
  bulk_wait();
}

/// One consumer's sums and operands, and the products between them.
template <int HeadDim>
struct Products {
  using Tiling = BackwardTilingSm90<HeadDim>;
  static constexpr int queries = Tiling::queries;

  float dk[HeadDim / 2], dv[HeadDim / 2];

  /// Starts x = A B^T, A the consumer's 64 rows of keys or values, B a tile of queries or of d_out.
  __device__ static void start_logits(float (&x)[queries / 2], SharedAddress rows,
                                      SharedAddress tile) {
    const uint64_t left = shared_operand(rows), right = shared_operand(tile);
    forget(x);
#pragma unroll
    for (int step = 0; step < HeadDim / 16; ++step)
      product<false, false>(x, advance(left, step / 4 * Tiling::kv_panel + step % 4 * 32),
                            advance(right, step / 4 * Tiling::q_panel + step % 4 * 32), step > 0);
    products_commit();
  }
  /// Starts sum (+)= X B, X packed in registers, B a tile of queries or of d_out.
  __device__ static void start_sum(float (&sum)[HeadDim / 2], uint32_t (&x)[queries / 4],
                                   SharedAddress tile, bool add) {
    const uint64_t right = shared_operand(tile, Tiling::q_panel);
#pragma unroll
    for (int step = 0; step < queries / 16; ++step)
      product<true>(sum, x + step * 4, advance(right, step * 16 * 128), add || step > 0);
    products_commit();
  }
  /// Starts the consumer's part of dQ = dS K.
  __device__ static void start_dq(float (&dq)[32], SharedAddress ds, SharedAddress k,
                                  int consumer) {
    forget(dq);
    const uint64_t left = shared_operand(ds + (queries == 128 ? consumer * Tiling::ds_panel : 0));
    const uint64_t right = shared_operand(k + (queries == 128 ? 0 : consumer * Tiling::kv_panel));
#pragma unroll
    for (int step = 0; step < Tiling::keys / 16; ++step)
      product<true, true>(dq, advance(left, step * 16 * 128), advance(right, step * 16 * 128),
                          step > 0);
    products_commit();
  }
};

template <template <int, bool> typename GradientOf, int HeadDim, bool Alibi>
__device__ void consume(const BackwardWorkSm90& work, int consumer) {
  using Tiling = BackwardTilingSm90<HeadDim>;
  constexpr int queries = Tiling::queries;
  using Gradient = GradientOf<queries, Alibi>;
  using Products = Products<HeadDim>;
  constexpr int all_consumers = 1, all_threads = Tiling::consumers * warpgroup_size;
  const AttentionBackward& call = work.call;
  const AttentionShape& shape = call.forward.shape;
  const BackwardShared<Tiling> shared;
  const int thread = static_cast<int>(threadIdx.x) % warpgroup_size;
  const int lane = lane_index(), warp = thread / 32;
  const bool speaks = lane == 0;
  const SharedAddress k = shared.k + consumer * 64 * 128, v = shared.v + consumer * 64 * 128;
  const SharedAddress dq_to = shared.dq + consumer * Tiling::dq_bytes;
  // What this thread writes of dQ: row 16 warp + lane / 4, columns 2 (lane % 4) + {0, 1} of unit
  // lane / 4, where unit i, 8 columns, of row r lies at i ^ (r % 8).
  const int dq_offset = (warp * 16 + (lane >> 2)) * 256 + (lane >> 2) * 32 + (lane & 3) * 8;

  TicketDesk desk = shared.ticket_desk();
  RingPlace<1> kv;
  RingPlace<Tiling::q_stages> q;
  // Steps so far, of all tiles. Step n is the n-th user of the buffer of dQ, and its dS and d_out
  // are in buffers n % 2: in phase n / 2 of theirs.
  uint32_t count = 0;
  const auto parity = [](uint32_t n) { return n / 2 % 2; };
  const auto hand_on = [&](const float(&dq)[32], uint32_t n) {
    barrier_wait(shared.dq_empty(consumer), (n & 1) ^ 1);
    SharedAddress dq_row = dq_to + dq_offset;
    compute_here(dq_row);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      store_shared_pair(dq_row ^ (i * 32), dq[4 * i], dq[4 * i + 1]);
      store_shared_pair((dq_row ^ (i * 32)) + 8 * 256, dq[4 * i + 2], dq[4 * i + 3]);
    }
    fence_async_shared();
    __syncwarp();
    if (speaks) barrier_arrive(shared.dq_full(consumer));
  };
  float dk[HeadDim / 2], dv[HeadDim / 2];

  for (WorkTile next; desk.draw_in_warp(next); kv.advance()) {
    const KeyTileWork<Tiling> tile(work.call.forward, next);
    const int steps = tile.steps();
    const int own_first_key = tile.first_key + consumer * 64;
    barrier_wait(shared.kv_full(), kv.parity);
    if (tile.band.keys < shape.seq_len && tile.band.keys < tile.first_key + Tiling::keys) {
      // Zeros for keys behind the sequence's last one: their weights are 0, but 0 times what memory
      // holds there need not be.
      const int from = max(tile.band.keys - own_first_key, 0);
      for (int panel = 0; panel < Tiling::panels; ++panel) {
        for (int i = from * 32 + thread; i < 64 * 32; i += warpgroup_size) {
          store_shared(k + panel * Tiling::kv_panel + i * 4, 0u);
          store_shared(v + panel * Tiling::kv_panel + i * 4, 0u);
        }
      }
      fence_async_shared();
      named_sync(all_consumers, all_threads);
    }
#pragma unroll
    for (int i = 0; i < HeadDim / 2; ++i) dk[i] = dv[i] = 0.0f;
    float bias_sum = 0.0f;

    float s[queries / 2], dp[queries / 2];
    uint32_t p_packed[queries / 4], ds_packed[queries / 4];
    Gradient gradient;
    for (int step = 0; step < steps; ++step) {
      const int head = tile.head(step), first_query = tile.query_tile(step) * queries;
      barrier_wait(shared.q_full(q.index), q.parity);
      products_begin();
      Products::start_logits(s, k, shared.q + q.index * Tiling::q_bytes);
      products_wait<1>();
      pin(dk);
      pin(ds_packed);
      if (step > 0 && speaks)
        barrier_arrive(shared.q_empty((q.index + Tiling::q_stages - 1) % Tiling::q_stages));
      barrier_wait(shared.d_out_full(count % 2), parity(count));
      products_begin();
      Products::start_logits(dp, v, shared.d_out + count % 2 * Tiling::q_bytes);

      LogitFactors factors(call.forward, head, 1.0f);
      factors.constant += Gradient::exponent_offset;
      const TransposedPosition at{first_query + 2 * (lane & 3),
                                  own_first_key + warp * 16 + (lane >> 2)};
      const ColumnStatistics statistics{shared.statistics + q.index * Tiling::statistics_bytes +
                                        (lane & 3) * 16};
      const bool edge = is_edge<Alibi>(tile.band, first_query, queries, own_first_key, 64);
      products_wait<1>();
      pin(s);
      if (edge) {
        asm volatile("");
        gradient.template exponentiate<true>(s, factors, tile.band, at, statistics);
      } else {
        gradient.template exponentiate<false>(s, factors, tile.band, at, statistics);
      }
      products_wait<0>();
      pin(dp);
      gradient.differentiate(s, dp, statistics);
      if (call.d_head_bias) {
#pragma unroll
        for (int i = 0; i < queries / 2; ++i) bias_sum += dp[i];
      }
#pragma unroll
      for (int i = 0; i < queries / 4; ++i) {
        p_packed[i] = pack_bf16(s[2 * i], s[2 * i + 1]);
        ds_packed[i] = pack_bf16(dp[2 * i], dp[2 * i + 1]);
      }
      SharedAddress ds_rows =
          matrix_rows(shared.ds + count % 2 * Tiling::ds_bytes, consumer * 64 + warp * 16);
      compute_here(ds_rows);
      if (Tiling::dq_lags) barrier_wait(shared.ds_empty(count % 2), parity(count) ^ 1);
#pragma unroll
      for (int block = 0; block < queries / 16; ++block)
        store_matrices(at_block(ds_rows, block, Tiling::ds_panel), ds_packed[4 * block],
                       ds_packed[4 * block + 1], ds_packed[4 * block + 2],
                       ds_packed[4 * block + 3]);
      fence_async_shared();
      if (Tiling::dq_lags) {
        __syncwarp();
        if (speaks) barrier_arrive(shared.ds_full(count % 2));
      }

      pin(p_packed);
      pin(ds_packed);
      products_begin();
      Products::start_sum(dv, p_packed, shared.d_out + count % 2 * Tiling::q_bytes, true);
      // All of the dS that dQ is to be computed from is there: of this step; or of the one before,
      // so that consumers need not meet. (With dq_lags the first step computes its own and throws
      // it away: a branch round products makes ptxas run them one at a time.)
      const uint32_t of = Tiling::dq_lags && step > 0 ? count - 1 : count;
      if (Tiling::dq_lags) {
        barrier_wait(shared.ds_full(of % 2), parity(of));
        products_begin();
      } else {
        named_sync(all_consumers, all_threads);
      }
      float dq[32];
      Products::start_dq(dq, shared.ds + of % 2 * Tiling::ds_bytes, shared.k, consumer);
      Products::start_sum(dk, ds_packed, shared.q + q.index * Tiling::q_bytes, true);
      products_wait<1>();
      pin(dv);
      pin(p_packed);
      pin(dq);
      if (speaks) barrier_arrive(shared.d_out_empty(count % 2));
      if (!Tiling::dq_lags || step > 0) {
        if (Tiling::dq_lags && speaks) barrier_arrive(shared.ds_empty(of % 2));
        hand_on(dq, of);
      }
      ++count;

      if (call.d_head_bias && (step + 1 == steps || tile.head(step + 1) != head)) {
        const float sum = sum_lanes<31>(bias_sum);
        bias_sum = 0.0f;
        if (speaks)
          work.template bias_parts<Tiling>(tile.at, head)[consumer * 4 + warp] =
              sum * Gradient::slope_unit;
      }
      q.advance();
    }
    products_wait<0>();
    pin(dk);
    if (steps > 0 && speaks)
      barrier_arrive(shared.q_empty((q.index + Tiling::q_stages - 1) % Tiling::q_stages));
    if (Tiling::dq_lags && steps > 0) {
      const uint32_t of = count - 1;
      barrier_wait(shared.ds_full(of % 2), parity(of));
      float dq[32];
      products_begin();
      Products::start_dq(dq, shared.ds + of % 2 * Tiling::ds_bytes, shared.k, consumer);
      products_wait<0>();
      pin(dq);
      if (speaks) barrier_arrive(shared.ds_empty(of % 2));
      hand_on(dq, of);
    }
    if (call.d_head_bias && steps == 0 && speaks) {
      for (int i = 0; i < tile.group; ++i)
        work.template bias_parts<Tiling>(tile.at,
                                         tile.at.head * tile.group + i)[consumer * 4 + warp] = 0.0f;
    }

    // The keys and values, which nobody reads any more, are the way to bulk writes.
    named_sync(all_consumers, all_threads);
    const float dk_factor = shape.scale * Gradient::slope_unit;
    const SharedAddress dk_rows = matrix_rows(k, warp * 16), dv_rows = matrix_rows(v, warp * 16);
#pragma unroll
    for (int block = 0; block < HeadDim / 16; ++block) {
      const float* x = dk + 8 * block;
      const float* y = dv + 8 * block;
      constexpr float unit = Gradient::weight_unit;
      store_matrices(at_block(dk_rows, block, Tiling::kv_panel),
                     pack_bf16(x[0] * dk_factor, x[1] * dk_factor),
                     pack_bf16(x[2] * dk_factor, x[3] * dk_factor),
                     pack_bf16(x[4] * dk_factor, x[5] * dk_factor),
                     pack_bf16(x[6] * dk_factor, x[7] * dk_factor));
      store_matrices(at_block(dv_rows, block, Tiling::kv_panel),
                     pack_bf16(y[0] * unit, y[1] * unit), pack_bf16(y[2] * unit, y[3] * unit),
                     pack_bf16(y[4] * unit, y[5] * unit), pack_bf16(y[6] * unit, y[7] * unit));
    }
    fence_async_shared();
    named_sync(2 + consumer, warpgroup_size);
    if (thread == 0) {
      for (int panel = 0; panel < Tiling::panels; ++panel) {
        store_box(&work.maps.dk, k + panel * Tiling::kv_panel, panel * 64, tile.at.head,
                  own_first_key, tile.at.batch);
        store_box(&work.maps.dv, v + panel * Tiling::kv_panel, panel * 64, tile.at.head,
                  own_first_key, tile.at.batch);
      }
      bulk_commit();
      bulk_wait_read();
      barrier_arrive(shared.kv_empty());
    }
  }
  if (thread == 0) bulk_wait();
}

}  // namespace backward_sm90

template <template <int, bool> typename Gradient, int HeadDim, bool Alibi>
__global__ void __launch_bounds__(BackwardTilingSm90<HeadDim>::threads, 1)
    attention_sm90_backward_kernel(const __grid_constant__ BackwardWorkSm90 work) {
  using Tiling = BackwardTilingSm90<HeadDim>;
  constexpr bool softmax = Gradient<Tiling::queries, Alibi>::is_softmax;
  constexpr int consumer_warps = Tiling::consumers * 4;
  if (threadIdx.x == 0) {
    const BackwardShared<Tiling> shared;
    barrier_init(shared.kv_full(), 1);
    barrier_init(shared.kv_empty(), Tiling::consumers);
    for (int stage = 0; stage < Tiling::q_stages; ++stage) {
      barrier_init(shared.q_full(stage), 1);
      barrier_init(shared.q_empty(stage), consumer_warps);
    }
    for (int stage = 0; stage < Tiling::d_out_stages; ++stage) {
      barrier_init(shared.d_out_full(stage), 1);
      barrier_init(shared.d_out_empty(stage), consumer_warps);
    }
    for (int consumer = 0; consumer < Tiling::consumers; ++consumer) {
      barrier_init(shared.dq_full(consumer), 4);
      barrier_init(shared.dq_empty(consumer), 1);
    }
    for (int buffer = 0; buffer < Tiling::ds_buffers; ++buffer) {
      barrier_init(shared.ds_full(buffer), consumer_warps);
      barrier_init(shared.ds_empty(buffer), consumer_warps);
    }
    shared.ticket_desk().init(3 + consumer_warps);
    barrier_init_fence();
  }
  __syncthreads();
  const int warpgroup = warpgroup_index();
  if (warpgroup == 0) {
    give_registers<Tiling::producer_registers>();
    if (threadIdx.x == 0) backward_sm90::produce<softmax, HeadDim>(work);
    if (threadIdx.x == 32)
      BackwardShared<Tiling>().ticket_desk().serve(work.call.forward.tickets, work.order);
    if (threadIdx.x == 64) backward_sm90::add_shares<HeadDim>(work, 0);
    if (threadIdx.x == 96) backward_sm90::add_shares<HeadDim>(work, 1);
  } else {
    take_registers<Tiling::consumer_registers>();
    backward_sm90::consume<Gradient, HeadDim, Alibi>(work, warpgroup - 1);
  }
}

/// dq = factor * sums, rounded: a thread for 8 columns of a query.
template <int HeadDim>
__global__ void __launch_bounds__(256)
    attention_sm90_round_dq_kernel(const BackwardWorkSm90 work, float factor) {
  using Tiling = BackwardTilingSm90<HeadDim>;
  const AttentionShape& shape = work.call.forward.shape;
  constexpr int chunks = HeadDim / 8;
  const int64_t count = static_cast<int64_t>(shape.batch) * shape.seq_len * shape.heads * chunks;
  for (int64_t i = blockIdx.x * 256ll + threadIdx.x; i < count; i += gridDim.x * 256ll) {
    const int chunk = static_cast<int>(i % chunks);
    const int query = static_cast<int>(i / chunks % shape.seq_len);
    const int64_t batch_head = i / chunks / shape.seq_len;
    const int head = static_cast<int>(batch_head % shape.heads);
    const int64_t row = batch_head / shape.heads * shape.seq_len + query;
    const int tile = query / Tiling::queries, in_tile = query % Tiling::queries;
    const int part = Tiling::queries == 128 ? in_tile / 64 : chunk / 8;
    const float4* from = reinterpret_cast<const float4*>(
        work.dq_sums +
        ((batch_head * work.query_tiles + tile) * Tiling::consumers + part) * Tiling::dq_part +
        in_tile % 64 * 64 + ((chunk % 8) ^ (in_tile & 7)) * 8);
    const float4 a = __ldcs(from), b = __ldcs(from + 1);
    const uint4 packed = {
        pack_bf16(a.x * factor, a.y * factor), pack_bf16(a.z * factor, a.w * factor),
        pack_bf16(b.x * factor, b.y * factor), pack_bf16(b.z * factor, b.w * factor)};
    *reinterpret_cast<uint4*>(work.call.dq.data + row * work.call.dq.row_stride + head * HeadDim +
                              chunk * 8) = packed;
  }
}

}  // namespace sigtrain::kernels
