// Thin named wrappers around the instructions of compute capability 8.0 that attention is made of:
// asynchronous copies into shared memory, matrix loads, matrix products, fast exponentials, and
// the ordering between thread blocks. Nothing else in attention_sm80 is inline assembly.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace sigtrain::kernels {

/// A byte address inside the block's shared memory.
using SharedAddress = uint32_t;

extern __shared__ __align__(1024) unsigned char dynamic_shared_memory[];

__device__ __forceinline__ SharedAddress shared_memory() {
  return static_cast<SharedAddress>(__cvta_generic_to_shared(dynamic_shared_memory));
}

__device__ __forceinline__ int lane_index() { return static_cast<int>(threadIdx.x) & 31; }
__device__ __forceinline__ int warp_index() { return static_cast<int>(threadIdx.x) >> 5; }

/// Copies 16 bytes without passing through registers; writes zeros instead, and reads nothing, if
/// not `valid`. Bypasses L1: every tile is read once by a block.
__device__ __forceinline__ void copy_async_16(SharedAddress to, const void* from, bool valid) {
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;\n" ::"r"(to), "l"(from),
               "r"(bytes));
}
__device__ __forceinline__ void copy_async_commit() { asm volatile("cp.async.commit_group;\n"); }
/// Waits for all of this thread's copies.
__device__ __forceinline__ void copy_async_wait() {
  asm volatile("cp.async.wait_group 0;\n" ::: "memory");
}

/// Four 8x8 matrices of 16-bit elements; lane l gives the address of row l % 8 of matrix l / 8.
__device__ __forceinline__ void load_matrices(uint32_t (&r)[4], SharedAddress row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(row));
}
/// The same, each matrix transposed.
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&r)[4], SharedAddress row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(row));
}

/// c [16, 8] += a [16, 16] b [16, 8], bf16 in, fp32 sums.
__device__ __forceinline__ void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                             uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};\n"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// 2^x; relative error 2^-22, 0 below -126.
__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
/// 1/x; relative error 2^-23.
__device__ __forceinline__ float reciprocal_fast(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/// The smaller; NaN if either is.
__device__ __forceinline__ float min_or_nan(float x, float y) {
  float z;
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(z) : "f"(x), "f"(y));
  return z;
}

/// Two bf16 in one register, `low` in the lower half: the order of fragments and of memory.
__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
  uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}

__device__ __forceinline__ float low_bf16(uint32_t packed) { return __uint_as_float(packed << 16); }
__device__ __forceinline__ float high_bf16(uint32_t packed) {
  return __uint_as_float(packed & 0xffff0000u);
}

__device__ __forceinline__ void store_shared(SharedAddress to, uint32_t value) {
  asm volatile("st.shared.u32 [%0], %1;\n" ::"r"(to), "r"(value) : "memory");
}
__device__ __forceinline__ void store_shared(SharedAddress to, float value) {
  store_shared(to, __float_as_uint(value));
}
__device__ __forceinline__ uint32_t load_shared(SharedAddress from) {
  uint32_t value;
  asm volatile("ld.shared.u32 %0, [%1];\n" : "=r"(value) : "r"(from) : "memory");
  return value;
}
__device__ __forceinline__ float4 load_shared_float4(SharedAddress from) {
  float4 v;
  asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];\n"
               : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
               : "r"(from)
               : "memory");
  return v;
}

__device__ __forceinline__ void store_shared_16(SharedAddress to, const uint32_t (&v)[4]) {
  asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};\n" ::"r"(to), "r"(v[0]), "r"(v[1]),
               "r"(v[2]), "r"(v[3])
               : "memory");
}
__device__ __forceinline__ void load_shared_16(uint32_t (&v)[4], SharedAddress from) {
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3])
               : "r"(from)
               : "memory");
}

/// Barriers among `threads` of a block, a multiple of 32; number 0 is __syncthreads(). What a
/// thread did before it arrived is seen by all who wait.
template <int Barrier, int Threads>
__device__ __forceinline__ void arrive_at() {
  asm volatile("bar.arrive %0, %1;\n" ::"n"(Barrier), "n"(Threads) : "memory");
}
template <int Barrier, int Threads>
__device__ __forceinline__ void wait_at() {
  asm volatile("bar.sync %0, %1;\n" ::"n"(Barrier), "n"(Threads) : "memory");
}

/// Sum over the lanes that differ in the bits of `Mask`, the same bits in each of them.
template <int Mask>
__device__ __forceinline__ float sum_lanes(float x) {
#pragma unroll
  for (int bit = 1; bit < 32; bit <<= 1)
    if (Mask & bit) x += __shfl_xor_sync(0xffffffffu, x, bit);
  return x;
}
template <int Mask>
__device__ __forceinline__ float max_lanes(float x) {
#pragma unroll
  for (int bit = 1; bit < 32; bit <<= 1)
    if (Mask & bit) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, bit));
  return x;
}

/// Adds to 16 bytes of global memory without waiting for the result.
__device__ __forceinline__ void add_global(float* to, float4 v) {
#if __CUDA_ARCH__ >= 900
  asm volatile("red.relaxed.gpu.global.add.v4.f32 [%0], {%1, %2, %3, %4};\n" ::"l"(to), "f"(v.x),
               "f"(v.y), "f"(v.z), "f"(v.w)
               : "memory");
#else
  atomicAdd(to, v.x);
  atomicAdd(to + 1, v.y);
  atomicAdd(to + 2, v.z);
  atomicAdd(to + 3, v.w);
#endif
}

/// What another block may be changing: never from this multiprocessor's L1.
__device__ __forceinline__ int load_relaxed(const int* from) {
  int value;
  asm volatile("ld.relaxed.gpu.global.s32 %0, [%1];\n" : "=r"(value) : "l"(from) : "memory");
  return value;
}
__device__ __forceinline__ void store_relaxed(int* to, int value) {
  asm volatile("st.relaxed.gpu.global.s32 [%0], %1;\n" ::"l"(to), "r"(value) : "memory");
}
/// Orders what this thread, and those that met it at a barrier, did before against what follows,
/// for all blocks of the device.
__device__ __forceinline__ void fence_device() {
  asm volatile("fence.acq_rel.gpu;\n" ::: "memory");
}

}  // namespace sigtrain::kernels
