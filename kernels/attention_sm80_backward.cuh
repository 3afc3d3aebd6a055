// Flash attention, backward, in one pass over pairs of tiles and the same bits every time.
//
// A block owns a tile of keys and goes through the queries that see it, of all heads that share the
// keys: S^T = K Q^T, dP^T = V dO^T, dV += P^T dO, dK += dS^T Q, and a share dS K of dQ.
//
// What limits these products is how often warps read their operands from shared memory: the more
// rows a warp owns, the less. Rows are limited by the registers for their sums, so dV and dK belong
// to different warps, and each warp owns twice the rows it could own of both:
//
//     weight warps                          gradient warps
//     S^T, P                                dQ of the step before, dP^T
//     ------------------- slopes: weight warps only arrive -------------------
//     fetch the next queries, dV, turns     dS, dK
//     ----------------------------- end of the step --------------------------
//
// Warp w of either group owns the same keys. The logits are transposed so that P^T and dS^T go from
// one product to the next inside registers. From group to group, through shared memory, goes the
// slope, dS = slope (dP - D): P for softmax, P (1 - P) for sigmoid, rounded to bf16. While one
// group is at its exponentials, the other has work for the tensor cores.
//
// The shares of dQ come from different blocks. Adding them in whatever order blocks happen to
// arrive would give other bits each time; a second pass over all pairs would cost 7 products
// instead of 5, and partial buffers a multiple of dQ. So shares are added in the order of keys:
// each tile of queries has a counter of the shares added so far, and a block waits for its turn.
// - A block depends only on blocks that drew an earlier ticket, and those are running or done:
//   there is always one that need not wait, so nothing can come to a halt.
// - Blocks start a few steps apart and stay so; a turn has nearly always come before it is needed.
// - The first share is written and the last one becomes the bf16 result on its way, so that
//   nothing has to be zeroed before or converted afterwards.
// - Sums lie in the order of the accumulators, not of rows: whole 128-byte lines are added at once.
//
// Floors, for one head of T queries and keys: 10 T^2 D operations of tensor cores; T^2 exponentials
// (1.5 special-function operations an element for sigmoid, 1 for softmax); 8 T D bytes of dQ sums
// in L2 for each tile of keys, and as many of Q and dO.
#pragma once

#include "attention_geometry.cuh"
#include "attention_policy.cuh"
#include "attention_row_sums.cuh"
#include "attention_tiles_sm80.cuh"

namespace sigtrain::kernels {

/// How work is cut, by head dimension. A warp of either group owns `row_tiles` blocks of 16 keys:
/// its sums of dV or dK take row_tiles * head_dim / 2 registers a thread, logits or their gradients
/// row_tiles * chunk / 2, a share of dQ queries * head_dim / 128 / dq_passes. One block fills a
/// multiprocessor's registers; shared memory is what compute capability 8.0 has for it, 163 KiB.
template <int HeadDim>
struct BackwardTiling {
  static constexpr int group_warps = 4, group_threads = group_warps * 32;
  static constexpr int row_tiles = HeadDim > 64 ? 2 : 4;
  static constexpr int queries = HeadDim > 128 ? 32 : 64;
  static constexpr int chunk = HeadDim > 64 && HeadDim <= 128 ? 64 : 32;
  static constexpr int dq_passes = HeadDim > 96 ? 2 : 1;

