// FlashSigmoid, backward, on Hopper, of wide heads (head_dim 192): two passes, one by tiles of
// queries for dQ, one by tiles of keys for dK and dV. Nothing is added up in global memory: no sums
// of dQ to clear, to wait for and to round, and the same inputs give the same bits.
//
// Why two. A block that owns 128 keys, as in attention_sm90_backward.cuh, has no registers for
// their sums: 2 x 128 x 192 fp32 are 192 of a consumer thread's 240. With 64 keys they fit, but
// every 64 keys then read all of q and d_out, and add to all of dQ. In clocks of a multiprocessor
// for 64 keys and 64 queries (4096 operations of tensor cores a clock, 128 bytes of shared memory a
// clock):
//
//     one pass                tensor cores 5 x 384 = 1920
//                             shared memory 2430: products 1280, tiles in 384, dQ in and out 768
//                             L2 48 KiB read, 48 KiB added
//     by queries, by keys     tensor cores 3 x 384 + 4 x 384 = 2688
//                             shared memory 1152 + 1280 = 2430
//                             L2 24 KiB + 48 KiB read
//
// One pass is bound by shared memory, and by what L2 can add. Two compute S and dP again, and need
// neither workspace nor an order of blocks. At seq_len 1024, clearing and rounding sums of dQ would
// take another 15% of the time.
//
// The pass by queries. A block owns 128 queries, 64 a consumer; consumers never meet:
//
//     issue S_i = Q K_i^T, dQ += dS_{i-1} K_{i-1}, dP_i = dO V_i^T
//     wait for S_i; exponentiate                                          dQ, dP run
//     wait for both; dS_i
//
// The pass by keys. A block owns 64 keys. One consumer computes weights and sums dV, the other one
// logits' gradients and sums dK. They hold their keys and values in registers, and the first gives
// the second the slopes dS / (dP - D) through shared memory, thread by thread:
//
//     consumer 0   issue S^T_i = K Q_i^T, dV += P^T_{i-1} dO_{i-1}
//                  wait for S_i; P_i, slopes to shared memory             dV runs
//                  wait for dV; pack P_i
//     consumer 1   issue dP^T_i = V dO_i^T, dK += dS^T_{i-1} Q_{i-1}
//                  wait for dP_i and slopes; dS_i                         dK runs
//                  wait for dK; pack dS_i
//
// Its blocks begin where those of the other pass have run out of tiles (let_next_grid_begin).
//
// No product is under way at the end of a loop's turn: else ptxas would have to see that nothing
// touches its registers until a wait in the next one, and does so for the simplest of waits only.
// So a turn multiplies the weights of the turn before; in the first one these are zeros.
#pragma once

#include <cuda_fp16.h>

#include "attention_sm90_key_tiles.cuh"
#include "attention_weights_sm90.cuh"
#include "ring_sm90.cuh"
#include "tile_order_sm90.cuh"
#include "wgmma_sm90.cuh"

