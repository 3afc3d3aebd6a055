#include "cross_entropy.h"
#include "launch.h"
#include "vector.cuh"

namespace sigtrain::kernels {
namespace {

constexpr int block_threads = 512;
constexpr int loads = 4;  // of a thread, in flight together
constexpr float log2_e = 1.44269504088896341f;
constexpr double ln_2 = 0.693147180559945309;

/// Maximum of some logits and sum of exp(logit - maximum), both in units of log 2 (Milakov &
/// Gimelshein 2018: the sum follows the maximum as it grows, so that one pass finds both).
struct Exponentials {
  float maximum = -INFINITY, sum = 0.0f;

  /// `largest` of these logits.
  __device__ void add(const float (&logits)[8], float largest) {
    largest *= log2_e;
    if (largest > maximum) {
      sum *= exp2f_fast(maximum - largest);
      maximum = largest;
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) sum += exp2f_fast(fmaf(logits[i], log2_e, -maximum));
  }
};

/// Whether some logits, `first` being the index of the first, say that the target is not the first
/// of the largest ones.
__device__ inline bool beats(const float (&logits)[8], float largest, int first, float target_logit,
                             int target) {
  if (largest != target_logit) return largest > target_logit;
  bool result = false;
#pragma unroll
  for (int i = 0; i < 8; ++i) result |= logits[i] == target_logit && first + i < target;
  return result;
}

// One block a row. With kCached the row waits in shared memory for the second pass; without, it is
// read again, from the second-level cache as a rule.
template <bool kCached>
__global__ void __launch_bounds__(block_threads, 3) cross_entropy_kernel(CrossEntropy call) {
  extern __shared__ uint4 cached[];
  __shared__ BlockSum<float>::Storage storage;
  __shared__ float warp_maxima[block_threads / 32];
  BlockSum<float> block_sum(storage);
  const int64_t row = blockIdx.x;
  const int vocab_size = static_cast<int>(call.vocab_size);
  bf16* logits = call.logits + row * call.row_stride;
  const int32_t target = call.targets[row];
  const bool ignored = target == call.settings.ignore_index;
  const int vectors = vocab_size / vector_size;  // whole ones
  const int rest = vectors * vector_size;

  if (ignored || target < 0 || target >= vocab_size) {
    if (threadIdx.x == 0) {
      call.results[row] = {};
      if (!ignored) {
        report_fault(call.fault, FaultKind::target, target, call.first_row + row, call.vocab_size);
      }
    }
    if (call.gradient) {
      for (int j = threadIdx.x; j < vectors; j += block_threads)
        reinterpret_cast<uint4*>(logits)[j] = make_uint4(0, 0, 0, 0);
      for (int j = rest + threadIdx.x; j < vocab_size; j += block_threads)
        logits[j] = from_float<bf16>(0.0f);
    }
    return;
  }

  const float target_logit = to_float(logits[target]);
  Exponentials mine;
  float sum_logits = 0.0f;
  bool beaten = false;
  const auto see = [&](const float(&x)[8], int first) {
    float largest = x[0];
#pragma unroll
    for (int i = 1; i < 8; ++i) largest = fmaxf(largest, x[i]);
    mine.add(x, largest);
    beaten = beaten || beats(x, largest, first, target_logit, target);
  };
  for (int start = threadIdx.x; start < vectors; start += loads * block_threads) {
    uint4 raw[loads];
#pragma unroll
    for (int k = 0; k < loads; ++k) {
      const int j = start + k * block_threads;
      if (j < vectors) raw[k] = load_raw(logits + j * vector_size);
    }
#pragma unroll
    for (int k = 0; k < loads; ++k) {
      const int j = start + k * block_threads;
      if (j >= vectors) break;
      if constexpr (kCached) cached[j] = raw[k];
      float x[8];
      unpack(raw[k], x);
      see(x, j * vector_size);
#pragma unroll
      for (int i = 0; i < 8; ++i) sum_logits += x[i];
    }
  }
  // The elements behind the last whole vector are the last thread's.
  float tail[8];
  const bool has_tail = rest < vocab_size && threadIdx.x == block_threads - 1;
  if (has_tail) {
#pragma unroll
    for (int i = 0; i < 8; ++i)
      tail[i] = rest + i < vocab_size ? to_float(logits[rest + i]) : -INFINITY;
    see(tail, rest);
#pragma unroll
    for (int i = 0; i < 8; ++i)
      if (rest + i < vocab_size) sum_logits += tail[i];
  }

  const float warp_maximum = warp_max(mine.maximum);
  if (threadIdx.x % 32 == 0) warp_maxima[threadIdx.x / 32] = warp_maximum;
  const bool correct = __syncthreads_or(beaten) == 0;
  float maximum = warp_maxima[0];
#pragma unroll
  for (int warp = 1; warp < block_threads / 32; ++warp) maximum = fmaxf(maximum, warp_maxima[warp]);
  const float sum = block_sum(mine.sum * exp2f_fast(mine.maximum - maximum));
  const float total_logits = block_sum(sum_logits);

  const double smoothing = call.settings.label_smoothing, z_loss = call.settings.z_loss;
  const float log_z = static_cast<float>(ln_2) * (maximum + log2f(sum));
  if (threadIdx.x == 0) {
    const float nll = log_z - target_logit;
    const float uniform_nll = log_z - total_logits / static_cast<float>(vocab_size);
    call.results[row] = {static_cast<float>(1.0 - smoothing) * nll +
                             static_cast<float>(smoothing) * uniform_nll +
                             static_cast<float>(z_loss) * log_z * log_z,
                         nll, 1.0f, correct ? 1.0f : 0.0f};
  }
  if (!call.gradient) return;

  const float scale = static_cast<float>(call.settings.gradient_scale);
  const float of_exp = scale * (1.0f + 2.0f * static_cast<float>(z_loss) * log_z) / sum;
  const float uniform = scale * static_cast<float>(smoothing) / static_cast<float>(vocab_size);
  const float at_target = scale * static_cast<float>(1.0 - smoothing);
  const auto differentiate = [&](float(&x)[8], int first) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      x[i] = exp2f_fast(fmaf(x[i], log2_e, -maximum)) * of_exp - uniform;
      if (first + i == target) x[i] -= at_target;
    }
  };
#pragma unroll 4
  for (int j = threadIdx.x; j < vectors; j += block_threads) {
    float x[8];
    unpack(kCached ? cached[j] : reinterpret_cast<const uint4*>(logits)[j], x);
    differentiate(x, j * vector_size);
    reinterpret_cast<uint4*>(logits)[j] = pack(x);
  }
  if (has_tail) {
    differentiate(tail, rest);
#pragma unroll
    for (int i = 0; i < 8; ++i)
      if (rest + i < vocab_size) logits[rest + i] = from_float<bf16>(tail[i]);
  }
}