  static constexpr int threads = 2 * group_threads;
  static constexpr int keys = group_warps * row_tiles * 16;
  static constexpr int kv_bytes = keys * HeadDim * 2;
  static constexpr int q_bytes = queries * HeadDim * 2;
  static constexpr int ds_bytes = keys * queries * 2;
  static constexpr int slope_bytes = keys * queries * 2;
  static constexpr int statistics_bytes = queries * 8;
  static constexpr int turns_bytes = 16;
  /// K, V, two buffers of Q, dO and statistics, dS, slopes, Turns' words, a word for each warp of a
  /// group.
  static constexpr int shared_bytes = 2 * kv_bytes + 2 * (2 * q_bytes + statistics_bytes) +
                                      ds_bytes + slope_bytes + turns_bytes + group_warps * 4;
  static_assert(shared_bytes <= 163 * 1024);
};

/// The workspace and the order of work; see attention_sm80_backward.cu for its layout.
struct BackwardWork {
  float* dq_sums;        // [batch, heads, query_tiles, queries * head_dim]
  float* statistics;     // softmax: [batch, heads, query_tiles * queries, 2]
  float* bias_partials;  // [heads, batch, key_tiles]
  int* turns;            // [batch, heads, query_tiles]: shares of dQ added so far
  int* ticket;           // blocks begun so far
  int query_tiles, key_tiles;
  int pairs_at_once;  // (sequence, key head) pairs whose key tiles are handed out in turn
};

/// Before the pass: counters to 0; dQ to 0 where no key is visible; for softmax the statistics of
/// each query. A query without keys gets +inf, which makes all its weights 0.
template <typename Gradient, int HeadDim>
__global__ void __launch_bounds__(128)
    attention_backward_prepare_kernel(const AttentionBackward call, const BackwardWork work) {
  using Tiling = BackwardTiling<HeadDim>;
  const AttentionShape& shape = call.forward.shape;
  const int tile = blockIdx.x, head = blockIdx.y, batch = blockIdx.z;
  const int64_t batch_head = static_cast<int64_t>(batch) * shape.heads + head;
  const int first_query = tile * Tiling::queries;
  if (threadIdx.x == 0) {
    work.turns[batch_head * work.query_tiles + tile] = 0;
    if (tile == 0 && batch_head == 0) *work.ticket = 0;
  }
  const VisibleBand band(shape, call.forward.key_lengths, batch);
  const Interval tiles = band.key_tiles(first_query, Tiling::queries, Tiling::keys);
  if (tiles.begin >= tiles.end) {
    const HeadRows dq(call.dq, shape, batch, head);
    for (int i = threadIdx.x; i < Tiling::queries * HeadDim / 8; i += 128) {
      const int query = first_query + i / (HeadDim / 8);
      if (query < shape.seq_len)
        *reinterpret_cast<uint4*>(dq.row(query) + i % (HeadDim / 8) * 8) = uint4{0, 0, 0, 0};
    }
  }
  if constexpr (Gradient::is_softmax) {
    const int lane = threadIdx.x & 3;
    for (int i = threadIdx.x >> 2; i < Tiling::queries; i += 32) {
      const int query = first_query + i;
      const float2 statistics = query_statistics<HeadDim>(call, batch, head, query, lane);
      if (lane == 0) {
        const int64_t row = (batch_head * work.query_tiles + tile) * Tiling::queries + i;
        reinterpret_cast<float2*>(work.statistics)[row] = statistics;
      }
    }
  }
}

/// A block's place in the order of dQ's shares. Turns to be passed on lie in shared memory as
/// [tile, shares then added]: the thread that adds is not the one that waits, and others would
/// spend registers on it. Two of them, for steps of either parity.
class Turns {
 public:
  static constexpr int no_tile = -1;

  __device__ Turns(int* turns, SharedAddress kept) : turns_(turns), kept_(kept) {}
  __device__ void clear(int slot) const {
    store_shared(kept_ + slot * 8, static_cast<uint32_t>(no_tile));
  }

  /// Shares of the tile added so far: looked up early, so that the answer is here when needed.
  __device__ int look(int tile) const { return load_relaxed(turns_ + tile); }
  /// Passes on the turn kept in the slot, then waits until `shares` have been added to the tile,
  /// having `seen` some earlier. One fence does for both unless there was a wait.
  __device__ void pass_and_wait(int slot, int tile, int shares, int seen) const {
    const bool fenced = pass(slot);
    if (shares == 0 || (seen == shares && fenced)) return;
    while (seen != shares) seen = load_relaxed(turns_ + tile);
    fence_device();
  }
  __device__ void keep(int slot, int tile, int shares) const {
    store_shared(kept_ + slot * 8, static_cast<uint32_t>(tile));
    store_shared(kept_ + slot * 8 + 4, static_cast<uint32_t>(shares));
  }
  /// Passes on the turn that was kept, if any, after a barrier with those who added.
  __device__ bool pass(int slot) const {
    const int tile = static_cast<int>(load_shared(kept_ + slot * 8));
    if (tile == no_tile) return false;
    fence_device();
    store_relaxed(turns_ + tile, static_cast<int>(load_shared(kept_ + slot * 8 + 4)));
    clear(slot);
    return true;
  }