namespace sigtrain::kernels {

/// What both passes have in common: tiles arrive as boxes of 64 rows.
struct WideTilingSm90 {
  static constexpr int head_dim = 192, panels = head_dim / 64;
  static constexpr int box_panel = 64 * 128, box_bytes = panels * box_panel;
  static constexpr int consumers = 2, threads = (consumers + 1) * warpgroup_size;
  static constexpr int consumer_registers = 240, producer_registers = 24;
  static_assert(registers_suffice(consumers, consumer_registers, producer_registers));
};

struct WideKeysTilingSm90 : WideTilingSm90 {
  static constexpr int keys = 64, queries = 64;
  static constexpr int q_stages = 3, d_out_stages = 3, slope_buffers = 2;
  static constexpr int slope_bytes = keys * queries * 2;
  static constexpr int statistics_bytes = queries * 8;
  static constexpr int barriers = 2 + 2 * q_stages + 2 * d_out_stages + 2 * slope_buffers;
  static constexpr int shared_bytes = (2 + q_stages + d_out_stages) * box_bytes +
                                      slope_buffers * slope_bytes + q_stages * statistics_bytes +
                                      barriers * 8 + TicketDesk::shared_bytes;
  static_assert(slope_buffers == 2);  // the consumers count so
  static_assert(shared_bytes <= 227 << 10);
};

struct WideQueriesTilingSm90 : WideTilingSm90 {
  static constexpr int keys = 64, queries = consumers * 64;
  static constexpr int k_stages = 3, v_stages = 2;
  /// Each warp of a consumer gives one part of the sum of dS.
  static constexpr int bias_parts = consumers * 4;
  static constexpr int barriers = 4 * consumers + 2 * k_stages + 2 * v_stages;
  static constexpr int shared_bytes =
      (2 * consumers + k_stages + v_stages) * box_bytes + barriers * 8 + TicketDesk::shared_bytes;
  static_assert(shared_bytes <= 227 << 10);
};

/// What lies where in shared memory.
struct WideKeysShared {
  using Tiling = WideKeysTilingSm90;
  SharedAddress k, v, q, d_out, slopes, statistics, barriers;
  __device__ WideKeysShared() {
    k = shared_memory();
    v = k + Tiling::box_bytes;
    q = v + Tiling::box_bytes;
    d_out = q + Tiling::q_stages * Tiling::box_bytes;
    slopes = d_out + Tiling::d_out_stages * Tiling::box_bytes;
    statistics = slopes + Tiling::slope_buffers * Tiling::slope_bytes;
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
  __device__ SharedAddress slope_full(int buffer) const {
    return d_out_full(2 * Tiling::d_out_stages + buffer);
  }
  __device__ SharedAddress slope_empty(int buffer) const {
    return slope_full(Tiling::slope_buffers + buffer);
  }
  __device__ TicketDesk ticket_desk() const { return TicketDesk(barriers + Tiling::barriers * 8); }
};

struct WideQueriesShared {
  using Tiling = WideQueriesTilingSm90;
  SharedAddress q, d_out, k, v, barriers;
  __device__ WideQueriesShared() {
    q = shared_memory();
    d_out = q + Tiling::consumers * Tiling::box_bytes;
    k = d_out + Tiling::consumers * Tiling::box_bytes;
    v = k + Tiling::k_stages * Tiling::box_bytes;
    barriers = v + Tiling::v_stages * Tiling::box_bytes;
  }
  __device__ SharedAddress q_full(int consumer) const { return barriers + consumer * 8; }
  __device__ SharedAddress q_empty(int consumer) const {
    return q_full(Tiling::consumers + consumer);
  }
  __device__ SharedAddress d_out_full(int consumer) const {
    return q_full(2 * Tiling::consumers + consumer);
  }
  __device__ SharedAddress d_out_empty(int consumer) const {
    return d_out_full(Tiling::consumers + consumer);
  }
  __device__ SharedAddress k_full(int stage) const {
    return d_out_full(2 * Tiling::consumers + stage);
  }
  __device__ SharedAddress k_empty(int stage) const { return k_full(Tiling::k_stages + stage); }
  __device__ SharedAddress v_full(int stage) const { return k_full(2 * Tiling::k_stages + stage); }
  __device__ SharedAddress v_empty(int stage) const { return v_full(Tiling::v_stages + stage); }
  __device__ TicketDesk ticket_desk() const { return TicketDesk(barriers + Tiling::barriers * 8); }
};

/// The whole call as the kernels see it.
struct WideBackwardWork {
  CUtensorMap q, k, v, d_out;  // boxes of 64 rows
  AttentionBackward call;
  TileOrder key_tiles;    // by (sequence, key head)
  TileOrder query_tiles;  // by (sequence, query head)
  float* statistics;      // softmax: [batch, heads, padded_queries, 2]
  float* bias_partials;   // [heads, batch, query tiles, bias_parts]: a warp's sum of dS
  int padded_queries;
  int* tickets[2];  // of the pass by queries, which comes first, and of the pass by keys

