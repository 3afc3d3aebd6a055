#include <cmath>

#include "column_sums.cuh"
#include "elementwise.h"
#include "launch.h"
#include "vector.cuh"

namespace sigtrain::kernels {
namespace {

constexpr int block_threads = 256;

/// Calls body(begin, end) for the parts of [0, count), of 8 elements with kAligned and of 1
/// without; a thread has one part. Blocks that end make room for others: a grid that loops would
/// wait for its slowest block, or for blocks that did not fit beside the first ones.
template <bool kAligned, typename Body>
__global__ void __launch_bounds__(block_threads) for_parts(int64_t count, Body body) {
  constexpr int step = kAligned ? vector_size : 1;
  const int64_t i = (int64_t{blockIdx.x} * block_threads + threadIdx.x) * step;
  if (i < count) body(i, min(i + step, count));
}

template <typename Body>
void launch_parts(bool aligned, int64_t count, cudaStream_t stream, Body body) {
  if (count <= 0) return;
  // 2^31 - 1 blocks are the most: 2^39 single elements, more than any memory holds.
  const int64_t per_block = int64_t{block_threads} * (aligned ? vector_size : 1);
  const auto grid = static_cast<unsigned>(ceil_div(count, per_block));
  if (aligned) {
    for_parts<true><<<grid, block_threads, 0, stream>>>(count, body);
  } else {
    for_parts<false><<<grid, block_threads, 0, stream>>>(count, body);
  }
}

template <typename From, typename To>
struct Convert {
  const From* x;
  To* y;
  __device__ void operator()(int64_t begin, int64_t end) const {
    float v[8];
    load_part(x, begin, end, v);
    store_part(y, begin, end, v);
  }
};

struct Add {
  const bf16* x;
  bf16* y;
  __device__ void operator()(int64_t begin, int64_t end) const {
    float a[8], b[8];
    load_part(x, begin, end, a);
    load_part(y, begin, end, b);
#pragma unroll
    for (int i = 0; i < 8; ++i) b[i] += a[i];
    store_part(y, begin, end, b);
  }
};

/// The normal distribution function Phi and its density, which share an exponential.
///
/// Phi(-a) = exp(-a^2 / 2) t P(t), t = 1 / (1 + p a), a >= 0, as Abramowitz & Stegun 7.1.26 have
/// it; P of degree 5 and p are fitted for the least maximum of the relative error on [0, 13.5]
/// (where the exponential leaves float): 3.8e-6, a thousandth of a bfloat16's rounding. erff takes
/// twice the instructions, and 1 + erff loses the digits of the tail.
struct Normal {
  __device__ explicit Normal(float x) {
    const float exponential = exp2f_fast(x * x * -0.72134752044448170f);  // -log2(e) / 2
    const float t = __fdividef(1.0f, fmaf(0.308f, fabsf(x), 1.0f));
    float tail = -0.07553262263536453f;
    tail = fmaf(tail, t, 0.18991044163703918f);
    tail = fmaf(tail, t, 0.006956181954592466f);
    tail = fmaf(tail, t, 0.13669553399085999f);
    tail = fmaf(tail, t, 0.11884238570928574f);
    tail = fmaf(tail, t, 0.12312617897987366f);
    tail *= t * exponential;
    cdf = x < 0.0f ? tail : 1.0f - tail;
    density = 0.39894228040143268f * exponential;  // 1 / sqrt(2 pi)
  }
  float cdf, density;
};

struct Gelu {
  __device__ static float value(float x) { return x * Normal(x).cdf; }
  __device__ static float derivative(float x) {
    const Normal normal(x);
    return fmaf(x, normal.density, normal.cdf);
  }
};

// Written so that NaN stays NaN.
struct Relu2 {
  __device__ static float value(float x) { return x < 0.0f ? 0.0f : x * x; }
  __device__ static float derivative(float x) { return x < 0.0f ? 0.0f : 2.0f * x; }
};

template <typename Function>
struct Activate {
  const bf16* x;
  bf16* y;
  __device__ void operator()(int64_t begin, int64_t end) const {
    float v[8];
    load_part(x, begin, end, v);
#pragma unroll
    for (int i = 0; i < 8; ++i) v[i] = Function::value(v[i]);
    store_part(y, begin, end, v);
  }
};

template <typename Function>
struct MultiplyByDerivative {
  const bf16* x;
  bf16* dx;
  __device__ void operator()(int64_t begin, int64_t end) const {
    float v[8], d[8];
    load_part(x, begin, end, v);
    load_part(dx, begin, end, d);
#pragma unroll
    for (int i = 0; i < 8; ++i) d[i] *= Function::derivative(v[i]);
    store_part(dx, begin, end, d);
  }
};

/// The same row by row, for the sums of dx as it is stored.
template <typename Function>
struct RowsTimesDerivative {
  static constexpr int loads = 4;
  const bf16* x;
  bf16* dx;
  struct Loaded {
    uint4 x, dx;
  };
  template <bool kAligned>
  __device__ Loaded load(const RowPart<kAligned>& part, int64_t at) const {
    return {part.load_packed(x + at), part.load_packed(dx + at)};
  }
  template <bool kAligned>
  __device__ void finish(const RowPart<kAligned>& part, int64_t at, const Loaded& loaded,
                         float (&d)[8]) const {
    float v[8];
    unpack(loaded.x, v);
    unpack(loaded.dx, d);
#pragma unroll
    for (int i = 0; i < 8; ++i) d[i] *= Function::derivative(v[i]);
    const uint4 packed = pack(d);
    part.store_packed(dx + at, packed);
    unpack(packed, d);
  }
};

/// dx *= Function'(x), and sums += its column sums unless null.
template <typename Function>
void multiply_by_derivative(const bf16* x, bf16* dx, int64_t rows, int64_t width, float* sums,
                            float* partials, cudaStream_t stream) {
  if (sums) {
    add_column_sums_of(RowsTimesDerivative<Function>{x, dx},
                       width % vector_size == 0 && aligned16(x, dx), rows, width, sums, partials,
                       stream);
  } else {
    launch_parts(aligned16(x, dx), rows * width, stream, MultiplyByDerivative<Function>{x, dx});
  }
}

// The fast exponential and reciprocal are good to about 1e-6, far below a bfloat16's 2^-9. At
// large |x| the exponential goes to infinity or 0, and the result to 0 or 1.
__device__ inline float sigmoid(float x) { return __fdividef(1.0f, 1.0f + __expf(-x)); }

struct ValueAndDerivative {
  float value, derivative;
};

struct Sigmoid {
  __device__ static float value(float x) { return sigmoid(x); }
  __device__ static ValueAndDerivative both(float x) {
    const float s = sigmoid(x);
    return {s, s * (1.0f - s)};
  }
};

/// x sigmoid(x)
struct Silu {
  __device__ static float value(float x) { return x * sigmoid(x); }
  __device__ static ValueAndDerivative both(float x) {
    const float s = sigmoid(x);
    return {x * s, s * (1.0f + x * (1.0f - s))};
  }
};

/// Which half of a row the gate is; the other half is the value that it multiplies.
enum class GateHalf { first, second };

/// Where element `begin` of [rows, hidden] has its value and its gate in [rows, 2 hidden]. A part
/// never crosses the end of a row: with wide accesses `hidden` is a multiple of 8. Element counts
/// fit 32 bits (the launcher sees to it), where division is cheap.
template <GateHalf kGate>
struct GatedIndex {
  __device__ GatedIndex(int64_t begin, uint32_t hidden) {
    const uint32_t row = static_cast<uint32_t>(begin) / hidden;
    const int64_t first = begin + int64_t{row} * hidden;  // row * 2 hidden + column
    gate = kGate == GateHalf::first ? first : first + hidden;
    value = kGate == GateHalf::first ? first + hidden : first;
  }
  int64_t value, gate;
};

template <typename Function, GateHalf kGate>
struct GatedForward {
  const bf16* x;
  bf16* y;
  uint32_t hidden;
  __device__ void operator()(int64_t begin, int64_t end) const {
    const GatedIndex<kGate> at(begin, hidden);
    const int64_t n = end - begin;
    float value[8], gate[8];
    load_part(x, at.value, at.value + n, value);
    load_part(x, at.gate, at.gate + n, gate);
#pragma unroll
    for (int i = 0; i < 8; ++i) value[i] *= Function::value(gate[i]);
    store_part(y, begin, end, value);
  }
};

template <typename Function, GateHalf kGate>
struct GatedBackward {
  const bf16* x;
  const bf16* dy;
  bf16* dx;
  uint32_t hidden;
  __device__ void operator()(int64_t begin, int64_t end) const {
    const GatedIndex<kGate> at(begin, hidden);
    const int64_t n = end - begin;
    float value[8], gate[8], d[8];
    load_part(x, at.value, at.value + n, value);
    load_part(x, at.gate, at.gate + n, gate);
    load_part(dy, begin, end, d);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const ValueAndDerivative f = Function::both(gate[i]);
      gate[i] = d[i] * value[i] * f.derivative;
      value[i] = d[i] * f.value;
    }
    store_part(dx, at.value, at.value + n, value);
    store_part(dx, at.gate, at.gate + n, gate);
  }
};

/// uniform_from_bits(bits) >= p without the conversions: the number is the upper 24 bits over 2^24.
/// Where float(p) is 1 and nothing should be kept, the largest bits are: `never` says so.
struct AtLeast {
  explicit AtLeast(double p) {
    const double threshold = std::ceil(double{static_cast<float>(p)} * 0x1p24);
    never = threshold >= 0x1p24;
    least = never ? 0xffffffffu : static_cast<uint32_t>(threshold) << 8;
  }
  __device__ bool operator()(uint32_t bits) const { return bits >= least; }
  uint32_t least;
  bool never;
};

// The keys come from the host: a thread that made them itself would spend as much on them as on the
// numbers.
struct Dropout {
  PhiloxKeys keys;
  RandomStream random;
  const uint64_t* step;
  AtLeast kept;
  float scale;
  const bf16* x;
  bf16* y;
  // Parts start on multiples of 8, or are single elements.
  __device__ void operator()(int64_t begin, int64_t end) const {
    float v[8];
    load_part(x, begin, end, v);
    const uint64_t high = random.counter_high(*step);
    if (end - begin == 1) {
      const Philox block = philox(keys, static_cast<uint64_t>(begin / 4), high);
      const uint32_t word = block.words[begin % 4];
      v[0] = kept(word) ? v[0] * scale : 0.0f;
    } else {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const Philox block = philox(keys, static_cast<uint64_t>(begin / 4 + half), high);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          float& value = v[4 * half + i];
          value = kept(block.words[i]) ? value * scale : 0.0f;
        }
      }
    }
    store_part(y, begin, end, v);
  }
};

