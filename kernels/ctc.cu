// A sequence's states are its targets with a blank before, between and behind them. The two passes
// over its frames are chains of seq_len dependent steps; forward and backward run side by side, a
// block each, with a row of states in shared memory, and leave alpha and beta behind. All else is
// parallel over frames. Logarithms are counted from each frame's largest logit, which moves no
// share of a state and keeps the sums small, where float is exact enough (as in ops/cpu/ctc.cpp).
#include "ctc.h"
#include "launch.h"
#include "vector.cuh"

namespace sigtrain::kernels {
namespace {

constexpr int frame_threads = 128;  // four frames a block, a warp each
constexpr int share_threads = 128;  // one frame a block
constexpr int most_lattice_threads = 1024;

__device__ inline float log_add(float a, float b, float c) {
  const float largest = fmaxf(a, fmaxf(b, c));
  if (largest == -INFINITY) return largest;
  return largest + logf(expf(a - largest) + expf(b - largest) + expf(c - largest));
}

__device__ inline int frame_length(const Ctc& call, int64_t b) {
  return min(max(call.frame_lengths[b], 0), static_cast<int>(call.seq_len));
}

__device__ inline int target_length(const Ctc& call, int64_t b) {
  return min(max(call.target_lengths[b], 0), static_cast<int>(call.max_targets));
}

/// Maximum and log Z of every frame that counts.
__global__ void __launch_bounds__(frame_threads) frames_kernel(Ctc call) {
  const int64_t row = int64_t{blockIdx.x} * (frame_threads / 32) + threadIdx.x / 32;
  if (row >= call.batch * call.seq_len) return;
  const int lane = threadIdx.x % 32;
  if (row % call.seq_len >= frame_length(call, row / call.seq_len)) return;
  const bf16* logits = call.logits + row * call.vocab_size;
  float maximum = -INFINITY;
  for (int64_t v = lane; v < call.vocab_size; v += 32)
    maximum = fmaxf(maximum, to_float(logits[v]));
  maximum = warp_max(maximum);
  float sum = 0.0f;
  for (int64_t v = lane; v < call.vocab_size; v += 32) sum += expf(to_float(logits[v]) - maximum);
  sum = warp_sum(sum);
  if (lane == 0) call.frames[row] = {maximum, logf(sum)};
}

/// Blocks (b, 0) write alpha and what the sequence adds to the sums, blocks (b, 1) beta.
__global__ void lattice_kernel(Ctc call) {
  extern __shared__ int32_t shared[];
  __shared__ BlockSum<double>::Storage storage;
  BlockSum<double> block_sum(storage);
  const int64_t b = blockIdx.x;
  const bool backward = blockIdx.y == 1;
  const int frames = frame_length(call, b), count = target_length(call, b), states = 2 * count + 1;
  const int stride = static_cast<int>(2 * call.max_targets + 1);
  int32_t* labels = shared;  // of the states
  float* rows[2] = {reinterpret_cast<float*>(shared + stride),
                    reinterpret_cast<float*>(shared + 2 * stride)};
  const int32_t* targets = call.targets + b * call.max_targets;

  double repeats = 0.0;
  for (int s = threadIdx.x; s < states; s += blockDim.x) {
    int32_t label = call.blank;
    if (s % 2 == 1) {
      label = targets[s / 2];
      if (label < 0 || label >= call.vocab_size || label == call.blank) {
        report_fault(call.fault, FaultKind::ctc_target, label, b, call.vocab_size);
        label = call.blank;
      }
      if (s >= 3 && targets[s / 2 - 1] == targets[s / 2]) repeats += 1.0;
    }
    labels[s] = label;
  }
  // Also the barrier behind the labels. Every thread gets the sum.
  const bool feasible = count + static_cast<int>(block_sum(repeats)) <= frames;
  if (!feasible || frames == 0) {
    if (!backward && threadIdx.x == 0) {
      call.sequences[b] = {0.0, 0.0f, feasible ? count : -1};
      call.losses[b] = feasible ? 0.0f : INFINITY;
    }
    return;
  }

  const bf16* logits = call.logits + b * call.seq_len * call.vocab_size;
  const CtcFrame* frame = call.frames + b * call.seq_len;
  const auto emission = [&](int t, int s) {
    return to_float(logits[int64_t{t} * call.vocab_size + labels[s]]) - frame[t].maximum;
  };
  // Between equal targets there must be a blank.
  const auto may_skip_to = [&](int s) {
    return s % 2 == 1 && s >= 3 && labels[s] != labels[s - 2];
  };
  float* lattice = (backward ? call.beta : call.alpha) + b * call.seq_len * stride;

  for (int step = 0; step < frames; ++step) {
    const int t = backward ? frames - 1 - step : step;
    // alpha[t] holds the emission of t; the row of beta that the next step reads does too.
    const float* before = rows[(step + 1) % 2];
    float* now = rows[step % 2];
    for (int s = threadIdx.x; s < states; s += blockDim.x) {
      const float emitted = emission(t, s);
      float value;
      if (!backward) {
        if (step == 0) {
          value = s <= 1 ? 0.0f : -INFINITY;
        } else {
          value = log_add(before[s], s > 0 ? before[s - 1] : -INFINITY,
                          may_skip_to(s) ? before[s - 2] : -INFINITY);
        }
        value += emitted;
        now[s] = value;
      } else {
        if (step == 0) {
          value = s >= states - 2 ? 0.0f : -INFINITY;
        } else {
          value = log_add(before[s], s + 1 < states ? before[s + 1] : -INFINITY,
                          s + 2 < states && may_skip_to(s + 2) ? before[s + 2] : -INFINITY);
        }
        now[s] = value + emitted;
      }
      lattice[int64_t{t} * stride + s] = value;
    }
    __syncthreads();
  }

  if (backward) return;
  double log_z = 0.0;
  for (int t = threadIdx.x; t < frames; t += blockDim.x) log_z += frame[t].log_z;
  log_z = block_sum(log_z);
  if (threadIdx.x == 0) {
    const float* last = rows[(frames - 1) % 2];
    const float log_paths =
        log_add(last[states - 1], states > 1 ? last[states - 2] : -INFINITY, -INFINITY);
    const double nll = log_z - log_paths;
    call.sequences[b] = {nll, log_paths, count};
    call.losses[b] = static_cast<float>(nll);
  }
}

/// d_logits of one frame: scale (p - share of the paths, by label). Shares are summed in the order
/// of the states.
__global__ void __launch_bounds__(share_threads) gradient_kernel(Ctc call) {
  extern __shared__ float shares[];  // of the states
  __shared__ BlockSum<float>::Storage storage;
  BlockSum<float> block_sum(storage);
  const int64_t row = blockIdx.x, b = row / call.seq_len;
  const int t = static_cast<int>(row % call.seq_len);
  bf16* d_logits = call.d_logits + row * call.vocab_size;
  const CtcSequence sequence = call.sequences[b];
  if (t >= frame_length(call, b) || sequence.targets < 0) {
    for (int64_t v = threadIdx.x; v < call.vocab_size; v += share_threads)
      d_logits[v] = from_float<bf16>(0.0f);
    return;
  }
  const int count = sequence.targets, states = 2 * count + 1;
  const int64_t at = row * (2 * call.max_targets + 1);
  float of_blank = 0.0f;
  for (int s = threadIdx.x; s < states; s += share_threads) {
    const float share = expf(call.alpha[at + s] + call.beta[at + s] - sequence.log_paths);
    shares[s] = share;
    if (s % 2 == 0) of_blank += share;
  }
  of_blank = block_sum(of_blank);  // also the barrier behind the shares
  const bf16* logits = call.logits + row * call.vocab_size;
  const CtcFrame frame = call.frames[row];
  const int32_t* targets = call.targets + b * call.max_targets;
  for (int v = threadIdx.x; v < call.vocab_size; v += share_threads) {
    float share = 0.0f;
    if (v == call.blank) {
      share = of_blank;
    } else {
      for (int i = 0; i < count; ++i)
        if (targets[i] == v) share += shares[2 * i + 1];
    }
    const float p = expf(to_float(logits[v]) - frame.maximum - frame.log_z);
    d_logits[v] = from_float<bf16>(call.gradient_scale * (p - share));
  }
}

__global__ void sums_kernel(Ctc call) {
  if (threadIdx.x != 0) return;
  double nll = 0.0, sequences = 0.0, targets = 0.0, infeasible = 0.0;
  for (int64_t b = 0; b < call.batch; ++b) {
    const CtcSequence sequence = call.sequences[b];
    if (sequence.targets < 0) {
      infeasible += 1.0;
      continue;
    }
    nll += sequence.nll, sequences += 1.0, targets += sequence.targets;
  }
  const double totals[4] = {nll, sequences, targets, infeasible};
  for (int slot = 0; slot < 4; ++slot) call.sums[slot] += static_cast<float>(totals[slot]);
}

size_t lattice_bytes(int64_t max_targets) {
  return static_cast<size_t>(3 * (2 * max_targets + 1)) * 4;
}

}  // namespace

int64_t ctc_most_targets() {
  // What the block's own variables take is far less than a kilobyte.
  return ((device_limits().shared_bytes_per_block - (2 << 10)) / 12 - 1) / 2;
}

void ctc_loss(const Ctc& call, cudaStream_t stream) {
  if (call.batch <= 0) return;
  const int64_t rows = call.batch * call.seq_len, states = 2 * call.max_targets + 1;
  static const cudaError_t raised = [] {
    const int most = device_limits().shared_bytes_per_block - (2 << 10);
    const cudaError_t lattice =
        cudaFuncSetAttribute(lattice_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most);
    const cudaError_t gradient =
        cudaFuncSetAttribute(gradient_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most);
    return lattice != cudaSuccess ? lattice : gradient;
  }();
  (void)raised;  // a launch that needed it reports its own error
  if (rows > 0) {
    frames_kernel<<<static_cast<unsigned>(ceil_div(rows, frame_threads / 32)), frame_threads, 0,
                    stream>>>(call);
  }
  const auto threads = static_cast<unsigned>(
      std::min<int64_t>(most_lattice_threads, round_up(std::max<int64_t>(states, 32), 32)));
  const dim3 grid(static_cast<unsigned>(call.batch), call.d_logits ? 2 : 1);
  lattice_kernel<<<grid, threads, lattice_bytes(call.max_targets), stream>>>(call);
  sums_kernel<<<1, 32, 0, stream>>>(call);
  if (call.d_logits && rows > 0) {
    gradient_kernel<<<static_cast<unsigned>(rows), share_threads, static_cast<size_t>(states) * 4,
                      stream>>>(call);
  }
}

}  // namespace sigtrain::kernels
