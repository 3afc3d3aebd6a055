#include "embedding.h"
#include "launch.h"
#include "vector.cuh"

namespace sigtrain::kernels {
namespace {

constexpr int block_threads = 256, block_warps = block_threads / 32;
constexpr int strip_columns = 32 * vector_size;  // of a warp

/// Columns of a matrix in strips of 256, one for a warp.
template <bool kAligned>
struct Strip {
  __device__ Strip(int64_t index, int64_t width)
      : first(index * strip_columns),
        part{static_cast<int>(threadIdx.x % 32), 32,
             static_cast<int>(min(width - first, int64_t{strip_columns}))} {}
  int64_t first;
  RowPart<kAligned> part;
};

// A warp copies a row, or 2048 columns of it, all its loads in flight together.
constexpr int forward_vectors = 8, forward_columns = forward_vectors * strip_columns;

template <bool kAligned>
__global__ void __launch_bounds__(block_threads) forward_kernel(EmbeddingForward call) {
  const int64_t row = int64_t{blockIdx.x} * block_warps + threadIdx.x / 32;
  if (row >= call.rows) return;
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int64_t first = int64_t{blockIdx.y} * forward_columns;
  const TeamRow<kAligned, forward_vectors> parts{
      lane, 32, static_cast<int>(min(call.width - first, int64_t{forward_columns}))};
  const int32_t token = call.tokens[row];
  const bool valid = token >= 0 && token < call.vocab_size;
  if (!valid && first == 0 && lane == 0)
    report_fault(call.fault, FaultKind::token_id, token, row, call.vocab_size);
  uint4 packed[forward_vectors] = {};
  if (valid) parts.load(call.weight + token * call.width + first, packed);
  if (valid && call.positions) {
    const bf16* const position = call.positions + row % call.seq_len * call.width + first;
#pragma unroll
    for (int v = 0; v < forward_vectors; ++v) {
      float x[8], p[8];
      unpack(packed[v], x);
      parts[v].load_row(position, p);
#pragma unroll
      for (int i = 0; i < 8; ++i) x[i] += p[i];
      packed[v] = pack(x);
    }
  }
  bf16* const y = call.y + row * call.width + first;
#pragma unroll
  for (int v = 0; v < forward_vectors; ++v) parts[v].store_packed(y, packed[v]);
}

// Sorts the rows by their tokens, stably, in one launch: a library's radix sort takes ten. A block
// has the rows of 256 neighbouring tokens. It looks through all tokens, once to count its rows and
// those in front of them, and once to write them one behind the other; then it sorts them by
// counting, a warp having the part of them that comes before the next warp's. Tokens outside the
// vocabulary get the key behind its last, which nothing is added for.
constexpr int sort_threads = 1024, sort_warps = sort_threads / 32, sort_keys = 256;

struct TokenKeys {
  __device__ uint32_t operator()(int64_t row) const {
    const int32_t token = tokens[row];
    return token >= 0 && token < vocab_size ? static_cast<uint32_t>(token) : vocab_size;
  }
  const int32_t* tokens;
  uint32_t vocab_size;
};

/// The sum over the warps in front of this one; `total` over all. A block of sort_threads.
__device__ inline int sum_in_front(int of_warp, int* storage, int& total) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  if (lane == 0) storage[warp] = of_warp;
  __syncthreads();
  const int mine = storage[lane];
  total = warp_sum(mine);
  const int result = warp_sum(lane < warp ? mine : 0);
  __syncthreads();
  return result;
}

__global__ void __launch_bounds__(sort_threads) sort_rows(EmbeddingBackward call) {
  __shared__ int counts[sort_warps][sort_keys];
  __shared__ int storage[sort_warps];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const unsigned lanes_in_front = (1u << lane) - 1;
  const TokenKeys key_of{call.tokens, static_cast<uint32_t>(call.vocab_size)};
  const uint32_t first_key = blockIdx.x * sort_keys;
  const auto is_mine = [&](uint32_t key) { return key - first_key < sort_keys; };

  const int64_t share = round_up(ceil_div(call.rows, sort_warps), 32);
  const int64_t begin = warp * share, end = min(begin + share, call.rows);
  int mine = 0, smaller = 0;
#pragma unroll 8
  for (int64_t row = begin + lane; row < end; row += 32) {
    const uint32_t key = key_of(row);
    mine += is_mine(key);
    smaller += key < first_key;
  }
  int start, count;
  sum_in_front(warp_sum(smaller), storage, start);
  int at = sum_in_front(warp_sum(mine), storage, count);
  if (count == 0) return;  // the whole block
  uint32_t* const keys = call.keys[0] + start;
  int32_t* const order = call.order[0] + start;
#pragma unroll 4
  for (int64_t first = begin; first < end; first += 32) {
    const int64_t row = first + lane;
    const uint32_t key = row < end ? key_of(row) : 0;
    const bool writes = row < end && is_mine(key);
    const unsigned writers = __ballot_sync(0xffffffffu, writes);
    if (writes) {
      const int to = at + __popc(writers & lanes_in_front);
      keys[to] = key;
      order[to] = static_cast<int32_t>(row);
      if (key == key_of.vocab_size)
        report_fault(call.fault, FaultKind::token_id, call.tokens[row], row, call.vocab_size);
    }
    at += __popc(writers);
  }
  for (int key = threadIdx.x; key < sort_warps * sort_keys; key += sort_threads)
    counts[key / sort_keys][key % sort_keys] = 0;
  __syncthreads();

  // For the warp's items, in order: adds them to the counts of their keys, and calls
  // see(item, key, the count in front of it).
  int* const own = counts[warp];
  const int part = static_cast<int>(round_up(ceil_div(count, sort_warps), 32));
  const int part_end = min((warp + 1) * part, count);
  const auto for_items = [&](auto see) {
    for (int first = warp * part; first < part_end; first += 32) {
      const int item = first + lane;
      const unsigned active = __ballot_sync(0xffffffffu, item < part_end);
      if (item < part_end) {
        const uint32_t key = keys[item] - first_key;
        const unsigned same = __match_any_sync(active, key);
        const int leader = __ffs(static_cast<int>(same)) - 1;
        int before = 0;
        if (lane == leader) {
          before = own[key];
          own[key] = before + __popc(same);
        }
        before = __shfl_sync(active, before, leader);
        see(item, key, before + __popc(same & lanes_in_front));
      }
      __syncwarp();
    }
  };
  for_items([](int, uint32_t, int) {});
  __syncthreads();
  // Where each warp's items of each key go: behind those of smaller keys and of warps in front.
  int of_key = 0;
  if (threadIdx.x < sort_keys) {
    for (int w = 0; w < sort_warps; ++w) {
      const int items = counts[w][threadIdx.x];
      counts[w][threadIdx.x] = of_key;
      of_key += items;
    }
  }
  int total, inclusive = of_key;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const int other = __shfl_up_sync(0xffffffffu, inclusive, step);
    if (lane >= step) inclusive += other;
  }
  const int offset = sum_in_front(warp_sum(of_key), storage, total) + inclusive - of_key;
  if (threadIdx.x < sort_keys)
    for (int w = 0; w < sort_warps; ++w) counts[w][threadIdx.x] += offset;
  __syncthreads();
  for_items([&](int item, uint32_t key, int before) {
    call.keys[1][start + before] = key + first_key;
    call.order[1][start + before] = order[item];
  });
}