  /// Where a query's statistics are, two numbers each.
  __device__ const float* statistics_at(int batch, int head, int query) const {
    return statistics +
           ((static_cast<int64_t>(batch) * call.forward.shape.heads + head) * padded_queries +
            query) *
               2;
  }
};

namespace backward_wide {

/// A tile of 64 rows to shared memory, panel by panel.
__device__ __forceinline__ void load_rows(SharedAddress to, const CUtensorMap* map,
                                          const WorkTile& of, int head, int row,
                                          SharedAddress barrier) {
  using Tiling = WideTilingSm90;
  for (int panel = 0; panel < Tiling::panels; ++panel)
    load_box(to + panel * Tiling::box_panel, map, panel * 64, head, row, of.batch, barrier);
}

/// Starts x = A B^T, A 64 rows held in registers, B 64 rows in shared memory.
__device__ __forceinline__ void start_logits(float (&x)[32], uint32_t (&a)[96 / 2],
                                             SharedAddress b) {
  using Tiling = WideTilingSm90;
  const uint64_t right = shared_operand(b);
  forget(x);
#pragma unroll
  for (int step = 0; step < Tiling::head_dim / 16; ++step)
    product<false>(x, a + 4 * step, advance(right, step / 4 * Tiling::box_panel + step % 4 * 32),
                   step > 0);
  products_commit();
}
/// The same with A in shared memory.
__device__ __forceinline__ void start_logits(float (&x)[32], SharedAddress a, SharedAddress b) {
  using Tiling = WideTilingSm90;
  const uint64_t left = shared_operand(a), right = shared_operand(b);
  forget(x);
#pragma unroll
  for (int step = 0; step < Tiling::head_dim / 16; ++step) {
    const int at = step / 4 * Tiling::box_panel + step % 4 * 32;
    product<false, false>(x, advance(left, at), advance(right, at), step > 0);
  }
  products_commit();
}
/// Starts sum += X B, X [64, 64] packed in registers, B 64 rows in shared memory.
__device__ __forceinline__ void start_sum(float (&sum)[96], uint32_t (&x)[16], SharedAddress b) {
  const uint64_t right = shared_operand(b, WideTilingSm90::box_panel);
#pragma unroll
  for (int step = 0; step < 4; ++step)
    product<true>(sum, x + 4 * step, advance(right, step * 16 * 128), true);
  products_commit();
}

/// Words from the four lanes of a quad to one of them: lane q gets the q-th word of each.
__device__ __forceinline__ void transpose_quad(uint32_t (&x)[4]) {
  const int lane = lane_index();
#pragma unroll
  for (int bit = 1; bit <= 2; bit <<= 1) {
    const bool upper = lane & bit;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i & bit) continue;
      uint32_t& low = x[i];
      uint32_t& high = x[i + bit];
      const uint32_t got = __shfl_xor_sync(0xffffffffu, upper ? low : high, bit);
      (upper ? low : high) = got;
    }
  }
}

/// Rounds a consumer's sums, times `factor`, and writes them to rows first_row + [0, 64) of a head.
/// From registers: no shared memory has to be free for them, so all of it goes to the next tile.
__device__ __forceinline__ void store_rows(const HeadsPointer& to, const AttentionShape& shape,
                                           const float (&sum)[96], float factor, const WorkTile& of,
                                           int first_row) {
  using Tiling = WideTilingSm90;
  const int lane = lane_index(), warp = static_cast<int>(threadIdx.x) % warpgroup_size / 32;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = first_row + warp * 16 + half * 8 + (lane >> 2);
    __nv_bfloat16* out = to.data +
                         (static_cast<int64_t>(of.batch) * shape.seq_len + row) * to.row_stride +
                         of.head * Tiling::head_dim + (lane & 3) * 8;
#pragma unroll
    for (int first = 0; first < 24; first += 4) {  // groups of 8 columns
      uint32_t words[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float* x = sum + 4 * (first + i) + 2 * half;
        words[i] = pack_bf16(x[0] * factor, x[1] * factor);
      }
      transpose_quad(words);
      if (row < shape.seq_len)
        *reinterpret_cast<uint4*>(out + first * 8) = {words[0], words[1], words[2], words[3]};
    }
  }
}

// ---- by tiles of keys

__device__ inline void produce_keys(const WideBackwardWork& work) {
  using Tiling = WideKeysTilingSm90;
  const WideKeysShared shared;
  TicketDesk desk = shared.ticket_desk();
  RingPlace<1> kv;
  for (WorkTile at; desk.draw(at); kv.advance()) {
    barrier_wait(shared.kv_empty(), kv.parity ^ 1);
    barrier_expect(shared.kv_full(), 2 * Tiling::box_bytes);
    load_rows(shared.k, &work.k, at, at.head, at.tile * Tiling::keys, shared.kv_full());
    load_rows(shared.v, &work.v, at, at.head, at.tile * Tiling::keys, shared.kv_full());
  }
}

template <bool Softmax>
__device__ void produce_queries(const WideBackwardWork& work) {
  using Tiling = WideKeysTilingSm90;
  const WideKeysShared shared;
  TicketDesk desk = shared.ticket_desk();
  RingPlace<Tiling::q_stages> q;
  RingPlace<Tiling::d_out_stages> d_out;
  for (WorkTile next; desk.draw(next);) {
    const KeyTileWork<Tiling> tile(work.call.forward, next);
#pragma unroll 1
    for (int step = 0; step < tile.steps(); ++step, q.advance(), d_out.advance()) {
      const int head = tile.head(step), first_query = tile.query_tile(step) * Tiling::queries;
      const SharedAddress q_full = shared.q_full(q.index);
      barrier_wait(shared.q_empty(q.index), q.parity ^ 1);
      barrier_expect(q_full, Tiling::box_bytes + (Softmax ? Tiling::statistics_bytes : 0));
      load_rows(shared.q + q.index * Tiling::box_bytes, &work.q, tile.at, head, first_query,
                q_full);
      if (Softmax)
        load_bulk(shared.statistics + q.index * Tiling::statistics_bytes,
                  work.statistics_at(tile.at.batch, head, first_query), Tiling::statistics_bytes,
                  q_full);
      const SharedAddress d_out_full = shared.d_out_full(d_out.index);
      barrier_wait(shared.d_out_empty(d_out.index), d_out.parity ^ 1);
      barrier_expect(d_out_full, Tiling::box_bytes);
      load_rows(shared.d_out + d_out.index * Tiling::box_bytes, &work.d_out, tile.at, head,
                first_query, d_out_full);
    }
  }
}