struct StochasticDepth {
  RandomStream random;
  const uint64_t* step;
  AtLeast kept;
  float kept_scale;
  float* scale;
  __device__ void operator()(int64_t begin, int64_t) const {
    const Philox block = random.block(static_cast<uint64_t>(begin), *step);
    scale[begin] = kept(block.words[0]) ? kept_scale : 0.0f;
  }
};

struct LayerDrop {
  RandomStream random;
  const uint64_t* step;
  float threshold;
  float* scale;
  __device__ void operator()(int64_t begin, int64_t) const {
    const Philox block = random.block(0, *step);
    scale[begin] = uniform_from_bits(block.words[0]) >= threshold ? 1.0f : 0.0f;
  }
};

template <typename T>
struct Fill {
  T* x;
  T value;
  __device__ void operator()(int64_t begin, int64_t end) const {
    constexpr int per_access = 16 / sizeof(T);
    if (end - begin == 8) {
      union {
        T elements[per_access];
        uint4 raw;
      } part;
#pragma unroll
      for (int i = 0; i < per_access; ++i) part.elements[i] = value;
#pragma unroll
      for (int i = 0; i < 8 / per_access; ++i) reinterpret_cast<uint4*>(x + begin)[i] = part.raw;
    } else {
      for (int64_t i = begin; i < end; ++i) x[i] = value;
    }
  }
};

