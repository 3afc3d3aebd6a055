// Warpgroup products of Hopper's tensor cores (wgmma, PTX ISA 9.7.15): D [64, N] (+)= A [64, 16] B
// [16, N], bf16 in, fp32 sums. Four warps issue one together and it runs on its own: between issue
// and wait the accumulators, and A where it is in registers, may not be touched.
//
// Accumulators: thread t of the warpgroup holds, of rows 16 (t / 32) + (t % 32) / 4 + {0, 8} and
// columns 8 i + 2 (t % 4) + {0, 1}, element d[4 i + 2 (row / 8 % 2) + column % 2]. Two neighbouring
// column groups, packed to bf16, are A's registers for 16 columns: what one product leaves is what
// the next one takes.
#pragma once

#include <cstdint>

#include "ptx_sm90.cuh"

namespace sigtrain::kernels {

/// Where an operand lies in shared memory: panels of 64 columns, a row of a panel 128 bytes, in the
/// 128-byte swizzle (16-byte chunk c of row r lies at chunk c ^ (r % 8)), beginning at a multiple
/// of 1024 bytes. `panel_bytes` from one panel to the next counts only where the operand's rows are
/// the summed dimension ("transposed": V in P V); otherwise its columns are.
__device__ __forceinline__ uint64_t shared_operand(SharedAddress begin, int panel_bytes = 16) {
  constexpr uint64_t eight_rows = 1024, swizzle_128 = 1;
  return uint64_t{(begin & 0x3ffff) >> 4} | static_cast<uint64_t>(panel_bytes >> 4) << 16 |
         (eight_rows >> 4) << 32 | swizzle_128 << 62;
}
/// The same operand `bytes` further on.
__device__ __forceinline__ uint64_t advance(uint64_t operand, int bytes) {
  return operand + (static_cast<uint32_t>(bytes) >> 4);
}

/// Where this lane's row goes when store_matrices() writes accumulators to a panel: rows `row` to
/// row + 15 of it, columns 0 to 15; at_block() goes on to columns 16 block to 16 block + 15 of an
/// operand of several panels.
__device__ __forceinline__ SharedAddress matrix_rows(SharedAddress panel, int row) {
  const int lane = lane_index(), matrix = lane >> 3, in_matrix = lane & 7;
  return panel + (row + (matrix & 1) * 8 + in_matrix) * 128 + ((matrix >> 1) ^ in_matrix) * 16;
}
__device__ __forceinline__ SharedAddress at_block(SharedAddress rows, int block, int panel_bytes) {
  return (rows ^ (block % 4 * 32)) + block / 4 * panel_bytes;
}

/// Keeps the compiler from computing ahead of a loop, and keeping in registers, what follows from
/// x.
template <typename Value>
__device__ __forceinline__ void compute_here(Value& x) {
  asm volatile("" : "+r"(x));
}
__device__ __forceinline__ void compute_here(float& x) { asm volatile("" : "+f"(x)); }
__device__ __forceinline__ void compute_here(uint64_t& x) { asm volatile("" : "+l"(x)); }

/// Keeps the compiler from moving what it does with these registers past this point.
template <int Count>
__device__ __forceinline__ void pin(float (&registers)[Count]) {
#pragma unroll
  for (int i = 0; i < Count; ++i) asm volatile("" : "+f"(registers[i])::"memory");
}
template <int Count>
__device__ __forceinline__ void pin(uint32_t (&registers)[Count]) {
#pragma unroll
  for (int i = 0; i < Count; ++i) asm volatile("" : "+r"(registers[i])::"memory");
}

/// Tells the compiler that these accumulators' old values are not needed, which a product that does
/// not add to them does not say: else they would keep their registers until it.
template <int Count>
__device__ __forceinline__ void forget(float (&accumulators)[Count]) {
#pragma unroll
  for (int i = 0; i < Count; ++i) asm volatile("" : "=f"(accumulators[i]));
}

/// Before the first product after ordinary code has touched registers that products use.
__device__ __forceinline__ void products_begin() {
  asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory");
}
__device__ __forceinline__ void products_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory");
}
/// Until all but the last `Pending` committed groups are done.
template <int Pending>
__device__ __forceinline__ void products_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(Pending) : "memory");
}