 private:
  int* turns_;
  SharedAddress kept_;
};

/// One step of a block: a head that shares the block's keys, and a tile of its queries.
struct BackwardStep {
  int head, tile;
  __device__ void advance(const Interval& tiles) {
    if (++tile == tiles.end) {
      tile = tiles.begin;
      ++head;
    }
  }
};

/// Numbers of barriers; 0 is the whole block's. Each chunk has its own for slopes.
constexpr int slopes_barrier = 1, gradients_barrier = 3;

template <typename Gradient, int HeadDim, bool Alibi>
__global__ void __launch_bounds__(BackwardTiling<HeadDim>::threads, 1)
    attention_backward_kernel(const AttentionBackward call, const BackwardWork work) {
  using Tiling = BackwardTiling<HeadDim>;
  using QueryTile = SharedTile<Tiling::queries>;
  constexpr int row_tiles = Tiling::row_tiles, out_tiles = HeadDim / 8;
  constexpr int chunk_tiles = Tiling::chunk / 8, chunks = Tiling::queries / Tiling::chunk;
  static_assert(chunks <= 2, "there are two barriers for slopes");
  const AttentionShape& shape = call.forward.shape;

  const SharedAddress k_tile = shared_memory(), v_tile = k_tile + Tiling::kv_bytes;
  const SharedAddress q_tiles = v_tile + Tiling::kv_bytes;
  const SharedAddress d_out_tiles = q_tiles + 2 * Tiling::q_bytes;
  const SharedAddress ds_tile = d_out_tiles + 2 * Tiling::q_bytes;
  const SharedAddress slopes = ds_tile + Tiling::ds_bytes;
  const SharedAddress statistics_tiles = slopes + Tiling::slope_bytes;
  const SharedAddress kept_turns = statistics_tiles + 2 * Tiling::statistics_bytes;
  const SharedAddress warp_words = kept_turns + Tiling::turns_bytes;

  if (threadIdx.x == 0) store_shared(warp_words, static_cast<uint32_t>(atomicAdd(work.ticket, 1)));
  __syncthreads();
  const int ticket = static_cast<int>(load_shared(warp_words));
  const int group_tickets = work.pairs_at_once * work.key_tiles;
  const int first_pair = ticket / group_tickets * work.pairs_at_once;
  const int pairs = min(work.pairs_at_once, shape.batch * shape.kv_heads - first_pair);
  const int key_tile = ticket % group_tickets / pairs;
  const int pair = first_pair + ticket % group_tickets % pairs;
  const int batch = pair / shape.kv_heads, kv_head = pair % shape.kv_heads;
  const int group = shape.heads / shape.kv_heads;
  const int first_key = key_tile * Tiling::keys;

  const VisibleBand band(shape, call.forward.key_lengths, batch);
  const Interval tiles = band.query_tiles(first_key, Tiling::keys, Tiling::queries);
  const int steps = max(tiles.end - tiles.begin, 0) * group;

  const auto fetch = [&](const BackwardStep& step, int buffer) {
    const int first = step.tile * Tiling::queries;
    copy_rows_async<Tiling::queries, HeadDim, Tiling::group_threads>(
        q_tiles + buffer * Tiling::q_bytes, HeadRows(call.forward.q, shape, batch, step.head),
        first, shape.seq_len);
    copy_rows_async<Tiling::queries, HeadDim, Tiling::group_threads>(
        d_out_tiles + buffer * Tiling::q_bytes, HeadRows(call.d_out, shape, batch, step.head),
        first, shape.seq_len);
    if (Gradient::is_softmax && threadIdx.x < Tiling::statistics_bytes / 16) {
      const int64_t tile =
          (static_cast<int64_t>(batch) * shape.heads + step.head) * work.query_tiles + step.tile;
      copy_async_16(statistics_tiles + buffer * Tiling::statistics_bytes + threadIdx.x * 16,
                    work.statistics + tile * Tiling::queries * 2 + threadIdx.x * 4, true);
    }
  };

  const bool is_gradient_warp = warp_index() >= Tiling::group_warps;
  const int warp = warp_index() % Tiling::group_warps, warp_key = warp * row_tiles * 16;
  const int lane = lane_index(), g = lane >> 2, t = lane & 3;
  const int group_thread = threadIdx.x % Tiling::group_threads;
  const auto slopes_of = [&](int m, int k) {
    return slopes + (((warp * row_tiles + m) * (Tiling::queries / 16) + k) * 32 + lane) * 16;
  };

  float sums[row_tiles][out_tiles][4];  // of dV or dK
  set_zero(sums);
  float bias_sum = 0.0f;
  const Turns turns(work.turns, kept_turns);
  if (threadIdx.x == 0) {
    turns.clear(0);
    turns.clear(1);
  }

  /// dS K of a step whose dS is complete, added to dQ: it is this block's turn.
  const auto add_dq = [&](const BackwardStep& step, int slot) {
    constexpr int query_warps = 2, dq_rows = Tiling::queries / query_warps / 16;
    constexpr int column_warps = Tiling::group_warps / query_warps;
    constexpr int dq_tiles = HeadDim / column_warps / Tiling::dq_passes / 8;
    const int first_query = step.tile * Tiling::queries;
    const int dq_tile = (batch * shape.heads + step.head) * work.query_tiles + step.tile;
    const Interval shares = band.key_tiles(first_query, Tiling::queries, Tiling::keys);
    const bool is_first = key_tile == shares.begin, is_last = key_tile == shares.end - 1;
    const int dq_row = warp % query_warps * dq_rows * 16;
#pragma unroll
    for (int pass = 0; pass < Tiling::dq_passes; ++pass) {
      const int dq_column = (warp / query_warps * Tiling::dq_passes + pass) * dq_tiles * 8;
      float4* dq_sums =
          reinterpret_cast<float4*>(work.dq_sums + int64_t{dq_tile} * Tiling::queries * HeadDim) +
          pass * dq_rows * dq_tiles * Tiling::group_threads + group_thread;
      float dq[dq_rows][dq_tiles][4];
      const auto for_each_share = [&](auto body) {
#pragma unroll
        for (int m = 0; m < dq_rows; ++m)
#pragma unroll
          for (int n = 0; n < dq_tiles; ++n)
            body(dq[m][n], dq_sums + (m * dq_tiles + n) * Tiling::group_threads);
      };
      if (is_last && !is_first) {
        for_each_share([](float(&share)[4], const float4* sum) {
          const float4 others = __ldcg(sum);
          share[0] = others.x, share[1] = others.y, share[2] = others.z, share[3] = others.w;
        });
      } else {
        set_zero(dq);
      }
#pragma unroll
      for (int key = 0; key < Tiling::keys; key += 16) {
        uint32_t left[dq_rows][4];
#pragma unroll
        for (int m = 0; m < dq_rows; ++m)
          QueryTile::load_left_transposed(left[m], ds_tile, dq_row + m * 16, key);
#pragma unroll
        for (int n = 0; n < dq_tiles; n += 2) {
          uint32_t right[4];
          SharedTile<HeadDim>::load_right(right, k_tile, key, dq_column + n * 8);
#pragma unroll
          for (int m = 0; m < dq_rows; ++m) {
            multiply_add(dq[m][n], left[m], right[0], right[1]);
            multiply_add(dq[m][n + 1], left[m], right[2], right[3]);
          }
        }
      }
      if (is_last) {
        const HeadRows rows(call.dq, shape, batch, step.head);
#pragma unroll
        for (int m = 0; m < dq_rows; ++m) {
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            const int query = first_query + dq_row + m * 16 + half * 8 + g;
            if (query < shape.seq_len) {
#pragma unroll
              for (int n = 0; n < dq_tiles; ++n)
                *reinterpret_cast<uint32_t*>(rows.row(query) + dq_column + n * 8 + 2 * t) =
                    pack_bf16(dq[m][n][2 * half] * shape.scale,
                              dq[m][n][2 * half + 1] * shape.scale);
            }
          }
        }
      } else if (is_first) {
        for_each_share([](const float(&share)[4], float4* sum) {
          __stcg(sum, float4{share[0], share[1], share[2], share[3]});
        });
      } else {
        for_each_share([](const float(&share)[4], float4* sum) {
          add_global(reinterpret_cast<float*>(sum), float4{share[0], share[1], share[2], share[3]});
        });
      }
    }
    if (!is_last && group_thread == 0) turns.keep(slot, dq_tile, key_tile - shares.begin + 1);
  };