/// A consumer's 64 rows of keys or values as left operands. Zeros for rows from `count` on: weights
/// there are 0, but 0 times what memory holds behind a sequence's keys need not be.
__device__ __forceinline__ void load_operand(uint32_t (&a)[48], SharedAddress rows, int count) {
  using Tiling = WideTilingSm90;
  const int warp = static_cast<int>(threadIdx.x) % warpgroup_size / 32;
  const int row = warp * 16 + (lane_index() >> 2);
  const SharedAddress from = matrix_rows(rows, warp * 16);
#pragma unroll
  for (int block = 0; block < Tiling::head_dim / 16; ++block)
    load_matrices(reinterpret_cast<uint32_t(&)[4]>(a[4 * block]),
                  at_block(from, block, Tiling::box_panel));
#pragma unroll
  for (int i = 0; i < 48; ++i)
    if (row + (i & 1) * 8 >= count) a[i] = 0u;
  pin(a);
}

/// Slopes on their way from one consumer to the other: each thread writes what the same thread of
/// the other one reads, as fp16 in units in which the largest is 2^15. So those above 2^-29 of it
/// are rounded to 2^-11, an eighth of what rounding dS to bf16 does.
struct SlopeBuffer {
  using Tiling = WideKeysTilingSm90;
  SharedAddress mine;
  __device__ explicit SlopeBuffer(SharedAddress buffer)
      : mine(buffer + static_cast<int>(threadIdx.x) % warpgroup_size * 16) {}
  __device__ void write(int i, const uint32_t (&eight)[4]) const {
    store_shared_16(mine + i * warpgroup_size * 16, eight);
  }
  __device__ void read(int i, uint32_t (&eight)[4]) const {
    load_shared_16(eight, mine + i * warpgroup_size * 16);
  }
};
__device__ __forceinline__ uint32_t pack_half(float low, float high) {
  const __half2 packed = __floats2half2_rn(low, high);
  return reinterpret_cast<const uint32_t&>(packed);
}
__device__ __forceinline__ float2 unpack_half(uint32_t packed) {
  return __half22float2(reinterpret_cast<const __half2&>(packed));
}

/// The consumer of keys: P^T = weights(K Q^T), dV += P^T dO.
template <template <int, bool> typename GradientOf, bool Alibi>
__device__ void sum_dv(const WideBackwardWork& work) {
  using Tiling = WideKeysTilingSm90;
  using Gradient = GradientOf<Tiling::queries, Alibi>;
  using Formula = typename Gradient::Formula;
  const WideKeysShared shared;
  const int lane = lane_index(), warp = static_cast<int>(threadIdx.x) % warpgroup_size / 32;
  const bool speaks = lane == 0;
  TicketDesk desk = shared.ticket_desk();
  RingPlace<1> kv;
  RingPlace<Tiling::q_stages> q;
  RingPlace<Tiling::d_out_stages> d_out;  // of the step before
  uint32_t count = 0;  // steps so far: slopes of step n are phase n / 2 of buffer n % 2
  for (WorkTile next; desk.draw_in_warp(next); kv.advance()) {
    const KeyTileWork<Tiling> tile(work.call.forward, next);
    const int steps = tile.steps();
    float dv[96], s[32];
    uint32_t k[48], p[16];
    barrier_wait(shared.kv_full(), kv.parity);
    load_operand(k, shared.k, tile.band.keys - tile.first_key);
    __syncwarp();
    if (speaks) barrier_arrive(shared.kv_empty());
#pragma unroll
    for (float& x : dv) x = 0.0f;
#pragma unroll
    for (uint32_t& x : p) x = 0u;
    Gradient gradient;
    for (int step = 0; step < steps; ++step) {
      const int first_query = tile.query_tile(step) * Tiling::queries;
      barrier_wait(shared.q_full(q.index), q.parity);
      barrier_wait(shared.d_out_full(d_out.index), d_out.parity);
      pin(dv);
      pin(p);
      products_begin();
      start_logits(s, k, shared.q + q.index * Tiling::box_bytes);
      start_sum(dv, p, shared.d_out + d_out.index * Tiling::box_bytes);

      LogitFactors factors(work.call.forward, tile.head(step), 1.0f);
      factors.constant += Gradient::exponent_offset;
      const TransposedPosition at{first_query + 2 * (lane & 3),
                                  tile.first_key + warp * 16 + (lane >> 2)};
      const ColumnStatistics statistics{shared.statistics + q.index * Tiling::statistics_bytes +
                                        (lane & 3) * 16};
      products_wait<1>();
      pin(s);
      if (is_edge<Alibi>(tile.band, first_query, Tiling::queries, tile.first_key, Tiling::keys)) {
        asm volatile("");
        gradient.template exponentiate<true>(s, factors, tile.band, at, statistics);
      } else {
        gradient.template exponentiate<false>(s, factors, tile.band, at, statistics);
      }
      gradient.finish(s);
      barrier_wait(shared.slope_empty(count % 2), (count / 2 % 2) ^ 1);
      const SlopeBuffer slopes(shared.slopes + count % 2 * Tiling::slope_bytes);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        uint32_t eight[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const float* x = s + 8 * i + 2 * j;
          eight[j] = pack_half(Formula::slope(x[0]) * Gradient::slopes_up,
                               Formula::slope(x[1]) * Gradient::slopes_up);
        }
        slopes.write(i, eight);
      }
      __syncwarp();
      if (speaks) {
        barrier_arrive(shared.slope_full(count % 2));
        barrier_arrive(shared.q_empty(q.index));
      }
      ++count;
      q.advance();
      products_wait<0>();
      pin(dv);
      pin(p);
      if (step > 0) {
        if (speaks) barrier_arrive(shared.d_out_empty(d_out.index));
        d_out.advance();
      }
#pragma unroll
      for (int i = 0; i < 16; ++i) p[i] = pack_bf16(s[2 * i], s[2 * i + 1]);
    }
    if (steps > 0) {
      barrier_wait(shared.d_out_full(d_out.index), d_out.parity);
      pin(dv);
      pin(p);
      products_begin();
      start_sum(dv, p, shared.d_out + d_out.index * Tiling::box_bytes);
      products_wait<0>();
      pin(dv);
      if (speaks) barrier_arrive(shared.d_out_empty(d_out.index));
      d_out.advance();
    }
    store_rows(work.call.dv, work.call.forward.shape, dv, 1.0f, tile.at, tile.first_key);
  }
}