// The sorted rows are cut into pieces, so that a token that makes up a tenth of a text is as
// much work for each warp as any other. The rows of one token are a run. A run inside a piece is
// added to dweight at once; the part of a run that began in an earlier piece goes to slot 0 of the
// piece's partial sums, the part of one that goes on behind it to slot 1, and these are added up by
// the second kernel, in order. The sort is stable, so that the order is that of the rows.
constexpr int piece_rows = 16;

struct Piece {
  __device__ Piece(const EmbeddingBackward& call, int64_t piece)
      : begin(piece * piece_rows),
        count(static_cast<int>(min(call.rows - begin, int64_t{piece_rows}))) {
    const uint32_t* keys = call.keys[1] + begin;
    first_key = keys[0];
    last_key = keys[count - 1];
    continues = begin > 0 && keys[-1] == first_key;
    goes_on = begin + count < call.rows && keys[count] == last_key;
  }
  int64_t begin;
  int count;
  uint32_t first_key, last_key;
  bool continues;  // its first run began before it
  bool goes_on;    // its last run goes on behind it
};

template <bool kAligned>
__device__ inline void add_to_row(const Strip<kAligned>& strip, float* row, const float (&sum)[8]) {
  float value[8];
  strip.part.load_row(row + strip.first, value);
#pragma unroll
  for (int i = 0; i < 8; ++i) value[i] += sum[i];
  strip.part.store_row(row + strip.first, value);
}

