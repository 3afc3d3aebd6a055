// FlashSigmoid, forward: attention on Hopper's warpgroup products and copy engine, for sigmoid and
// softmax alike.
//
// A block has one producer warpgroup, which does nothing but start copies (a warp for queries, a
// warp for keys and values, and one to draw the next tile), and two to four consumer warpgroups of
// 64 queries each. They talk through mbarriers: `full` when a tile has arrived, `empty` when every
// consumer is done with it. The grid is persistent: tiles of the next piece of work are on their
// way while this one ends, and its output leaves while the next one is begun.
//
// A consumer has two chunks of keys in hand, each with registers of its own. Its step, with S_c
// = Q K_c^T and P_c = weights of S_c:
//
//     weigh S_c: P_c                         while O += P_{c-1} V_{c-1} and S_{c+1} run
//     wait for both
//     issue O += P_c V_c and S_{c+2}         S_{c+2} where S_c was
//
// So what it waits for was issued a whole chunk's weights ago. (FlashAttention-3, Shah et al. 2024,
// has one product of each kind on its way, and waits for the logits as soon as they are issued.)
// What is issued together comes together: V_c and K_{c+2} lie in one stage. At head_dim 64 a stage
// holds a pair of chunks of each, and what it costs to wait for it and to find one's way in it is
// paid half as often: arithmetic of any kind takes time from the tensor cores (see
// attention_weights_sm90.cuh).
//
// ptxas lets products run on only if it can prove that nothing touches their registers, and proves
// it across a loop's end only if the wait is for all of them. It gives up where one of them is
// under a condition: the last two steps start logits too, of whatever the stage holds, for nobody.
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

/// How work is cut, by head dimension and number of consumers: what fits the registers (a consumer
/// thread has head_dim / 2 sums and, for each of two chunks, keys / 2 logits and keys / 4 packed
/// weights) and 227 KiB of shared memory. With four consumers chunks are half as long: one more
/// warp a scheduler hides more of what a tile takes to begin and to end, and costs every chunk's
/// overhead twice.
template <int HeadDim, int Consumers>
struct ForwardTilingSm90 {
  static constexpr int head_dim = HeadDim, consumers = Consumers, keys = consumers == 4 ? 32 : 64;
  /// Chunks of keys that arrive together: what a stage costs is shared by them.
  static constexpr int stage_chunks = HeadDim == 64 ? 2 : 1;
  static constexpr int stages = HeadDim == 64 ? 256 / keys : HeadDim == 128 ? 5 : 3;
  static constexpr int q_buffers = HeadDim == 192 ? 1 : 2;
  /// Queries as the left operand from registers: less to read from shared memory.
  static constexpr bool q_in_registers = HeadDim == 128;
  static constexpr int consumer_registers = consumers == 4 ? 112 : consumers == 3 ? 160 : 240;
  static constexpr int producer_registers = consumers == 2 ? 24 : 32;
  static_assert(registers_suffice(consumers, consumer_registers, producer_registers));

  static constexpr int stage_keys = stage_chunks * keys;
  /// Stages between a chunk's keys and its values.
  static constexpr int lag = 2 / stage_chunks;