/// The consumer of values: dS^T = slopes * (V dO^T - D), dK += dS^T Q.
template <template <int, bool> typename GradientOf, bool Alibi>
__device__ void sum_dk(const WideBackwardWork& work) {
  using Tiling = WideKeysTilingSm90;
  using Gradient = GradientOf<Tiling::queries, Alibi>;
  using Formula = typename Gradient::Formula;
  const WideKeysShared shared;
  const int lane = lane_index();
  const bool speaks = lane == 0;
  TicketDesk desk = shared.ticket_desk();
  RingPlace<1> kv;
  RingPlace<Tiling::q_stages> q;  // of the step before
  RingPlace<Tiling::d_out_stages> d_out;
  uint32_t count = 0;
  for (WorkTile next; desk.draw_in_warp(next); kv.advance()) {
    const KeyTileWork<Tiling> tile(work.call.forward, next);
    const int steps = tile.steps();
    float dk[96], dp[32];
    uint32_t v[48], ds[16];
    barrier_wait(shared.kv_full(), kv.parity);
    load_operand(v, shared.v, tile.band.keys - tile.first_key);
    __syncwarp();
    if (speaks) barrier_arrive(shared.kv_empty());
#pragma unroll
    for (float& x : dk) x = 0.0f;
#pragma unroll
    for (uint32_t& x : ds) x = 0u;
    for (int step = 0; step < steps; ++step) {
      RingPlace<Tiling::q_stages> q_here = q;
      if (step > 0) q_here.advance();
      barrier_wait(shared.d_out_full(d_out.index), d_out.parity);
      barrier_wait(shared.q_full(q.index), q.parity);
      pin(dk);
      pin(ds);
      products_begin();
      start_logits(dp, v, shared.d_out + d_out.index * Tiling::box_bytes);
      start_sum(dk, ds, shared.q + q.index * Tiling::box_bytes);

      const ColumnStatistics statistics{shared.statistics +
                                        q_here.index * Tiling::statistics_bytes + (lane & 3) * 16};
      const SlopeBuffer slopes(shared.slopes + count % 2 * Tiling::slope_bytes);
      if (Gradient::is_softmax) barrier_wait(shared.q_full(q_here.index), q_here.parity);
      products_wait<1>();
      pin(dp);
      barrier_wait(shared.slope_full(count % 2), count / 2 % 2);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        uint32_t eight[4];
        slopes.read(i, eight);
#pragma unroll
        for (int j = 0; j < 4; j += 2) {
          const int n = 2 * i + j / 2;
          const float2 a = unpack_half(eight[j]), b = unpack_half(eight[j + 1]);
          const float slope[4] = {a.x, a.y, b.x, b.y};
          if constexpr (Gradient::is_softmax) {
            const auto of = statistics.at(n);
#pragma unroll
            for (int e = 0; e < 4; ++e)
              dp[4 * n + e] = Formula::logit_gradient(slope[e], dp[4 * n + e], of.dot(e));
          } else {
#pragma unroll
            for (int e = 0; e < 4; ++e)
              dp[4 * n + e] = Formula::logit_gradient(slope[e], dp[4 * n + e], 0.0f);
          }
        }
      }
      __syncwarp();
      if (speaks) {
        barrier_arrive(shared.slope_empty(count % 2));
        barrier_arrive(shared.d_out_empty(d_out.index));
      }
      ++count;
      d_out.advance();
      products_wait<0>();
      pin(dk);
      pin(ds);
      if (step > 0) {
        if (speaks) barrier_arrive(shared.q_empty(q.index));
        q.advance();
      }
#pragma unroll
      for (int i = 0; i < 16; ++i) ds[i] = pack_bf16(dp[2 * i], dp[2 * i + 1]);
    }
    if (steps > 0) {
      barrier_wait(shared.q_full(q.index), q.parity);
      pin(dk);
      pin(ds);
      products_begin();
      start_sum(dk, ds, shared.q + q.index * Tiling::box_bytes);
      products_wait<0>();
      pin(dk);
      if (speaks) barrier_arrive(shared.q_empty(q.index));
      q.advance();
    }
    const AttentionShape& shape = work.call.forward.shape;
    store_rows(work.call.dk, shape, dk, shape.scale / Gradient::slopes_up, tile.at, tile.first_key);
  }
}