  copy_rows_async<Tiling::keys, HeadDim, Tiling::threads>(
      k_tile, HeadRows(call.forward.k, shape, batch, kv_head), first_key, band.keys);
  copy_rows_async<Tiling::keys, HeadDim, Tiling::threads>(
      v_tile, HeadRows(call.forward.v, shape, batch, kv_head), first_key, band.keys);
  BackwardStep step{kv_head * group, tiles.begin}, last_step = step;
  if (steps > 0 && !is_gradient_warp) fetch(step, 0);
  copy_async_commit();
  copy_async_wait();
  __syncthreads();

  for (int i = 0;; ++i) {
    const int buffer = i & 1;
    if (is_gradient_warp && i > 0) add_dq(last_step, buffer);
    if (i == steps) break;
    const SharedAddress q_tile = q_tiles + buffer * Tiling::q_bytes;
    const SharedAddress d_out_tile = d_out_tiles + buffer * Tiling::q_bytes;
    const SharedAddress statistics =
        statistics_tiles + buffer * Tiling::statistics_bytes + 2 * t * 8;
    if (!is_gradient_warp) {
      const int first_query = step.tile * Tiling::queries;
      const int dq_tile = (batch * shape.heads + step.head) * work.query_tiles + step.tile;
      const int seen = threadIdx.x == 0 ? turns.look(dq_tile) : 0;
      const LogitFactors factors(call.forward, step.head, Gradient::exponent_sign);
      const bool masked =
          band.needs_mask(first_query, Tiling::queries, first_key + warp_key, row_tiles * 16);
#pragma unroll
      for (int c = 0; c < chunks; ++c) {
        const int row = c * Tiling::chunk;
        float p[row_tiles][chunk_tiles][4];
        set_zero(p);
        product_of_rows<HeadDim>(p, k_tile, warp_key, q_tile, row);
        const TransposedPosition at{first_query + row + 2 * t, first_key + warp_key + g};
        if (masked)
          Gradient::template weigh<true, Alibi>(p, factors, band, at, statistics + row * 8);
        else
          Gradient::template weigh<false, Alibi>(p, factors, band, at, statistics + row * 8);
        uint32_t p_left[row_tiles][chunk_tiles / 2][4];
#pragma unroll
        for (int m = 0; m < row_tiles; ++m) {
#pragma unroll
          for (int n = 0; n < chunk_tiles; n += 2) {
            float(&p0)[4] = p[m][n];
            float(&p1)[4] = p[m][n + 1];
            pack_left(p_left[m][n / 2], p0, p1);
            if constexpr (Gradient::is_softmax) {
              store_shared_16(slopes_of(m, (row + n * 8) / 16), p_left[m][n / 2]);
            } else {
#pragma unroll
              for (int e = 0; e < 4; ++e) {
                p0[e] = Gradient::slope(p0[e]);
                p1[e] = Gradient::slope(p1[e]);
              }
              uint32_t packed[4];
              pack_left(packed, p0, p1);
              store_shared_16(slopes_of(m, (row + n * 8) / 16), packed);
            }
          }
        }
        if (c == 0)
          arrive_at<slopes_barrier, Tiling::threads>();
        else
          arrive_at<slopes_barrier + 1, Tiling::threads>();
        if (c == 0 && i + 1 < steps) {
          BackwardStep next = step;
          next.advance(tiles);
          fetch(next, buffer ^ 1);
        }
        copy_async_commit();
        product_of_registers<HeadDim>(sums, p_left, d_out_tile, row);
      }
      if (threadIdx.x == 0) {
        const Interval shares = band.key_tiles(first_query, Tiling::queries, Tiling::keys);
        turns.pass_and_wait(buffer ^ 1, dq_tile, key_tile - shares.begin, seen);
      }
    } else {
#pragma unroll
      for (int c = 0; c < chunks; ++c) {
        const int row = c * Tiling::chunk;
        float ds[row_tiles][chunk_tiles][4];
        set_zero(ds);
        product_of_rows<HeadDim>(ds, v_tile, warp_key, d_out_tile, row);
        if (c == 0)
          wait_at<slopes_barrier, Tiling::threads>();
        else
          wait_at<slopes_barrier + 1, Tiling::threads>();
#pragma unroll
        for (int n = 0; n < chunk_tiles; n += 2) {
          float4 of[2] = {};
          if constexpr (Gradient::is_softmax) {
            of[0] = load_shared_float4(statistics + (row + n * 8) * 8);
            of[1] = load_shared_float4(statistics + (row + n * 8 + 8) * 8);
          }
#pragma unroll
          for (int m = 0; m < row_tiles; ++m) {
            uint32_t slope[4];
            load_shared_16(slope, slopes_of(m, (row + n * 8) / 16));
#pragma unroll
            for (int j = 0; j < 4; ++j) {
              float* pair = &ds[m][n + (j >> 1)][(j & 1) * 2];
              pair[0] = Gradient::logit_gradient(low_bf16(slope[j]), pair[0], of[j >> 1].y);
              pair[1] = Gradient::logit_gradient(high_bf16(slope[j]), pair[1], of[j >> 1].w);
            }
          }
        }
        if (call.d_head_bias) {
#pragma unroll
          for (int m = 0; m < row_tiles; ++m)
#pragma unroll
            for (int n = 0; n < chunk_tiles; ++n)
#pragma unroll
              for (int e = 0; e < 4; ++e) bias_sum += ds[m][n][e];
        }
        uint32_t ds_left[row_tiles][chunk_tiles / 2][4];
#pragma unroll
        for (int m = 0; m < row_tiles; ++m) {
#pragma unroll
          for (int n = 0; n < chunk_tiles; n += 2) {
            uint32_t(&pairs)[4] = ds_left[m][n / 2];
            pack_left(pairs, ds[m][n], ds[m][n + 1]);
#pragma unroll
            for (int j = 0; j < 4; ++j)
              QueryTile::store_pair(ds_tile, warp_key + m * 16 + g + (j & 1) * 8,
                                    row + (n + (j >> 1)) * 8 + 2 * t, pairs[j]);
          }
        }
        product_of_registers<HeadDim>(sums, ds_left, q_tile, row);
      }
      if (call.d_head_bias && step.tile == tiles.end - 1) {
        const float warp_sum = sum_lanes<31>(bias_sum);
        bias_sum = 0.0f;
        if (lane == 0) store_shared(warp_words + warp * 4, warp_sum);
        wait_at<gradients_barrier, Tiling::group_threads>();
        if (group_thread == 0) {
          float total = 0.0f;
#pragma unroll
          for (int w = 0; w < Tiling::group_warps; ++w)
            total += __uint_as_float(load_shared(warp_words + w * 4));
          work.bias_partials[(static_cast<int64_t>(step.head) * shape.batch + batch) *
                                 work.key_tiles +
                             key_tile] = total;
        }
      }
    }
    last_step = step;
    step.advance(tiles);
    copy_async_wait();
    __syncthreads();  // the next queries are here; nobody reads these any more; dS is complete
  }

  if (threadIdx.x == 0) turns.pass((steps & 1) ^ 1);
  __syncthreads();  // nobody reads keys any more: their tiles are the way to 16-byte writes
  if (is_gradient_warp && group_thread == 0) turns.pass(steps & 1);  // which it kept itself
  if (threadIdx.x == 0 && call.d_head_bias && steps == 0) {
    for (int head = kv_head * group; head < (kv_head + 1) * group; ++head)
      work.bias_partials[(static_cast<int64_t>(head) * shape.batch + batch) * work.key_tiles +
                         key_tile] = 0.0f;
  }
  const SharedAddress out_tile = is_gradient_warp ? k_tile : v_tile;
  const float factor = is_gradient_warp ? shape.scale : 1.0f;
#pragma unroll
  for (int m = 0; m < row_tiles; ++m)
    store_accumulators<HeadDim>(out_tile, warp_key + m * 16, sums[m], factor, factor);
  __syncwarp();
  write_rows<row_tiles * 16, HeadDim, 32>(
      out_tile, HeadRows(is_gradient_warp ? call.dk : call.dv, shape, batch, kv_head),
      first_key + warp_key, shape.seq_len, warp_key, lane);
}

}  // namespace sigtrain::kernels