/// What is to be done behind a row of a piece: nothing, or where the sum of its run goes.
enum class RunEnd { none, of_earlier, goes_on, whole, outside };
constexpr int batch_rows = 4;

template <bool kAligned>
__global__ void __launch_bounds__(block_threads) add_runs(EmbeddingBackward call) {
  const int64_t strips = ceil_div(call.width, strip_columns);
  const int64_t item = int64_t{blockIdx.x} * block_warps + threadIdx.x / 32;
  const int64_t index = item / strips;
  if (index * piece_rows >= call.rows) return;
  const Strip<kAligned> strip(item - index * strips, call.width);
  const Piece piece(call, index);
  const int lane = threadIdx.x % 32;
  const int64_t own = piece.begin + min(lane, piece.count - 1);
  const uint32_t own_key = call.keys[1][own];
  const int32_t own_row = call.order[1][own];

  float sum[8] = {};
  bool is_first_run = true;
  for (int start = 0; start < piece.count; start += batch_rows) {
    // The rows of dy, and the rows of dweight that end among them: loads that are all in flight
    // together.
    uint4 dy[batch_rows];
    float value[batch_rows][8];
    RunEnd end[batch_rows];
#pragma unroll
    for (int j = 0; j < batch_rows; ++j) {
      const int at = min(start + j, piece.count - 1);
      const int64_t row = __shfl_sync(0xffffffffu, own_row, at);
      dy[j] = strip.part.load_packed(call.dy + row * call.width + strip.first);
    }
#pragma unroll
    for (int j = 0; j < batch_rows; ++j) {
      const int at = min(start + j, piece.count - 1);
      const uint32_t key = __shfl_sync(0xffffffffu, own_key, at);
      const uint32_t next_key = __shfl_sync(0xffffffffu, own_key, min(at + 1, 31));
      const bool is_last = at + 1 == piece.count;
      if (start + j >= piece.count || (!is_last && next_key == key)) {
        end[j] = RunEnd::none;
      } else {
        end[j] = is_first_run && piece.continues ? RunEnd::of_earlier
                 : is_last && piece.goes_on      ? RunEnd::goes_on
                 : key < call.vocab_size         ? RunEnd::whole
                                                 : RunEnd::outside;
        is_first_run = false;
      }
      if (end[j] == RunEnd::whole)
        strip.part.load_row(call.dweight + key * call.width + strip.first, value[j]);
    }
#pragma unroll
    for (int j = 0; j < batch_rows; ++j) {
      float x[8];
      unpack(dy[j], x);
#pragma unroll
      for (int i = 0; i < 8; ++i) sum[i] += x[i];
      if (end[j] == RunEnd::none) continue;
      float* const partial = call.partials + index * 2 * call.width + strip.first;
      if (end[j] == RunEnd::of_earlier) {
        strip.part.store_row(partial, sum);
      } else if (end[j] == RunEnd::goes_on) {
        strip.part.store_row(partial + call.width, sum);
      } else if (end[j] == RunEnd::whole) {
        const uint32_t key = __shfl_sync(0xffffffffu, own_key, start + j);
#pragma unroll
        for (int i = 0; i < 8; ++i) value[j][i] += sum[i];
        strip.part.store_row(call.dweight + key * call.width + strip.first, value[j]);
      }
#pragma unroll
      for (int i = 0; i < 8; ++i) sum[i] = 0.0f;
    }
  }
}

/// The first of the sorted rows behind `begin` that has another key: a warp tries 32 places at
/// once.
__device__ inline int64_t end_of_run(const EmbeddingBackward& call, int64_t begin) {
  const uint32_t* const keys = call.keys[1];
  const uint32_t key = keys[begin];
  const int lane = threadIdx.x % 32;
  int64_t low = begin, high = call.rows;  // keys[low] == key; the end is in (low, high]
  while (high - low > 1) {
    const int64_t step = ceil_div(high - low, 33), probe = low + (lane + 1) * step;
    const unsigned same =
        __ballot_sync(0xffffffffu, probe < high && keys[min(probe, high - 1)] == key);
    const int count = __popc(same);  // sorted: the first ones
    high = min(high, low + (count + 1) * step);
    low += count * step;
  }
  return high;
}