__global__ void set_value(uint64_t* value, uint64_t step) { *value = step; }
__global__ void increment(uint64_t* value) { ++*value; }

template <typename T>
void fill_with(void* x, int64_t count, uint64_t bits, cudaStream_t stream) {
  launch_parts(aligned16(x), count, stream, Fill<T>{static_cast<T*>(x), static_cast<T>(bits)});
}

// Rows a launch of the gated kernels may have: their indices are of 32 bits.
int64_t gated_rows_per_launch(int64_t hidden) {
  return std::max<int64_t>(1, (int64_t{1} << 31) / std::max<int64_t>(1, hidden));
}

template <typename Function, GateHalf kGate>
void gated_forward(const bf16* x, bf16* y, int64_t rows, int64_t hidden, cudaStream_t stream) {
  const bool aligned = hidden % vector_size == 0 && aligned16(x, y);
  const int64_t most = gated_rows_per_launch(hidden);
  for (int64_t row = 0; row < rows; row += most) {
    launch_parts(aligned, std::min(most, rows - row) * hidden, stream,
                 GatedForward<Function, kGate>{x + row * 2 * hidden, y + row * hidden,
                                               static_cast<uint32_t>(hidden)});
  }
}

template <typename Function, GateHalf kGate>
void gated_backward(const bf16* x, const bf16* dy, bf16* dx, int64_t rows, int64_t hidden,
                    cudaStream_t stream) {
  const bool aligned = hidden % vector_size == 0 && aligned16(x, dy, dx);
  const int64_t most = gated_rows_per_launch(hidden);
  for (int64_t row = 0; row < rows; row += most) {
    launch_parts(
        aligned, std::min(most, rows - row) * hidden, stream,
        GatedBackward<Function, kGate>{x + row * 2 * hidden, dy + row * hidden,
                                       dx + row * 2 * hidden, static_cast<uint32_t>(hidden)});
  }
}

}  // namespace

