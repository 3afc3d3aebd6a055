// Device helpers shared by the memory-bound kernels: 16-byte accesses, sums in a fixed order.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace sigtrain::kernels {

using bf16 = __nv_bfloat16;

/// Elements a thread owns of a row: 8 bfloat16 are one 16-byte access, the widest there is.
constexpr int vector_size = 8;

__device__ inline void unpack(const uint4& raw, float (&x)[8]) {
  const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    // A bfloat16 is the upper half of a float.
    x[2 * i] = __uint_as_float(words[i] << 16);
    x[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
  }
}

__device__ inline uint4 pack(const float (&x)[8]) {
  uint32_t words[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(x[2 * i], x[2 * i + 1]);
    words[i] = *reinterpret_cast<const uint32_t*>(&pair);
  }
  return make_uint4(words[0], words[1], words[2], words[3]);
}

__device__ inline uint4 load_raw(const bf16* p) { return *reinterpret_cast<const uint4*>(p); }

/// Keeps the compiler from holding on to what was unpacked of this: unpacking again costs an
/// instruction an element, keeping it twice the registers.
__device__ inline void forget_unpacked(uint4& raw) {
  asm volatile("" : "+r"(raw.x), "+r"(raw.y), "+r"(raw.z), "+r"(raw.w));
}

__device__ inline void load(const bf16* p, float (&x)[8]) { unpack(load_raw(p), x); }

__device__ inline void load(const float* p, float (&x)[8]) {
  const float4 a = reinterpret_cast<const float4*>(p)[0];
  const float4 b = reinterpret_cast<const float4*>(p)[1];
  x[0] = a.x, x[1] = a.y, x[2] = a.z, x[3] = a.w;
  x[4] = b.x, x[5] = b.y, x[6] = b.z, x[7] = b.w;
}

__device__ inline void store(bf16* p, const float (&x)[8]) {
  *reinterpret_cast<uint4*>(p) = pack(x);
}

__device__ inline void store(float* p, const float (&x)[8]) {
  reinterpret_cast<float4*>(p)[0] = make_float4(x[0], x[1], x[2], x[3]);
  reinterpret_cast<float4*>(p)[1] = make_float4(x[4], x[5], x[6], x[7]);
}

__device__ inline float to_float(bf16 x) { return __bfloat162float(x); }
__device__ inline float to_float(float x) { return x; }
template <typename T>
__device__ inline T from_float(float x);
template <>
__device__ inline bf16 from_float<bf16>(float x) {
  return __float2bfloat16_rn(x);
}
template <>
__device__ inline float from_float<float>(float x) {
  return x;
}

/// What a bfloat16 would keep of x.
__device__ inline float round_to_bf16(float x) { return to_float(from_float<bf16>(x)); }

/// Up to 8 elements of [begin, end), zeros behind the end; aligned whole vectors in one access.
template <typename T>
__device__ inline void load_part(const T* x, int64_t begin, int64_t end, float (&v)[8]) {
  if (begin + 8 <= end) {
    load(x + begin, v);
  } else {
#pragma unroll
    for (int i = 0; i < 8; ++i) v[i] = begin + i < end ? to_float(x[begin + i]) : 0.0f;
  }
}

template <typename T>
__device__ inline void store_part(T* x, int64_t begin, int64_t end, const float (&v)[8]) {
  if (begin + 8 <= end) {
    store(x + begin, v);
  } else {
#pragma unroll
    for (int i = 0; i < 8; ++i)
      if (begin + i < end) x[begin + i] = from_float<T>(v[i]);
  }
}

/// The 8 elements of a row that a thread of a row's `threads` owns. With kAligned rows start on 16
/// bytes and the elements are neighbours; without, they lie `threads` apart, so that a warp's
/// accesses still touch neighbouring elements.
template <bool kAligned>
struct RowPart {
  int thread, threads, width;

