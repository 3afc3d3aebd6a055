#include "column_sums.h"
#include "launch.h"
#include "qk_norm_rope.h"
#include "vector.cuh"

namespace sigtrain::kernels {
namespace {

constexpr int block_threads = 256;

// A group of lanes, a power of two, works on one head: lane l of it on the elements 8 l of the
// first and of the second half, which rotate together. Lanes behind the end of the half stay idle.
int lanes_per_head(int head_dim) {
  int lanes = 1;
  while (lanes * 2 * vector_size < head_dim) lanes *= 2;
  return lanes;
}

__device__ inline float group_sum(float x, int lanes) {
  for (int offset = lanes / 2; offset > 0; offset /= 2)
    x += __shfl_xor_sync(0xffffffffu, x, offset);
  return x;
}

/// Heads [first, first + count) of every row, counted through.
struct HeadRange {
  int first, count;
};

/// Where a thread stands: which head of which row, and which of its elements. Heads are counted in
/// 32 bits, where division is cheap: 2^32 of them would not fit in any GPU's memory.
struct Place {
  __device__ Place(const QkShape& shape, const HeadRange& range, uint32_t item, int lane) {
    const int heads = shape.heads + shape.kv_heads;
    const uint32_t row = item / static_cast<uint32_t>(range.count);
    const int head = range.first + static_cast<int>(item % static_cast<uint32_t>(range.count));
    is_query = head < shape.heads;
    of_head = int64_t{row} * heads + head;
    in = (int64_t{row} * (heads + shape.kv_heads) + head) * shape.head_dim + lane * vector_size;
    out = of_head * shape.head_dim + lane * vector_size;
    angle =
        row % static_cast<uint32_t>(shape.seq_len) * int64_t{shape.head_dim} + lane * vector_size;
  }
  int64_t of_head, in, out, angle;
  bool is_query;
};

// (a, b) turned by the angles, or back.
__device__ inline void rotate(const float (&cosines)[8], const float (&sines)[8], float direction,
                              float (&a)[8], float (&b)[8]) {
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const float sine = direction * sines[i], x = a[i], y = b[i];
    a[i] = x * cosines[i] - y * sine;
    b[i] = y * cosines[i] + x * sine;
  }
}

/// The weight of a thread's elements and the angles of its position: in the first-level cache as a
/// rule, and loaded along with the data so that neither waits for the other.
struct Factors {
  __device__ Factors(const bf16* weight, const float* rope, const Place& place, int lane,
                     int half) {
    if (weight) {
      weight_a = load_raw(weight + lane * vector_size);
      weight_b = load_raw(weight + lane * vector_size + half);
    }
    if (rope) {
      load(rope + place.angle, cosines);
      load(rope + place.angle + half, sines);
    }
  }
  uint4 weight_a{}, weight_b{};
  float cosines[8] = {}, sines[8] = {};
};

// A thread has one part of one head: blocks that end make room for others.
__global__ void __launch_bounds__(block_threads) forward_kernel(QkNormRopeForward call, int lanes) {
  const QkShape& shape = call.shape;
  const int half = shape.head_dim / 2;
  const int lane = threadIdx.x % lanes;
  const HeadRange range{0, shape.heads + shape.kv_heads};
  const int64_t items = shape.rows * range.count, groups = block_threads / lanes;
  const int64_t item = blockIdx.x * groups + threadIdx.x / lanes;
  // Lanes without a head take part in the shuffles.
  const bool works = lane * vector_size < half && item < items;
  const Place place(shape, range, static_cast<uint32_t>(works ? item : 0), works ? lane : 0);
  const uint4 packed_a = load_raw(call.qkv + place.in);
  const uint4 packed_b = load_raw(call.qkv + place.in + half);
  const Factors factors(place.is_query ? call.q_weight : call.k_weight, call.rope, place,
                        works ? lane : 0, half);
  float a[8], b[8];
  unpack(packed_a, a);
  unpack(packed_b, b);
  if (call.q_weight) {
    float squares = 0.0f;
#pragma unroll
    for (int i = 0; i < 8; ++i) squares += a[i] * a[i] + b[i] * b[i];
    const float sum = group_sum(works ? squares : 0.0f, lanes);
    const float rstd = rsqrtf(sum / static_cast<float>(shape.head_dim) + shape.eps);
    if (works && lane == 0) call.rstd[place.of_head] = rstd;
    float wa[8], wb[8];
    unpack(factors.weight_a, wa);
    unpack(factors.weight_b, wb);
#pragma unroll
    for (int i = 0; i < 8; ++i) a[i] *= rstd * wa[i], b[i] *= rstd * wb[i];
  }
  if (!works) return;
  if (call.rope) rotate(factors.cosines, factors.sines, 1.0f, a, b);
  store(call.qk_out + place.out, a);
  store(call.qk_out + place.out + half, b);
}

// Adds what the groups of a block hold for the same elements, and writes [head_dim] sums.
__device__ inline void write_block_sums(float (&a)[8], float (&b)[8], int lanes, int half,
                                        float* shared, float* result) {
  const int lane = threadIdx.x % lanes, warp = threadIdx.x / 32, head_dim = 2 * half;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    for (int offset = lanes; offset < 32; offset *= 2) {
      a[i] += __shfl_xor_sync(0xffffffffu, a[i], offset);
      b[i] += __shfl_xor_sync(0xffffffffu, b[i], offset);
    }
  }
  if (threadIdx.x % 32 < lanes && lane * vector_size < half) {
    float* row = shared + warp * head_dim + lane * vector_size;
#pragma unroll
    for (int i = 0; i < 8; ++i) row[i] = a[i], row[half + i] = b[i];
  }
  __syncthreads();
  for (int d = threadIdx.x; d < head_dim; d += block_threads) {
    float sum = 0.0f;
#pragma unroll
    for (int w = 0; w < block_threads / 32; ++w) sum += shared[w * head_dim + d];
    result[d] = sum;
  }
}