  static constexpr int queries = consumers * 64;
  static constexpr int threads = (consumers + 1) * warpgroup_size;
  static constexpr int panels = HeadDim / 64;
  static constexpr int q_panel = 64 * 128, kv_panel = stage_keys * 128;
  static constexpr int q_bytes = panels * q_panel, kv_bytes = panels * kv_panel;
  static constexpr int barriers = 2 * consumers * q_buffers + 2 * stages;
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
  __device__ SharedAddress full(int stage) const {
    return barriers + (2 * Tiling::consumers * Tiling::q_buffers + stage) * 8;
  }
  __device__ SharedAddress empty(int stage) const { return full(stage) + Tiling::stages * 8; }
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

/// The first of the 64 queries of a tile that are a consumer's. Three or four consumers take turns
/// at the places, from head to head: where a sequence ends there may not be work for all of them.
/// (For two it gained nothing.)
template <typename Tiling>
__device__ __forceinline__ int own_first_query(const AttentionShape& shape, const WorkTile& at,
                                               int consumer) {
  const int turn = Tiling::consumers > 2 ? at.batch * shape.heads + at.head : 0;
  return at.tile * Tiling::queries + (consumer + turn) % Tiling::consumers * 64;
}

/// Stages that so many chunks of a tile take: values lag two chunks behind keys.
template <typename Tiling>
__device__ __forceinline__ int forward_stages(int chunks) {
  constexpr int per_stage = Tiling::stage_chunks;
  return chunks > 0 ? (chunks + per_stage - 1) / per_stage + Tiling::lag : 0;
}

template <typename Tiling>
__device__ void produce_queries(const ForwardWork& work) {
  const ForwardShared<Tiling> shared;
  RingPlace<Tiling::q_buffers> places[Tiling::consumers];
  TicketDesk desk = shared.ticket_desk();
  for (WorkTile at; desk.draw(at);) {
#pragma unroll
    for (int consumer = 0; consumer < Tiling::consumers; ++consumer) {
      const int first_query = own_first_query<Tiling>(work.call.shape, at, consumer);
      if (first_query >= work.call.shape.seq_len) continue;
      RingPlace<Tiling::q_buffers>& place = places[consumer];
      const SharedAddress full = shared.q_full(consumer, place.index);
      barrier_wait(shared.q_empty(consumer, place.index), place.parity ^ 1);
      barrier_expect(full, Tiling::q_bytes);
      for (int panel = 0; panel < Tiling::panels; ++panel)
        load_box(shared.q_tile(consumer, place.index) + panel * Tiling::q_panel, &work.maps.q,
                 panel * 64, at.head, first_query, at.batch, full);
      place.advance();
    }
  }
}

template <typename Tiling>
__device__ void produce_keys_and_values(const ForwardWork& work) {
  const ForwardShared<Tiling> shared;
  const AttentionShape& shape = work.call.shape;
  const int group = shape.heads / shape.kv_heads;
  RingPlace<Tiling::stages> place;
  TicketDesk desk = shared.ticket_desk();
  for (WorkTile at; desk.draw(at);) {
    const VisibleBand band(shape, work.call.key_lengths, at.batch);
    const Interval chunks =
        band.key_tiles(at.tile * Tiling::queries, Tiling::queries, Tiling::keys);
    const int steps = forward_stages<Tiling>(chunks.end - chunks.begin);
    for (int step = 0; step < steps; ++step, place.advance()) {
      const SharedAddress full = shared.full(place.index);
      const bool has_keys = step < steps - Tiling::lag, has_values = step >= Tiling::lag;
      barrier_wait(shared.empty(place.index), place.parity ^ 1);
      barrier_expect(full, (has_keys + has_values) * Tiling::kv_bytes);
      const auto load = [&](const CUtensorMap& map, SharedAddress to, int stage) {
        const int row = chunks.end * Tiling::keys - (stage + 1) * Tiling::stage_keys;
        for (int panel = 0; panel < Tiling::panels; ++panel)
          load_box(to + place.index * Tiling::kv_bytes + panel * Tiling::kv_panel, &map, panel * 64,
                   at.head / group, row, at.batch, full);
      };
      if (has_values) load(work.maps.v, shared.v, step - Tiling::lag);
      if (has_keys) load(work.maps.k, shared.k, step);
    }
  }
}

/// One of the products of 16 dimensions that s = Q K^T is the sum of.
template <typename Tiling>
__device__ __forceinline__ void add_logits(float (&s)[Tiling::keys / 2], uint64_t q,
                                           const uint32_t* q_registers, uint64_t k, int step) {
  k = advance(k, step / 4 * Tiling::kv_panel + step % 4 * 32);
  if constexpr (Tiling::q_in_registers)
    product<false>(s, q_registers + 4 * step, k, step > 0);
  else
    product<false, false>(s, advance(q, step / 4 * Tiling::q_panel + step % 4 * 32), k, step > 0);
}

/// Starts s = Q K^T.
template <typename Tiling>
__device__ __forceinline__ void start_logits(float (&s)[Tiling::keys / 2], uint64_t q,
                                             const uint32_t* q_registers, uint64_t k) {
  forget(s);
#pragma unroll
  for (int step = 0; step < Tiling::head_dim / 16; ++step)
    add_logits<Tiling>(s, q, q_registers, k, step);
}

/// Starts o += P V and s = Q K^T, a part of the one and of the other in turn, so that what one
/// waits for before it can be issued is computed while the other one is.
template <typename Tiling>
__device__ __forceinline__ void start_output_and_logits(float (&o)[Tiling::head_dim / 2],
                                                        uint32_t (&p)[Tiling::keys / 4], uint64_t v,
                                                        float (&s)[Tiling::keys / 2], uint64_t q,
                                                        const uint32_t* q_registers, uint64_t k) {
  forget(s);
#pragma unroll
  for (int part = 0; part < Tiling::keys / 16; ++part) {
    product<true>(o, p + part * 4, advance(v, part * 16 * 128), true);
#pragma unroll
    for (int step = part * Tiling::head_dim / Tiling::keys;
         step < (part + 1) * Tiling::head_dim / Tiling::keys; ++step)
      add_logits<Tiling>(s, q, q_registers, k, step);
  }
}

/// Zeros for the rows of a stage's values from `from` on: their weights are 0, but 0 times what
/// memory holds behind a sequence's keys need not be.
template <typename Tiling>
__device__ void clear_values(SharedAddress v, int from, int thread) {
  const int words = (Tiling::stage_keys - from) * 32;
  for (int panel = 0; panel < Tiling::panels; ++panel)
    for (int i = thread; i < words; i += warpgroup_size)
      store_shared(v + panel * Tiling::kv_panel + from * 128 + i * 4, 0u);
  fence_async_shared();
}

template <template <int, bool> typename WeightsOf, typename Tiling, bool Alibi>
__device__ void consume(const ForwardWork& work, int consumer) {
  constexpr int keys = Tiling::keys;
  using Weights = WeightsOf<keys, Alibi>;
  const int own_warps = 1 + consumer;  // the named barrier that unites them
  const AttentionForward& call = work.call;
  const AttentionShape& shape = call.shape;
  const ForwardShared<Tiling> shared;
  const int thread = static_cast<int>(threadIdx.x) % warpgroup_size;
  const int lane = lane_index(), warp = thread / 32;
  const int row = warp * 16 + (lane >> 2), column = 2 * (lane & 3);
  const bool speaks = lane == 0;  // for its warp, at the barriers

  RingPlace<Tiling::q_buffers> q_place;
  RingPlace<Tiling::stages> place;
  bool arrived = false;  // what was seen of the place's barrier before there was time to wait
  const auto take_stage = [&] {
    if (!arrived) barrier_wait(shared.full(place.index), place.parity);
  };
  const auto go_on = [&] {
    place.advance();
    arrived = barrier_test(shared.full(place.index), place.parity);
  };
  const auto give_back = [&](int stage) {
    if (speaks) barrier_arrive(shared.empty(stage));
  };

  TicketDesk desk = shared.ticket_desk();
  WorkTile next;
  bool has_next = desk.draw_in_warp(next);
  const auto draw_next = [&] {
    has_next = desk.draw_in_warp(next);
    compute_here(next.tile);
    compute_here(next.head);
    compute_here(next.batch);
  };
  // An output is on its way from a buffer of queries while the next tile is begun, so that nobody
  // waits for the copy to have read it.
  int leaving = -1;
  const auto give_back_queries = [&] {
    if (thread == 0 && leaving >= 0) {
      bulk_wait_read();
      barrier_arrive(shared.q_empty(consumer, leaving));
    }
    leaving = -1;
  };
  const auto pass_over = [&] {
    take_stage();
    __syncwarp();  // no lane may still wait for this phase when the next one ends
    give_back(place.index);
    go_on();
  };
  while (has_next) {
    const WorkTile at = next;
    const VisibleBand band(shape, call.key_lengths, at.batch);
    LogitFactors factors(call, at.head, 1.0f);
    factors.constant += Weights::exponent_offset;
    compute_here(factors.product);
    const int first_query = own_first_query<Tiling>(shape, at, consumer);
    const Interval chunks = band.key_tiles(at.tile * Tiling::queries, Tiling::queries, keys);
    const int all = forward_stages<Tiling>(chunks.end - chunks.begin);
    if (first_query >= shape.seq_len) {
      give_back_queries();
      draw_next();
      for (int step = 0; step < all; ++step) pass_over();
      continue;
    }
    // Chunks that only other consumers see are passed over.
    Interval own = band.key_tiles(first_query, 64, keys);
    // It begins where a stage does.
    if (own.begin < own.end) own.end += (chunks.end - own.end) % Tiling::stage_chunks;
    const int count = own.end - own.begin;
    const SharedAddress q = shared.q_tile(consumer, q_place.index);

    float o[Tiling::head_dim / 2], s[2][keys / 2];
    uint32_t p[2][keys / 4], q_registers[Tiling::head_dim / 4];
#pragma unroll
    for (float& x : o) x = 0.0f;
    pin(o);
    Weights weights(call);
    barrier_wait(shared.q_full(consumer, q_place.index), q_place.parity);
    if constexpr (Tiling::q_in_registers) {
      const SharedAddress rows = matrix_rows(q, warp * 16);
#pragma unroll
      for (int block = 0; block < Tiling::head_dim / 16; ++block)
        load_matrices(reinterpret_cast<uint32_t(&)[4]>(q_registers[4 * block]),
                      at_block(rows, block, Tiling::q_panel));
      pin(q_registers);
    }
    const int before = count > 0 ? (chunks.end - own.end) / Tiling::stage_chunks : all;
    const int after = all - before - forward_stages<Tiling>(count);
    for (int step = 0; step < before; ++step) pass_over();
    if (count > 0) {
      uint64_t q_operand = shared_operand(q), keys_operand = shared_operand(shared.k);
      uint64_t values_operand = shared_operand(shared.v, Tiling::kv_panel);
      if (!Tiling::q_in_registers) {  // computed here, and not anew in every step
        compute_here(q_operand);
        compute_here(keys_operand);
        compute_here(values_operand);
      }
      // Chunks of a stage are worked on by falling index.
      const auto chunk_at = [&](uint64_t operand, int stage, int half) {
        constexpr int last = Tiling::stage_chunks - 1;
        return advance(operand, stage * Tiling::kv_bytes + max(last - half, 0) * keys * 128);
      };
      const auto keys_at = [&](int stage, int half) { return chunk_at(keys_operand, stage, half); };
      const auto values_at = [&](int stage, int half) {
        return chunk_at(values_operand, stage, half);
      };
      const bool is_cut = band.keys < shape.seq_len && band.keys < own.end * keys;
      const Interval whole = band.whole_key_tiles(first_query, 64, keys);
      const int plain_begin = max(whole.begin, own.begin);
      const int plain_count = max(whole.end - plain_begin, 0);
      int chunk = own.end - 1;  // the next one to be weighed
      // True behind the last chunk too, so that the loop has one thing less to ask.
      const auto is_special = [&] {
        return static_cast<unsigned>(chunk - plain_begin) >= static_cast<unsigned>(plain_count) ||
               (Alibi && has_both_signs(first_query, 64, chunk * keys, keys));
      };
      const auto position = [&] { return LogitPosition{first_query + row, chunk * keys + column}; };
      int previous = place.index, here = place.index;
      // Starts the products of P of a chunk and of the keys of the second next one; `ready` is the
      // chunk between them.
      const auto multiply = [&](float(&s)[keys / 2], uint32_t(&p)[keys / 4],
                                float(&ready)[keys / 2], int half, bool is_first) {
        products_wait<0>();
        pin(ready);
        pin(o);
        weights.rescale(o);
        if (half == 0 || Tiling::stage_chunks == 1) {
          give_back(previous);
          take_stage();
          if (__builtin_expect(is_cut && is_first, 0)) {
            clear_values<Tiling>(shared.v + place.index * Tiling::kv_bytes,
                                 band.keys - own.end * keys + Tiling::stage_keys, thread);
            named_sync(own_warps, warpgroup_size);
          }
          here = place.index;
          go_on();  // the answer is here before the products are under way
          previous = here;
        }
        --chunk;
        pin(p);
        products_begin();
        start_output_and_logits<Tiling>(o, p, values_at(here, half), s, q_operand, q_registers,
                                        keys_at(here, half));
        products_commit();
      };
      take_stage();
      products_begin();
      start_logits<Tiling>(s[0], q_operand, q_registers, keys_at(place.index, 0));
      products_commit();
      if (Tiling::stage_chunks == 1) {
        go_on();
        take_stage();
        products_wait<0>();
        pin(s[0]);
        give_back(previous);
        previous = place.index;
        if (count > 1) {
          products_begin();
          start_logits<Tiling>(s[1], q_operand, q_registers, keys_at(place.index, 1));
        }
        products_commit();
      } else {
        start_logits<Tiling>(s[1], q_operand, q_registers, keys_at(place.index, 1));
        products_commit();
        products_wait<1>();
        pin(s[0]);
      }
      go_on();
      give_back_queries();
      if (is_special())
        prepare_logits<true, Alibi>(s[0], factors, band, position());
      else
        prepare_logits<false, Alibi>(s[0], factors, band, position());
      for (bool is_first = true;; is_first = false) {
        weights.weigh(p[0], s[0], factors);
        multiply(s[0], p[0], s[1], 0, is_first);
        if (is_special()) {
          if (chunk < own.begin) break;
          prepare_logits<true, Alibi>(s[1], factors, band, position());
        } else {
          prepare_logits<false, Alibi>(s[1], factors, band, position());
        }
        weights.weigh(p[1], s[1], factors);
        multiply(s[1], p[1], s[0], 1, false);
        if (is_special()) {
          if (chunk < own.begin) break;
          prepare_logits<true, Alibi>(s[0], factors, band, position());
        } else {
          prepare_logits<false, Alibi>(s[0], factors, band, position());
        }
      }
      draw_next();
      products_wait<0>();
      pin(o);
      give_back(previous);
    } else {
      give_back_queries();
      draw_next();
    }
    for (int step = 0; step < after; ++step) pass_over();

    // The output goes where the consumer's own queries were, which only it has read.
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
    named_sync(own_warps, warpgroup_size);  // all of its products have read them
    const auto complete = [&](int half, float sum) {
      return fmaf(sum, factor[half], 0.0f);  // and not -0 where sigmoid's negative factor meets 0
    };
    const SharedAddress out_rows = matrix_rows(q, warp * 16);
#pragma unroll
    for (int block = 0; block < Tiling::head_dim / 16; ++block) {
      const float* x = o + 8 * block;
      store_matrices(at_block(out_rows, block, Tiling::q_panel),
                     pack_bf16(complete(0, x[0]), complete(0, x[1])),
                     pack_bf16(complete(1, x[2]), complete(1, x[3])),
                     pack_bf16(complete(0, x[4]), complete(0, x[5])),
                     pack_bf16(complete(1, x[6]), complete(1, x[7])));
    }
    fence_async_shared();
    named_sync(own_warps, warpgroup_size);
    if (thread == 0) {
      for (int panel = 0; panel < Tiling::panels; ++panel)
        store_box(&work.maps.out, q + panel * Tiling::q_panel, panel * 64, at.head, first_query,
                  at.batch);
      bulk_commit();
    }
    leaving = q_place.index;
    if (Tiling::q_buffers == 1) give_back_queries();
    q_place.advance();
  }
  if (thread == 0) bulk_wait();
}

}  // namespace forward_sm90