// One warp for a run that begins in a piece and goes on behind it, and a strip of columns.
template <bool kAligned>
__global__ void __launch_bounds__(block_threads) add_long_runs(EmbeddingBackward call) {
  const int64_t strips = ceil_div(call.width, strip_columns);
  const int64_t item = int64_t{blockIdx.x} * block_warps + threadIdx.x / 32;
  const int64_t index = item / strips;
  if (index * piece_rows >= call.rows) return;
  const Piece piece(call, index);
  const bool begins_here = !(piece.continues && piece.first_key == piece.last_key);
  if (!piece.goes_on || !begins_here || piece.last_key >= call.vocab_size) return;
  const Strip<kAligned> strip(item - index * strips, call.width);
  // The end is found first: the loads of a loop whose end is known do not wait for each other.
  const int64_t last = (end_of_run(call, piece.begin + piece.count - 1) - 1) / piece_rows;
  float sum[8];
  strip.part.load_row(call.partials + (index * 2 + 1) * call.width + strip.first, sum);
#pragma unroll 8
  for (int64_t next = index + 1; next <= last; ++next) {
    float part[8];
    strip.part.load_row(call.partials + next * 2 * call.width + strip.first, part);
#pragma unroll
    for (int i = 0; i < 8; ++i) sum[i] += part[i];
  }
  add_to_row(strip, call.dweight + int64_t{piece.last_key} * call.width, sum);
}

// dpositions[t] += sum of dy over the sequences, in order.
template <bool kAligned>
__global__ void __launch_bounds__(block_threads) add_positions(EmbeddingBackward call) {
  const int64_t strips = ceil_div(call.width, strip_columns), warps = gridDim.x * block_warps;
  for (int64_t item = int64_t{blockIdx.x} * block_warps + threadIdx.x / 32;
       item < call.seq_len * strips; item += warps) {
    const int64_t position = item / strips;
    const Strip<kAligned> strip(item - position * strips, call.width);
    float sum[8] = {};
#pragma unroll 4
    for (int64_t row = position; row < call.rows; row += call.seq_len) {
      float dy[8];
      strip.part.load_row(call.dy + row * call.width + strip.first, dy);
#pragma unroll
      for (int i = 0; i < 8; ++i) sum[i] += dy[i];
    }
    add_to_row(strip, call.dpositions + position * call.width, sum);
  }
}

template <bool kAligned>
void launch_backward(const EmbeddingBackward& call, cudaStream_t stream) {
  const int64_t strips = ceil_div(call.width, strip_columns);
  const int64_t pieces = ceil_div(call.rows, piece_rows);
  const auto blocks = static_cast<unsigned>(ceil_div(pieces * strips, block_warps));
  add_runs<kAligned><<<blocks, block_threads, 0, stream>>>(call);
  add_long_runs<kAligned><<<blocks, block_threads, 0, stream>>>(call);
  if (call.dpositions) {
    const int grid = grid_size(call.seq_len * strips, block_warps, 8);
    add_positions<kAligned><<<grid, block_threads, 0, stream>>>(call);
  }
}

}  // namespace

void embedding_forward(const EmbeddingForward& call, cudaStream_t stream) {
  if (call.rows <= 0) return;
  const dim3 grid(static_cast<unsigned>(ceil_div(call.rows, block_warps)),
                  static_cast<unsigned>(ceil_div(call.width, forward_columns)));
  if (call.width % vector_size == 0 && aligned16(call.weight, call.positions, call.y)) {
    forward_kernel<true><<<grid, block_threads, 0, stream>>>(call);
  } else {
    forward_kernel<false><<<grid, block_threads, 0, stream>>>(call);
  }
}

void embedding_backward(const EmbeddingBackward& call, cudaStream_t stream) {
  if (call.rows <= 0) return;
  // One key behind the vocabulary's last.
  sort_rows<<<static_cast<unsigned>(ceil_div(call.vocab_size + 1, sort_keys)), sort_threads, 0,
              stream>>>(call);
  if (call.width % vector_size == 0 &&
      aligned16(call.dy, call.dweight, call.dpositions, call.partials)) {
    launch_backward<true>(call, stream);
  } else {
    launch_backward<false>(call, stream);
  }
}

int64_t embedding_backward_partials(int64_t rows, int64_t width) {
  return ceil_div(rows, piece_rows) * 2 * width;
}

}  // namespace sigtrain::kernels