// As many blocks as run at once, so that none waits for another to end.
constexpr int backward_blocks_per_multiprocessor = 3;

// With xhat = x rstd and dz the gradient before the rotation:
//   dx = rstd (dz weight - xhat * average of dz weight xhat).
template <bool kNorm>
__global__ void __launch_bounds__(block_threads, backward_blocks_per_multiprocessor)
    backward_kernel(QkNormRopeBackward call, int lanes, int query_blocks) {
  extern __shared__ float shared[];
  const QkShape& shape = call.shape;
  const int half = shape.head_dim / 2;
  const int lane = threadIdx.x % lanes;
  const bool active = lane * vector_size < half;
  const bool of_queries = blockIdx.x < query_blocks;
  const HeadRange range =
      of_queries ? HeadRange{0, shape.heads} : HeadRange{shape.heads, shape.kv_heads};
  const bf16* const weight = of_queries ? call.q_weight : call.k_weight;
  const int64_t block = of_queries ? blockIdx.x : blockIdx.x - query_blocks;
  const int64_t blocks = of_queries ? query_blocks : gridDim.x - query_blocks;
  const int64_t items = shape.rows * range.count, groups = block_threads / lanes;
  float sums_a[8] = {}, sums_b[8] = {};
  // Whole warps take every turn of the loop, since lanes without a head take part in the shuffles.
  for (int64_t first = block * groups; first < items; first += blocks * groups) {
    const int64_t item = first + threadIdx.x / lanes;
    const bool works = active && item < items;
    const Place place(shape, range, static_cast<uint32_t>(works ? item : 0), works ? lane : 0);
    uint4 packed_da{}, packed_db{}, packed_xa{}, packed_xb{};
    float rstd = 0.0f;
    if (works) {
      packed_da = load_raw(call.d_qkv + place.in);
      packed_db = load_raw(call.d_qkv + place.in + half);
      if constexpr (kNorm) {
        packed_xa = load_raw(call.qkv + place.in);
        packed_xb = load_raw(call.qkv + place.in + half);
        rstd = call.rstd[place.of_head];
      }
    }
    const Factors factors(kNorm ? weight : nullptr, call.rope, place, works ? lane : 0, half);
    float da[8], db[8];
    unpack(packed_da, da);
    unpack(packed_db, db);
    if (call.rope) rotate(factors.cosines, factors.sines, -1.0f, da, db);
    if constexpr (kNorm) {
      float xa[8], xb[8], wa[8], wb[8];
      unpack(packed_xa, xa);
      unpack(packed_xb, xb);
      unpack(factors.weight_a, wa);
      unpack(factors.weight_b, wb);
      float g_xhat = 0.0f;
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        xa[i] *= rstd, xb[i] *= rstd;
        const float sa = da[i] * xa[i], sb = db[i] * xb[i];
        sums_a[i] += sa, sums_b[i] += sb;
        g_xhat += sa * wa[i] + sb * wb[i];
      }
      const float mean = group_sum(g_xhat, lanes) / static_cast<float>(shape.head_dim);
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        da[i] = rstd * (da[i] * wa[i] - xa[i] * mean);
        db[i] = rstd * (db[i] * wb[i] - xb[i] * mean);
      }
    }
    if (works) {
      store(call.d_qkv + place.in, da);
      store(call.d_qkv + place.in + half, db);
    }
  }
  if constexpr (kNorm) {
    write_block_sums(sums_a, sums_b, lanes, half, shared,
                     call.partials + int64_t{blockIdx.x} * shape.head_dim);
  }
}

