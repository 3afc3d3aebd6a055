// Flash attention, forward: one block a tile of queries, all its keys in turn (FlashAttention-2,
// Dao 2023).
//
// A warp owns whole rows of logits, so its weights go from the first product to the second inside
// its registers, and no warp waits for another except for tiles of keys and values to arrive. Those
// are double-buffered: the next tile is on its way while this one is multiplied.
//
// Floors, for one head of T queries and keys: 4 T^2 D operations of tensor cores; T^2 exponentials
// (1.5 special-function operations an element for sigmoid, 1 for softmax, at 16 a clock); 8 T D
// bytes of global memory plus 4 T D for each tile of queries from L2.
#pragma once

#include "attention_geometry.cuh"
#include "attention_policy.cuh"
#include "attention_tiles_sm80.cuh"

namespace sigtrain::kernels {

/// How work is cut, by head dimension: a warp has `row_tiles` blocks of 16 queries, a tile `keys`
/// keys. Two row tiles halve the traffic from shared memory, which the 192 columns of the widest
/// head leave no registers for: output and logits of a thread take row_tiles * (head_dim + keys)
/// / 2. Up to head_dim 64 that is little enough for three blocks on a multiprocessor, so that the
/// tensor cores find work while some warps are at their exponentials.
template <int HeadDim>
struct ForwardTiling {
  static constexpr int warps = HeadDim > 128 ? 8 : 4;
  static constexpr int row_tiles = HeadDim > 128 ? 1 : 2;
  static constexpr int keys = 64;
  static constexpr int blocks_per_multiprocessor = HeadDim > 128 ? 1 : HeadDim > 64 ? 2 : 3;

  static constexpr int threads = warps * 32;
  static constexpr int queries = warps * row_tiles * 16;
  static constexpr int q_bytes = queries * HeadDim * 2;
  static constexpr int kv_bytes = keys * HeadDim * 2;
  static constexpr int shared_bytes = q_bytes + 4 * kv_bytes;
};

template <template <int> typename PolicyTemplate, int HeadDim, bool Alibi>
__global__ void __launch_bounds__(ForwardTiling<HeadDim>::threads,
                                  ForwardTiling<HeadDim>::blocks_per_multiprocessor)
    attention_forward_kernel(const AttentionForward call) {
  using Tiling = ForwardTiling<HeadDim>;
  using Policy = PolicyTemplate<Tiling::row_tiles>;
  constexpr int row_tiles = Tiling::row_tiles, key_tiles = Tiling::keys / 8;
  constexpr int out_tiles = HeadDim / 8;
  const AttentionShape& shape = call.shape;
  // The last queries see the most keys under a causal mask: the longest work begins first.
  const int tile = gridDim.x - 1 - blockIdx.x, head = blockIdx.y, batch = blockIdx.z;
  const int first_query = tile * Tiling::queries;
  const int kv_head = head / (shape.heads / shape.kv_heads);
  const VisibleBand band(shape, call.key_lengths, batch);
  const Interval tiles = band.key_tiles(first_query, Tiling::queries, Tiling::keys);
  const LogitFactors factors(call, head, Policy::exponent_sign);

  const HeadRows q(call.q, shape, batch, head), out(call.out, shape, batch, head);
  const HeadRows k(call.k, shape, batch, kv_head), v(call.v, shape, batch, kv_head);
  const SharedAddress q_tile = shared_memory();
  const SharedAddress kv_tiles = q_tile + Tiling::q_bytes;
  const auto fetch = [&](int key_tile, int buffer) {
    const SharedAddress to = kv_tiles + buffer * 2 * Tiling::kv_bytes;
    copy_rows_async<Tiling::keys, HeadDim, Tiling::threads>(to, k, key_tile * Tiling::keys,
                                                            band.keys);
    copy_rows_async<Tiling::keys, HeadDim, Tiling::threads>(to + Tiling::kv_bytes, v,
                                                            key_tile * Tiling::keys, band.keys);
  };

  copy_rows_async<Tiling::queries, HeadDim, Tiling::threads>(q_tile, q, first_query, shape.seq_len);
  if (tiles.begin < tiles.end) fetch(tiles.begin, 0);
  copy_async_commit();

  const int warp_row = warp_index() * row_tiles * 16;
  const int g = lane_index() >> 2, t = lane_index() & 3;
  float sums[row_tiles][out_tiles][4];
  set_zero(sums);
  Policy policy(call);

  int buffer = 0;
  for (int key_tile = tiles.begin; key_tile < tiles.end; ++key_tile, buffer ^= 1) {
    copy_async_wait();
    __syncthreads();  // this tile is here, and nobody reads the other buffer any more
    if (key_tile + 1 < tiles.end) fetch(key_tile + 1, buffer ^ 1);
    copy_async_commit();
    const int first_key = key_tile * Tiling::keys;
    const SharedAddress k_tile = kv_tiles + buffer * 2 * Tiling::kv_bytes;

    float weights[row_tiles][key_tiles][4];
    set_zero(weights);
    product_of_rows<HeadDim>(weights, q_tile, warp_row, k_tile, 0);

    const LogitPosition at{first_query + warp_row + g, first_key + 2 * t};
    const bool masked =
        band.needs_mask(first_query + warp_row, row_tiles * 16, first_key, Tiling::keys);
    if (masked)
      policy.template weigh<true, Alibi>(weights, sums, factors, band, at);
    else
      policy.template weigh<false, Alibi>(weights, sums, factors, band, at);

    uint32_t left[row_tiles][key_tiles / 2][4];
#pragma unroll
    for (int m = 0; m < row_tiles; ++m)
#pragma unroll
      for (int n = 0; n < key_tiles; n += 2)
        pack_left(left[m][n / 2], weights[m][n], weights[m][n + 1]);
    product_of_registers<HeadDim>(sums, left, k_tile + Tiling::kv_bytes, 0);
  }

  copy_async_wait();
  __syncthreads();  // where no key was visible, the copy of q is still arriving
  const int64_t statistics = (static_cast<int64_t>(batch) * shape.heads + head) * shape.seq_len;
#pragma unroll
  for (int m = 0; m < row_tiles; ++m) {
    float factor[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float row_sum = 0.0f, log_sum_exp = 0.0f;
      factor[half] = policy.finish(m, half, factors, row_sum, log_sum_exp);
      const int query = first_query + warp_row + m * 16 + half * 8 + g;
      if (t == 0 && query < shape.seq_len) {
        if (call.row_sum) call.row_sum[statistics + query] = row_sum;
        if (Policy::is_softmax && call.log_sum_exp)
          call.log_sum_exp[statistics + query] = log_sum_exp;
      }
    }
    // A warp's own rows of q, which only it has read, are the way to 16-byte writes.
    store_accumulators<HeadDim>(q_tile, warp_row + m * 16, sums[m], factor[0], factor[1]);
  }
  __syncwarp();
  write_rows<row_tiles * 16, HeadDim, 32>(q_tile, out, first_query + warp_row, shape.seq_len,
                                          warp_row, lane_index());
}

}  // namespace sigtrain::kernels
