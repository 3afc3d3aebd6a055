#include <cub/device/device_radix_sort.cuh>

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

template <bool kAligned>
__global__ void __launch_bounds__(block_threads) forward_kernel(EmbeddingForward call) {
  const int64_t strips = ceil_div(call.width, strip_columns), warps = gridDim.x * block_warps;
  for (int64_t item = int64_t{blockIdx.x} * block_warps + threadIdx.x / 32;
       item < call.rows * strips; item += warps) {
    const int64_t row = item / strips;
    const Strip<kAligned> strip(item - row * strips, call.width);
    const int32_t token = call.tokens[row];
    float x[8] = {};
    if (token >= 0 && token < call.vocab_size) {
      strip.part.load_row(call.weight + token * call.width + strip.first, x);
      if (call.positions) {
        float position[8];
        strip.part.load_row(call.positions + row % call.seq_len * call.width + strip.first,
                            position);
#pragma unroll
        for (int i = 0; i < 8; ++i) x[i] += position[i];
      }
    } else if (threadIdx.x % 32 == 0) {
      report_fault(call.fault, FaultKind::token_id, token, row, call.vocab_size);
    }
    strip.part.store_row(call.y + row * call.width + strip.first, x);
  }
}

// Tokens outside the vocabulary get the key behind its last, which nothing is added for.
__global__ void make_keys(EmbeddingBackward call) {
  const int64_t row = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (row >= call.rows) return;
  const int32_t token = call.tokens[row];
  const bool valid = token >= 0 && token < call.vocab_size;
  if (!valid) report_fault(call.fault, FaultKind::token_id, token, row, call.vocab_size);
  call.keys[0][row] = static_cast<uint32_t>(valid ? token : call.vocab_size);
  call.order[0][row] = static_cast<int32_t>(row);
}

// The sorted rows are cut into pieces of 32, so that a token that makes up a tenth of a text is as
// much work for each warp as any other. The rows of one token are a run. A run inside a piece is
// added to dweight at once; the part of a run that began in an earlier piece goes to slot 0 of the
// piece's partial sums, the part of one that goes on behind it to slot 1, and these are added up by
// the second kernel, in order. The sort is stable, so that the order is that of the rows.
constexpr int piece_rows = 32;

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
  constexpr int batch = 4;  // rows whose loads are in flight together
  for (int start = 0; start < piece.count; start += batch) {
    float dy[batch][8];
#pragma unroll
    for (int j = 0; j < batch; ++j) {
      const int at = min(start + j, piece.count - 1);
      const int64_t row = __shfl_sync(0xffffffffu, own_row, at);
      strip.part.load_row(call.dy + row * call.width + strip.first, dy[j]);
    }
#pragma unroll
    for (int j = 0; j < batch; ++j) {
      const int at = start + j;
      if (at >= piece.count) break;
      const uint32_t key = __shfl_sync(0xffffffffu, own_key, at);
#pragma unroll
      for (int i = 0; i < 8; ++i) sum[i] += dy[j][i];
      const bool is_last = at + 1 == piece.count;
      const bool ends = is_last || __shfl_sync(0xffffffffu, own_key, min(at + 1, 31)) != key;
      if (!ends) continue;
      float* partial = call.partials + (index * 2) * call.width;
      if (is_first_run && piece.continues) {
        strip.part.store_row(partial + strip.first, sum);
      } else if (is_last && piece.goes_on) {
        strip.part.store_row(partial + call.width + strip.first, sum);
      } else if (key < call.vocab_size) {
        add_to_row(strip, call.dweight + key * call.width, sum);
      }
#pragma unroll
      for (int i = 0; i < 8; ++i) sum[i] = 0.0f;
      is_first_run = false;
    }
  }
}

// One warp for a run that begins in a piece and goes on behind it.
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
  float sum[8];
  strip.part.load_row(call.partials + (index * 2 + 1) * call.width + strip.first, sum);
  for (int64_t next = index + 1;; ++next) {
    float part[8];
    strip.part.load_row(call.partials + next * 2 * call.width + strip.first, part);
#pragma unroll
    for (int i = 0; i < 8; ++i) sum[i] += part[i];
    const Piece following(call, next);
    if (!following.goes_on || following.first_key != following.last_key) break;
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

// Bits of the largest key, vocab_size.
int key_bits(int64_t vocab_size) {
  int bits = 1;
  while ((vocab_size >> bits) != 0) ++bits;
  return bits;
}

template <bool kAligned>
void launch_backward(const EmbeddingBackward& call, cudaStream_t stream) {
  const int64_t strips = ceil_div(call.width, strip_columns);
  const int64_t items = ceil_div(call.rows, piece_rows) * strips;
  const auto blocks = static_cast<unsigned>(ceil_div(items, block_warps));
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
  const int grid = grid_size(call.rows * ceil_div(call.width, strip_columns), block_warps, 8);
  if (call.width % vector_size == 0 && aligned16(call.weight, call.positions, call.y)) {
    forward_kernel<true><<<grid, block_threads, 0, stream>>>(call);
  } else {
    forward_kernel<false><<<grid, block_threads, 0, stream>>>(call);
  }
}

void embedding_backward(const EmbeddingBackward& call, cudaStream_t stream) {
  if (call.rows <= 0) return;
  make_keys<<<static_cast<unsigned>(ceil_div(call.rows, block_threads)), block_threads, 0,
              stream>>>(call);
  size_t sort_bytes = call.sort_bytes;
  cub::DeviceRadixSort::SortPairs(call.sort_memory, sort_bytes, call.keys[0], call.keys[1],
                                  call.order[0], call.order[1], static_cast<int>(call.rows), 0,
                                  key_bits(call.vocab_size), stream);
  if (call.width % vector_size == 0 &&
      aligned16(call.dy, call.dweight, call.dpositions, call.partials)) {
    launch_backward<true>(call, stream);
  } else {
    launch_backward<false>(call, stream);
  }
}

size_t embedding_backward_sort_bytes(int64_t rows, int64_t vocab_size) {
  size_t bytes = 0;
  const uint32_t* keys = nullptr;
  const int32_t* order = nullptr;
  cub::DeviceRadixSort::SortPairs(nullptr, bytes, keys, const_cast<uint32_t*>(keys), order,
                                  const_cast<int32_t*>(order), static_cast<int>(rows), 0,
                                  key_bits(vocab_size));
  return bytes;
}

int64_t embedding_backward_partials(int64_t rows, int64_t width) {
  return ceil_div(rows, piece_rows) * 2 * width;
}

}  // namespace sigtrain::kernels