  __device__ int column(int i) const {
    return kAligned ? thread * vector_size + i : thread + i * threads;
  }
  __device__ bool owns(int i) const { return column(i) < width; }
  /// Packed, which takes half the registers.
  __device__ uint4 load_packed(const bf16* row) const {
    if constexpr (kAligned) {
      return owns(0) ? load_raw(row + column(0)) : make_uint4(0, 0, 0, 0);
    } else {
      float x[8];
      load_row(row, x);
      return pack(x);
    }
  }
  __device__ void store_packed(bf16* row, const uint4& packed) const {
    if constexpr (kAligned) {
      if (owns(0)) *reinterpret_cast<uint4*>(row + column(0)) = packed;
    } else {
      float x[8];
      unpack(packed, x);
      store_row(row, x);
    }
  }
  /// Zeros behind the end of the row.
  template <typename T>
  __device__ void load_row(const T* row, float (&x)[8]) const {
    if constexpr (kAligned) {
      if (owns(0)) {
        load(row + column(0), x);
        return;
      }
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) x[i] = !kAligned && owns(i) ? to_float(row[column(i)]) : 0.0f;
  }
  template <typename T>
  __device__ void store_row(T* row, const float (&x)[8]) const {
    if constexpr (kAligned) {
      if (owns(0)) store(row + column(0), x);
    } else {
#pragma unroll
      for (int i = 0; i < 8; ++i)
        if (owns(i)) row[column(i)] = from_float<T>(x[i]);
    }
  }
};

/// The parts of a row that a thread of a team of `threads` owns: kVectors times 8 elements.
template <bool kAligned, int kVectors>
struct TeamRow {
  int thread, threads, width;

  __device__ RowPart<kAligned> operator[](int v) const {
    return {thread + v * threads, kVectors * threads, width};
  }
  __device__ void load(const bf16* row, uint4 (&packed)[kVectors]) const {
#pragma unroll
    for (int v = 0; v < kVectors; ++v) packed[v] = (*this)[v].load_packed(row);
  }
};

template <int kVectors>
__device__ inline void forget_unpacked(uint4 (&packed)[kVectors]) {
#pragma unroll
  for (int v = 0; v < kVectors; ++v) forget_unpacked(packed[v]);
}

/// 2^x to two units in the last place, 0 where the result is below the normal floats.
__device__ inline float exp2f_fast(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

template <typename T>
__device__ inline T warp_sum(T x) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
  return x;
}

__device__ inline float warp_max(float x) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2)
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, offset));
  return x;
}

/// Sums over the threads of a team, some neighbouring warps of a block; every thread gets the
/// result, in an order that depends on the team's size alone. All threads of the block that have
/// not returned take part, each for its own team. One barrier a sum, none where a team is a warp:
/// two buffers take turns, and a thread can write into one again only after all have read it and
/// passed the other's barrier.
template <typename T>
class TeamSum {
 public:
  struct Storage {
    T partials[2][32];
  };
  __device__ TeamSum(Storage& storage, int team, int team_threads)
      : storage_(storage), warps_(team_threads / 32), first_warp_(team * warps_) {}

  __device__ T operator()(T x) {
    x = warp_sum(x);
    if (warps_ == 1) return x;
    T* partials = storage_.partials[turn_];
    turn_ ^= 1;
    const unsigned thread = threadIdx.y * blockDim.x + threadIdx.x;
    if (thread % 32 == 0) partials[thread / 32] = x;
    __syncthreads();
    T total = 0;
    for (int warp = 0; warp < warps_; ++warp) total += partials[first_warp_ + warp];
    return total;
  }

 private:
  Storage& storage_;
  int warps_, first_warp_;
  int turn_ = 0;
};

/// Over all threads of a block of one dimension.
template <typename T>
struct BlockSum : TeamSum<T> {
  __device__ explicit BlockSum(typename TeamSum<T>::Storage& storage)
      : TeamSum<T>(storage, 0, static_cast<int>(blockDim.x)) {}
};

}  // namespace sigtrain::kernels