void fill(void* x, int64_t count, int element_bytes, uint64_t bits, cudaStream_t stream) {
  switch (element_bytes) {
    case 2:
      return fill_with<uint16_t>(x, count, bits, stream);
    case 4:
      return fill_with<uint32_t>(x, count, bits, stream);
    default:
      return fill_with<uint64_t>(x, count, bits, stream);
  }
}

void convert(const float* x, bf16* y, int64_t count, cudaStream_t stream) {
  launch_parts(aligned16(x, y), count, stream, Convert<float, bf16>{x, y});
}

void convert(const bf16* x, float* y, int64_t count, cudaStream_t stream) {
  launch_parts(aligned16(x, y), count, stream, Convert<bf16, float>{x, y});
}

void add(const bf16* x, bf16* y, int64_t count, cudaStream_t stream) {
  launch_parts(aligned16(x, y), count, stream, Add{x, y});
}

void gelu_forward(const bf16* x, bf16* y, int64_t count, cudaStream_t stream) {
  launch_parts(aligned16(x, y), count, stream, Activate<Gelu>{x, y});
}

void gelu_backward(const bf16* x, bf16* dx, int64_t rows, int64_t width, float* sums,
                   float* partials, cudaStream_t stream) {
  multiply_by_derivative<Gelu>(x, dx, rows, width, sums, partials, stream);
}

void relu2_forward(const bf16* x, bf16* y, int64_t count, cudaStream_t stream) {
  launch_parts(aligned16(x, y), count, stream, Activate<Relu2>{x, y});
}

void relu2_backward(const bf16* x, bf16* dx, int64_t rows, int64_t width, float* sums,
                    float* partials, cudaStream_t stream) {
  multiply_by_derivative<Relu2>(x, dx, rows, width, sums, partials, stream);
}

int64_t activation_backward_partials(int64_t rows, int64_t width) {
  // As many for any function: the loads are.
  return column_sum_partials_of<RowsTimesDerivative<Gelu>>(rows, width);
}

void swiglu_forward(const bf16* x, bf16* y, int64_t rows, int64_t hidden, cudaStream_t stream) {
  gated_forward<Silu, GateHalf::first>(x, y, rows, hidden, stream);
}

void swiglu_backward(const bf16* x, const bf16* dy, bf16* dx, int64_t rows, int64_t hidden,
                     cudaStream_t stream) {
  gated_backward<Silu, GateHalf::first>(x, dy, dx, rows, hidden, stream);
}

void glu_forward(const bf16* x, bf16* y, int64_t rows, int64_t hidden, cudaStream_t stream) {
  gated_forward<Sigmoid, GateHalf::second>(x, y, rows, hidden, stream);
}

void glu_backward(const bf16* x, const bf16* dy, bf16* dx, int64_t rows, int64_t hidden,
                  cudaStream_t stream) {
  gated_backward<Sigmoid, GateHalf::second>(x, dy, dx, rows, hidden, stream);
}

void set_random_step(uint64_t* value, uint64_t step, cudaStream_t stream) {
  set_value<<<1, 1, 0, stream>>>(value, step);
}

void next_random_step(uint64_t* value, cudaStream_t stream) {
  increment<<<1, 1, 0, stream>>>(value);
}

void dropout(RandomStream random, const uint64_t* step, double p, const bf16* x, bf16* y,
             int64_t count, cudaStream_t stream) {
  const AtLeast kept(p);
  const auto scale = static_cast<float>(kept.never ? 0.0 : 1.0 / (1.0 - p));
  launch_parts(aligned16(x, y), count, stream,
               Dropout{PhiloxKeys(random.seed), random, step, kept, scale, x, y});
}

void stochastic_depth(RandomStream random, const uint64_t* step, double p, float* scale,
                      int64_t count, cudaStream_t stream) {
  const AtLeast kept(p);
  const auto kept_scale = static_cast<float>(kept.never ? 0.0 : 1.0 / (1.0 - p));
  launch_parts(false, count, stream, StochasticDepth{random, step, kept, kept_scale, scale});
}

void layer_drop(RandomStream random, const uint64_t* step, double p, float* scale, int64_t count,
                cudaStream_t stream) {
  launch_parts(false, count, stream, LayerDrop{random, step, static_cast<float>(p), scale});
}

}  // namespace sigtrain::kernels