template <template <int, bool> typename Weights, typename Tiling, bool Alibi>
__global__ void __launch_bounds__(Tiling::threads, 1)
    attention_sm90_forward_kernel(const __grid_constant__ ForwardWork work) {
  if (threadIdx.x == 0) {
    const ForwardShared<Tiling> shared;
    for (int buffer = 0; buffer < Tiling::q_buffers; ++buffer) {
      for (int consumer = 0; consumer < Tiling::consumers; ++consumer) {
        barrier_init(shared.q_full(consumer, buffer), 1);
        barrier_init(shared.q_empty(consumer, buffer), 1);
      }
    }
    for (int stage = 0; stage < Tiling::stages; ++stage) {
      barrier_init(shared.full(stage), 1);
      barrier_init(shared.empty(stage), Tiling::consumers * 4);
    }
    shared.ticket_desk().init(2 + Tiling::consumers * 4);
    barrier_init_fence();
  }
  __syncthreads();
  const int warpgroup = warpgroup_index();
  if (warpgroup == 0) {
    give_registers<Tiling::producer_registers>();
    if (threadIdx.x == 0) forward_sm90::produce_keys_and_values<Tiling>(work);
    if (threadIdx.x == 32) forward_sm90::produce_queries<Tiling>(work);
    if (threadIdx.x == 64)
      ForwardShared<Tiling>().ticket_desk().serve(work.call.tickets, work.order);
  } else {
    take_registers<Tiling::consumer_registers>();
    forward_sm90::consume<Weights, Tiling, Alibi>(work, warpgroup - 1);
  }
}

}  // namespace sigtrain::kernels