// ---- by tiles of queries

/// The tiles of keys that a block's queries see.
struct QueryTileWork {
  using Tiling = WideQueriesTilingSm90;
  WorkTile at;
  VisibleBand band;
  Interval chunks;
  int first_query;

  __device__ QueryTileWork(const AttentionForward& call, const WorkTile& tile)
      : at(tile),
        band(call.shape, call.key_lengths, at.batch),
        first_query(at.tile * Tiling::queries) {
    chunks = band.key_tiles(first_query, Tiling::queries, Tiling::keys);
  }
};

__device__ inline void load_queries(const WideBackwardWork& work) {
  using Tiling = WideQueriesTilingSm90;
  const WideQueriesShared shared;
  TicketDesk desk = shared.ticket_desk();
  RingPlace<1> q;
  for (WorkTile at; desk.draw(at); q.advance()) {
    const auto load = [&](SharedAddress to, const CUtensorMap& map, int consumer,
                          SharedAddress full, SharedAddress empty) {
      barrier_wait(empty, q.parity ^ 1);
      barrier_expect(full, Tiling::box_bytes);
      load_rows(to + consumer * Tiling::box_bytes, &map, at, at.head,
                at.tile * Tiling::queries + consumer * 64, full);
    };
    for (int i = 0; i < Tiling::consumers; ++i)
      load(shared.q, work.q, i, shared.q_full(i), shared.q_empty(i));
    for (int i = 0; i < Tiling::consumers; ++i)
      load(shared.d_out, work.d_out, i, shared.d_out_full(i), shared.d_out_empty(i));
  }
}

__device__ inline void load_keys_and_values(const WideBackwardWork& work) {
  using Tiling = WideQueriesTilingSm90;
  const WideQueriesShared shared;
  const AttentionShape& shape = work.call.forward.shape;
  const int group = shape.heads / shape.kv_heads;
  TicketDesk desk = shared.ticket_desk();
  RingPlace<Tiling::k_stages> k;
  RingPlace<Tiling::v_stages> v;
  for (WorkTile next; desk.draw(next);) {
    const QueryTileWork tile(work.call.forward, next);
#pragma unroll 1
    for (int chunk = tile.chunks.begin; chunk < tile.chunks.end;
         ++chunk, k.advance(), v.advance()) {
      barrier_wait(shared.k_empty(k.index), k.parity ^ 1);
      barrier_expect(shared.k_full(k.index), Tiling::box_bytes);
      load_rows(shared.k + k.index * Tiling::box_bytes, &work.k, tile.at, tile.at.head / group,
                chunk * Tiling::keys, shared.k_full(k.index));
      barrier_wait(shared.v_empty(v.index), v.parity ^ 1);
      barrier_expect(shared.v_full(v.index), Tiling::box_bytes);
      load_rows(shared.v + v.index * Tiling::box_bytes, &work.v, tile.at, tile.at.head / group,
                chunk * Tiling::keys, shared.v_full(v.index));
    }
  }
}

/// Zeros for the rows of a tile in shared memory from `from` on, half of them by each consumer.
__device__ __forceinline__ void clear_rows(SharedAddress rows, int from) {
  using Tiling = WideTilingSm90;
  const int thread = static_cast<int>(threadIdx.x) - warpgroup_size;
#pragma unroll 1
  for (int panel = 0; panel < Tiling::panels; ++panel)
#pragma unroll 1
    for (int i = from * 32 + thread; i < 64 * 32; i += Tiling::consumers * warpgroup_size)
      store_shared(rows + panel * Tiling::box_panel + i * 4, 0u);
}