/// Blocks of the backward kernel: each works on queries or on keys alone, so that its threads keep
/// one weight's sums.
struct BackwardGrid {
  explicit BackwardGrid(const QkShape& shape) {
    const int all = grid_size(shape.rows * (shape.heads + shape.kv_heads),
                              block_threads / lanes_per_head(shape.head_dim),
                              backward_blocks_per_multiprocessor);
    queries = std::max<int>(
        1, static_cast<int>(int64_t{all} * shape.heads / (shape.heads + shape.kv_heads)));
    keys = std::max(1, all - queries);
  }
  int queries, keys;
};

}  // namespace

bool qk_norm_rope_supports(int64_t head_dim) {
  return head_dim > 0 && head_dim % (2 * vector_size) == 0 && head_dim <= 32 * 2 * vector_size;
}

void qk_norm_rope_forward(const QkNormRopeForward& call, cudaStream_t stream) {
  const QkShape& shape = call.shape;
  if (shape.rows <= 0) return;
  const int lanes = lanes_per_head(shape.head_dim);
  const int64_t grid = ceil_div(shape.rows * (shape.heads + shape.kv_heads), block_threads / lanes);
  forward_kernel<<<static_cast<unsigned>(grid), block_threads, 0, stream>>>(call, lanes);
}

void qk_norm_rope_backward(const QkNormRopeBackward& call, cudaStream_t stream) {
  const QkShape& shape = call.shape;
  if (shape.rows <= 0) return;
  const int lanes = lanes_per_head(shape.head_dim);
  const BackwardGrid sizes(shape);
  const int blocks = sizes.queries + sizes.keys;
  if (!call.q_weight) {
    // Without norm and rotation the gradients are what they were.
    if (call.rope) {
      backward_kernel<false><<<blocks, block_threads, 0, stream>>>(call, lanes, sizes.queries);
    }
    return;
  }
  const int64_t head_dim = shape.head_dim;
  const size_t shared = block_threads / 32 * head_dim * sizeof(float);
  backward_kernel<true><<<blocks, block_threads, shared, stream>>>(call, lanes, sizes.queries);
  add_partial_sums(
      {{call.partials, sizes.queries, head_dim, call.dq_weight},
       {call.partials + sizes.queries * head_dim, sizes.keys, head_dim, call.dk_weight}},
      head_dim, stream);
}

int64_t qk_norm_rope_backward_partials(const QkShape& shape) {
  const BackwardGrid sizes(shape);
  return int64_t{sizes.queries + sizes.keys} * shape.head_dim;
}

}  // namespace sigtrain::kernels