// The lists of registers that the instruction wants, four at a time.
#define SIGTRAIN_4(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define SIGTRAIN_16(d, i) \
  SIGTRAIN_4(d, i), SIGTRAIN_4(d, i + 4), SIGTRAIN_4(d, i + 8), SIGTRAIN_4(d, i + 12)
#define SIGTRAIN_32(d, i) SIGTRAIN_16(d, i), SIGTRAIN_16(d, i + 16)
#define SIGTRAIN_NAMES_0 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define SIGTRAIN_NAMES_16 \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define SIGTRAIN_NAMES_32 \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define SIGTRAIN_NAMES_48 \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define SIGTRAIN_NAMES_64 \
  "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79"
#define SIGTRAIN_NAMES_80 \
  "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"

/// d [64, 32] = a b, or += with `add`. A's, B's rows are the summed dimension if TransposedA,
/// TransposedB.
template <bool TransposedA, bool TransposedB>
__device__ __forceinline__ void product(float (&d)[16], uint64_t a, uint64_t b, bool add) {
  asm volatile(
      "{\n.reg .pred add;\nsetp.ne.b32 add, %18, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 {" SIGTRAIN_NAMES_0
      "}, %16, %17, add, 1, 1, %19, %20;\n}\n"
      : SIGTRAIN_16(d, 0)
      : "l"(a), "l"(b), "r"(static_cast<int>(add)), "n"(TransposedA), "n"(TransposedB));
}
template <bool TransposedB>
__device__ __forceinline__ void product(float (&d)[16], const uint32_t* a, uint64_t b, bool add) {
  asm volatile(
      "{\n.reg .pred add;\nsetp.ne.b32 add, %21, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 {" SIGTRAIN_NAMES_0
      "}, {%16, %17, %18, %19}, %20, add, 1, 1, %22;\n}\n"
      : SIGTRAIN_16(d, 0)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(add)),
        "n"(TransposedB));
}

/// d [64, 64] = a b, or += with `add`. A's, B's rows are the summed dimension if TransposedA,
/// TransposedB.
template <bool TransposedA, bool TransposedB>
__device__ __forceinline__ void product(float (&d)[32], uint64_t a, uint64_t b, bool add) {
  asm volatile(
      "{\n.reg .pred add;\nsetp.ne.b32 add, %34, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" SIGTRAIN_NAMES_0
      ", " SIGTRAIN_NAMES_16 "}, %32, %33, add, 1, 1, %35, %36;\n}\n"
      : SIGTRAIN_32(d, 0)
      : "l"(a), "l"(b), "r"(static_cast<int>(add)), "n"(TransposedA), "n"(TransposedB));
}
template <bool TransposedB>
__device__ __forceinline__ void product(float (&d)[32], const uint32_t* a, uint64_t b, bool add) {
  asm volatile(
      "{\n.reg .pred add;\nsetp.ne.b32 add, %37, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" SIGTRAIN_NAMES_0
      ", " SIGTRAIN_NAMES_16 "}, {%32, %33, %34, %35}, %36, add, 1, 1, %38;\n}\n"
      : SIGTRAIN_32(d, 0)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(add)),
        "n"(TransposedB));
}

/// d [64, 96] = a b, or += with `add`. A's, B's rows are the summed dimension if TransposedA,
/// TransposedB.
template <bool TransposedA, bool TransposedB>
__device__ __forceinline__ void product(float (&d)[48], uint64_t a, uint64_t b, bool add) {
  asm volatile(
      "{\n.reg .pred add;\nsetp.ne.b32 add, %50, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n96k16.f32.bf16.bf16 {" SIGTRAIN_NAMES_0
      ", " SIGTRAIN_NAMES_16 ", " SIGTRAIN_NAMES_32 "}, %48, %49, add, 1, 1, %51, %52;\n}\n"
      : SIGTRAIN_32(d, 0), SIGTRAIN_16(d, 32)
      : "l"(a), "l"(b), "r"(static_cast<int>(add)), "n"(TransposedA), "n"(TransposedB));
}
template <bool TransposedB>
__device__ __forceinline__ void product(float (&d)[48], const uint32_t* a, uint64_t b, bool add) {
  asm volatile(
      "{\n.reg .pred add;\nsetp.ne.b32 add, %53, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n96k16.f32.bf16.bf16 {" SIGTRAIN_NAMES_0
      ", " SIGTRAIN_NAMES_16 ", " SIGTRAIN_NAMES_32
      "}, {%48, %49, %50, %51}, %52, add, 1, 1, %54;\n}\n"
      : SIGTRAIN_32(d, 0), SIGTRAIN_16(d, 32)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(add)),
        "n"(TransposedB));
}