template <template <int, bool> typename GradientOf, bool Alibi>
__device__ void sum_dq(const WideBackwardWork& work, int consumer) {
  using Tiling = WideQueriesTilingSm90;
  using Gradient = GradientOf<Tiling::keys, Alibi>;
  constexpr int all_consumers = 1, all_threads = Tiling::consumers * warpgroup_size;
  const AttentionBackward& call = work.call;
  const AttentionShape& shape = call.forward.shape;
  const WideQueriesShared shared;
  const int lane = lane_index(), warp = static_cast<int>(threadIdx.x) % warpgroup_size / 32;
  const int row = warp * 16 + (lane >> 2), column = 2 * (lane & 3);
  const bool speaks = lane == 0;
  const SharedAddress queries = shared.q + consumer * Tiling::box_bytes;
  const SharedAddress d_out = shared.d_out + consumer * Tiling::box_bytes;
  TicketDesk desk = shared.ticket_desk();
  RingPlace<1> q;
  RingPlace<Tiling::k_stages> k;
  RingPlace<Tiling::v_stages> v;
  for (WorkTile next; desk.draw_in_warp(next); q.advance()) {
    const QueryTileWork tile(call.forward, next);
    const int first_query = tile.first_query + consumer * 64;
    LogitFactors factors(call.forward, tile.at.head, 1.0f);
    factors.constant += Gradient::exponent_offset;
    RowStatistics statistics;
    if (Gradient::is_softmax) {
#pragma unroll
      for (int half = 0; half < 2; ++half)
        statistics.of[half] = *reinterpret_cast<const float2*>(
            work.statistics_at(tile.at.batch, tile.at.head, first_query + row + 8 * half));
    }
    float dq[96], s[32], dp[32];
    uint32_t ds[16];
#pragma unroll
    for (float& x : dq) x = 0.0f;
#pragma unroll
    for (uint32_t& x : ds) x = 0u;
    float bias_sum = 0.0f;
    Gradient gradient;
    int previous = k.index;
    barrier_wait(shared.q_full(consumer), q.parity);
    barrier_wait(shared.d_out_full(consumer), q.parity);
    for (int chunk = tile.chunks.begin; chunk < tile.chunks.end; ++chunk) {
      const int first_key = chunk * Tiling::keys;
      const SharedAddress keys = shared.k + k.index * Tiling::box_bytes;
      const SharedAddress values = shared.v + v.index * Tiling::box_bytes;
      barrier_wait(shared.k_full(k.index), k.parity);
      if (tile.band.keys < shape.seq_len && tile.band.keys < first_key + Tiling::keys) {
        // Weights there are 0, but 0 times what memory holds behind a sequence's keys need not be.
        barrier_wait(shared.v_full(v.index), v.parity);
        clear_rows(keys, tile.band.keys - first_key);
        clear_rows(values, tile.band.keys - first_key);
        fence_async_shared();
        named_sync(all_consumers, all_threads);
      }
      pin(dq);
      pin(ds);
      products_begin();
      start_logits(s, queries, keys);
      start_sum(dq, ds, shared.k + previous * Tiling::box_bytes);
      barrier_wait(shared.v_full(v.index), v.parity);
      products_begin();
      start_logits(dp, d_out, values);

      const LogitPosition at{first_query + row, first_key + column};
      products_wait<2>();
      pin(s);
      // No product reads the queries any more: the next tile's may come.
      if (speaks && chunk + 1 == tile.chunks.end) barrier_arrive(shared.q_empty(consumer));
      if (is_edge<Alibi>(tile.band, first_query, 64, first_key, Tiling::keys)) {
        asm volatile("");
        gradient.template exponentiate<true>(s, factors, tile.band, at, statistics);
      } else {
        gradient.template exponentiate<false>(s, factors, tile.band, at, statistics);
      }
      products_wait<0>();
      pin(dq);
      pin(ds);
      pin(dp);
      if (speaks) {
        if (chunk > tile.chunks.begin) barrier_arrive(shared.k_empty(previous));
        barrier_arrive(shared.v_empty(v.index));
      }
      previous = k.index;
      k.advance();
      v.advance();
      gradient.differentiate(s, dp, statistics);
      if (call.d_head_bias) {
#pragma unroll
        for (float x : dp) bias_sum += x;
      }
#pragma unroll
      for (int i = 0; i < 16; ++i) ds[i] = pack_bf16(dp[2 * i], dp[2 * i + 1]);
    }
    if (speaks) barrier_arrive(shared.d_out_empty(consumer));
    if (tile.chunks.begin >= tile.chunks.end) {
      if (speaks) barrier_arrive(shared.q_empty(consumer));
    } else {
      pin(dq);
      pin(ds);
      products_begin();
      start_sum(dq, ds, shared.k + previous * Tiling::box_bytes);
      products_wait<0>();
      pin(dq);
      if (speaks) barrier_arrive(shared.k_empty(previous));
    }
    if (call.d_head_bias) {
      const float sum = sum_lanes<31>(bias_sum);
      if (speaks)
        work.bias_partials[((static_cast<int64_t>(tile.at.head) * shape.batch + tile.at.batch) *
                                work.query_tiles.tiles +
                            tile.at.tile) *
                               Tiling::bias_parts +
                           consumer * 4 + warp] = sum * Gradient::slope_unit;
    }
    store_rows(call.dq, shape, dq, shape.scale * Gradient::slope_unit, tile.at, first_query);
  }
}

}  // namespace backward_wide