constexpr int sum_threads = 1024;

__global__ void __launch_bounds__(sum_threads)
    add_rows_kernel(const CrossEntropyRow* results, int64_t rows, float* sums) {
  __shared__ BlockSum<double>::Storage storage;
  BlockSum<double> block_sum(storage);
  double objective = 0.0, nll = 0.0, count = 0.0, correct = 0.0;
  for (int64_t row = threadIdx.x; row < rows; row += sum_threads) {
    const float4 result = reinterpret_cast<const float4*>(results)[row];
    objective += result.x, nll += result.y, count += result.z, correct += result.w;
  }
  const double totals[4] = {block_sum(objective), block_sum(nll), block_sum(count),
                            block_sum(correct)};
  if (threadIdx.x == 0) {
#pragma unroll
    for (int slot = 0; slot < 4; ++slot) sums[slot] += static_cast<float>(totals[slot]);
  }
}

}  // namespace

void cross_entropy(const CrossEntropy& call, cudaStream_t stream) {
  if (call.rows <= 0) return;
  const auto rows = static_cast<unsigned>(call.rows);
  const int64_t row_bytes = call.vocab_size / vector_size * 16;
  // Two blocks a multiprocessor at least, so that one reads while another computes.
  constexpr int64_t reserved = 2 << 10;
  if (row_bytes + reserved <= device_limits().shared_bytes_per_block / 2) {
    static const cudaError_t raised = cudaFuncSetAttribute(
        cross_entropy_kernel<true>, cudaFuncAttributeMaxDynamicSharedMemorySize,
        device_limits().shared_bytes_per_block / 2);
    if (raised == cudaSuccess) {
      cross_entropy_kernel<true>
          <<<rows, block_threads, static_cast<size_t>(row_bytes), stream>>>(call);
      return;
    }
  }
  cross_entropy_kernel<false><<<rows, block_threads, 0, stream>>>(call);
}

void add_cross_entropy_rows(const CrossEntropyRow* results, int64_t rows, float* sums,
                            cudaStream_t stream) {
  add_rows_kernel<<<1, sum_threads, 0, stream>>>(results, rows, sums);
}

}  // namespace sigtrain::kernels