/// d [64, 128] = a b, or += with `add`. A's, B's rows are the summed dimension if TransposedA,
/// TransposedB.
template <bool TransposedA, bool TransposedB>
__device__ __forceinline__ void product(float (&d)[64], uint64_t a, uint64_t b, bool add) {
  asm volatile(
      "{\n.reg .pred add;\nsetp.ne.b32 add, %66, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" SIGTRAIN_NAMES_0
      ", " SIGTRAIN_NAMES_16 ", " SIGTRAIN_NAMES_32 ", " SIGTRAIN_NAMES_48
      "}, %64, %65, add, 1, 1, %67, %68;\n}\n"
      : SIGTRAIN_32(d, 0), SIGTRAIN_32(d, 32)
      : "l"(a), "l"(b), "r"(static_cast<int>(add)), "n"(TransposedA), "n"(TransposedB));
}
template <bool TransposedB>
__device__ __forceinline__ void product(float (&d)[64], const uint32_t* a, uint64_t b, bool add) {
  asm volatile(
      "{\n.reg .pred add;\nsetp.ne.b32 add, %69, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" SIGTRAIN_NAMES_0
      ", " SIGTRAIN_NAMES_16 ", " SIGTRAIN_NAMES_32 ", " SIGTRAIN_NAMES_48
      "}, {%64, %65, %66, %67}, %68, add, 1, 1, %70;\n}\n"
      : SIGTRAIN_32(d, 0), SIGTRAIN_32(d, 32)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(add)),
        "n"(TransposedB));
}

/// d [64, 192] = a b, or += with `add`. A's, B's rows are the summed dimension if TransposedA,
/// TransposedB.
template <bool TransposedA, bool TransposedB>
__device__ __forceinline__ void product(float (&d)[96], uint64_t a, uint64_t b, bool add) {
  asm volatile(
      "{\n.reg .pred add;\nsetp.ne.b32 add, %98, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n192k16.f32.bf16.bf16 {" SIGTRAIN_NAMES_0
      ", " SIGTRAIN_NAMES_16 ", " SIGTRAIN_NAMES_32 ", " SIGTRAIN_NAMES_48 ", " SIGTRAIN_NAMES_64
      ", " SIGTRAIN_NAMES_80 "}, %96, %97, add, 1, 1, %99, %100;\n}\n"
      : SIGTRAIN_32(d, 0), SIGTRAIN_32(d, 32), SIGTRAIN_32(d, 64)
      : "l"(a), "l"(b), "r"(static_cast<int>(add)), "n"(TransposedA), "n"(TransposedB));
}
template <bool TransposedB>
__device__ __forceinline__ void product(float (&d)[96], const uint32_t* a, uint64_t b, bool add) {
  asm volatile(
      "{\n.reg .pred add;\nsetp.ne.b32 add, %101, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n192k16.f32.bf16.bf16 {" SIGTRAIN_NAMES_0
      ", " SIGTRAIN_NAMES_16 ", " SIGTRAIN_NAMES_32 ", " SIGTRAIN_NAMES_48 ", " SIGTRAIN_NAMES_64
      ", " SIGTRAIN_NAMES_80 "}, {%96, %97, %98, %99}, %100, add, 1, 1, %102;\n}\n"
      : SIGTRAIN_32(d, 0), SIGTRAIN_32(d, 32), SIGTRAIN_32(d, 64)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(add)),
        "n"(TransposedB));
}

#undef SIGTRAIN_4
#undef SIGTRAIN_16
#undef SIGTRAIN_32
#undef SIGTRAIN_NAMES_0
#undef SIGTRAIN_NAMES_16
#undef SIGTRAIN_NAMES_32
#undef SIGTRAIN_NAMES_48
#undef SIGTRAIN_NAMES_64
#undef SIGTRAIN_NAMES_80

}  // namespace sigtrain::kernels