template <template <int, bool> typename Gradient, bool Alibi>
__global__ void __launch_bounds__(WideTilingSm90::threads, 1)
    attention_sm90_wide_keys_kernel(const __grid_constant__ WideBackwardWork work) {
  using Tiling = WideKeysTilingSm90;
  constexpr int consumer_warps = Tiling::consumers * 4;
  if (threadIdx.x == 0) {
    const WideKeysShared shared;
    barrier_init(shared.kv_full(), 1);
    barrier_init(shared.kv_empty(), consumer_warps);
    for (int stage = 0; stage < Tiling::q_stages; ++stage) {
      barrier_init(shared.q_full(stage), 1);
      barrier_init(shared.q_empty(stage), consumer_warps);
    }
    for (int stage = 0; stage < Tiling::d_out_stages; ++stage) {
      barrier_init(shared.d_out_full(stage), 1);
      barrier_init(shared.d_out_empty(stage), consumer_warps);
    }
    for (int buffer = 0; buffer < Tiling::slope_buffers; ++buffer) {
      barrier_init(shared.slope_full(buffer), 4);
      barrier_init(shared.slope_empty(buffer), 4);
    }
    shared.ticket_desk().init(2 + consumer_warps);
    barrier_init_fence();
  }
  __syncthreads();
  const int warpgroup = warpgroup_index();
  if (warpgroup == 0) {
    give_registers<Tiling::producer_registers>();
    if (threadIdx.x == 0)
      backward_wide::produce_queries<Gradient<Tiling::queries, Alibi>::is_softmax>(work);
    if (threadIdx.x == 32) backward_wide::produce_keys(work);
    if (threadIdx.x == 64) {
      WideKeysShared().ticket_desk().serve(work.tickets[1], work.key_tiles);
      wait_for_grid_before();  // so that who waits for this grid waits for that one too
    }
  } else {
    take_registers<Tiling::consumer_registers>();
    if (warpgroup == 1)
      backward_wide::sum_dv<Gradient, Alibi>(work);
    else
      backward_wide::sum_dk<Gradient, Alibi>(work);
  }
}

template <template <int, bool> typename Gradient, bool Alibi>
__global__ void __launch_bounds__(WideTilingSm90::threads, 1)
    attention_sm90_wide_queries_kernel(const __grid_constant__ WideBackwardWork work) {
  using Tiling = WideQueriesTilingSm90;
  constexpr int consumer_warps = Tiling::consumers * 4;
  if (threadIdx.x == 0) {
    const WideQueriesShared shared;
    for (int consumer = 0; consumer < Tiling::consumers; ++consumer) {
      barrier_init(shared.q_full(consumer), 1);
      barrier_init(shared.q_empty(consumer), 4);
      barrier_init(shared.d_out_full(consumer), 1);
      barrier_init(shared.d_out_empty(consumer), 4);
    }
    for (int stage = 0; stage < Tiling::k_stages; ++stage) {
      barrier_init(shared.k_full(stage), 1);
      barrier_init(shared.k_empty(stage), consumer_warps);
    }
    for (int stage = 0; stage < Tiling::v_stages; ++stage) {
      barrier_init(shared.v_full(stage), 1);
      barrier_init(shared.v_empty(stage), consumer_warps);
    }
    shared.ticket_desk().init(2 + consumer_warps);
    barrier_init_fence();
  }
  __syncthreads();
  let_next_grid_begin();
  const int warpgroup = warpgroup_index();
  if (warpgroup == 0) {
    give_registers<Tiling::producer_registers>();
    if (threadIdx.x == 0) backward_wide::load_keys_and_values(work);
    if (threadIdx.x == 32) backward_wide::load_queries(work);
    if (threadIdx.x == 64)
      WideQueriesShared().ticket_desk().serve(work.tickets[0], work.query_tiles);
  } else {
    take_registers<Tiling::consumer_registers>();
    backward_wide::sum_dq<Gradient, Alibi>(work, warpgroup - 1);
  }
}

}  // namespace sigtrain::kernels
