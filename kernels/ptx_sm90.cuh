// Thin names for the instructions of compute capability 9.0a that the Hopper kernels use, as the
// PTX ISA describes them: mbarriers, bulk copies (TMA), fences, register reallocation, named
// barriers. Warpgroup products are in wgmma_sm90.cuh, older instructions in mma_sm80.cuh.
#pragma once

#include <cuda.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "mma_sm80.cuh"

namespace sigtrain::kernels {

constexpr int warpgroup_size = 128;

/// Tells the compiler of a value that it is the same in the whole warp, so that what follows from
/// it goes to the warp's own registers and not to each thread's.
template <typename Value>
__device__ __forceinline__ Value uniform(Value x) {
  return __shfl_sync(0xffffffffu, x, 0);
}

__device__ __forceinline__ int warpgroup_index() {
  return uniform(static_cast<int>(threadIdx.x) / warpgroup_size);
}

// ---- mbarriers: a phase ends when `arrivals` threads have arrived and all announced bytes are
// here

__device__ __forceinline__ void barrier_init(SharedAddress barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(barrier), "r"(arrivals)
               : "memory");
}
/// Makes initialised barriers visible to the copy engine; before the block's first barrier.
__device__ __forceinline__ void barrier_init_fence() {
  asm volatile("fence.mbarrier_init.release.cluster;\n" ::: "memory");
}
__device__ __forceinline__ void barrier_arrive(SharedAddress barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];\n" ::"r"(barrier) : "memory");
}
/// Arrives, and announces bytes that copies will deliver.
__device__ __forceinline__ void barrier_expect(SharedAddress barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(barrier), "r"(bytes)
               : "memory");
}
/// Waits for the end of the phase of this parity: 0 for the first, 1 for the second, 0 again. A
/// barrier that has seen no phase yet counts as past parity 1.
__device__ __forceinline__ void barrier_wait(SharedAddress barrier, uint32_t parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra finished;\n"
      "bra again;\n"
      "finished:\n"
      "}\n" ::"r"(barrier),
      "r"(parity)
      : "memory");
}
/// Whether that phase has ended, without waiting for it.
__device__ __forceinline__ bool barrier_test(SharedAddress barrier, uint32_t parity) {
  int ended;
  asm volatile(
      "{\n"
      ".reg .pred ended;\n"
      "mbarrier.test_wait.parity.shared::cta.b64 ended, [%1], %2;\n"
      "selp.b32 %0, 1, 0, ended;\n"
      "}\n"
      : "=r"(ended)
      : "r"(barrier), "r"(parity)
      : "memory");
  return ended != 0;
}

// ---- bulk copies; all are issued by one thread

/// A box of a [batch, seq_len, heads, head_dim] tensor to shared memory, in the map's swizzle; rows
/// that lie outside are zeros. The barrier gets the box's whole bytes.
__device__ __forceinline__ void load_box(SharedAddress to, const CUtensorMap* map, int column,
                                         int head, int row, int batch, SharedAddress barrier) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, "
      "%4, %5, %6}], [%2];\n" ::"r"(to),
      "l"(map), "r"(barrier), "r"(column), "r"(head), "r"(row), "r"(batch)
      : "memory");
}
/// The way back; rows that lie outside are not written.
__device__ __forceinline__ void store_box(const CUtensorMap* map, SharedAddress from, int column,
                                          int head, int row, int batch) {
  asm volatile(
      "cp.async.bulk.tensor.4d.global.shared::cta.bulk_group [%0, {%2, %3, %4, %5}], [%1];\n" ::"l"(
          map),
      "r"(from), "r"(column), "r"(head), "r"(row), "r"(batch)
      : "memory");
}
/// Adds `bytes` of fp32 numbers in shared memory to as many in global memory.
__device__ __forceinline__ void add_bulk(float* to, SharedAddress from, int bytes) {
  asm volatile(
      "cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0], [%1], %2;\n" ::"l"(to),
      "r"(from), "r"(bytes)
      : "memory");
}
/// `bytes` of global memory, a multiple of 16, to shared memory; the barrier gets them.
__device__ __forceinline__ void load_bulk(SharedAddress to, const void* from, int bytes,
                                          SharedAddress barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];\n" ::
          "r"(to),
      "l"(from), "r"(bytes), "r"(barrier)
      : "memory");
}
__device__ __forceinline__ void bulk_commit() {
  asm volatile("cp.async.bulk.commit_group;\n" ::: "memory");
}
/// Until all but the last `Pending` committed groups have read their shared memory.
template <int Pending = 0>
__device__ __forceinline__ void bulk_wait_read() {
  asm volatile("cp.async.bulk.wait_group.read %0;\n" ::"n"(Pending) : "memory");
}
/// Until they have also written their results.
template <int Pending = 0>
__device__ __forceinline__ void bulk_wait() {
  asm volatile("cp.async.bulk.wait_group %0;\n" ::"n"(Pending) : "memory");
}
/// Makes this thread's ordinary writes to shared memory visible to copies and products; before the
/// barrier that tells others of them.
__device__ __forceinline__ void fence_async_shared() {
  asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory");
}

/// Orders what this thread's finished bulk copies wrote to global memory before what it does next.
__device__ __forceinline__ void fence_async_global() {
  asm volatile("fence.proxy.async.global;\n" ::: "memory");
}

__device__ __forceinline__ int load_acquire(const int* from) {
  int value;
  asm volatile("ld.acquire.gpu.global.s32 %0, [%1];\n" : "=r"(value) : "l"(from) : "memory");
  return value;
}
__device__ __forceinline__ void add_release(int* to, int value) {
  asm volatile("red.release.gpu.global.add.s32 [%0], %1;\n" ::"l"(to), "r"(value) : "memory");
}
/// Two words; zeros where `reads` is false, without a branch.
__device__ __forceinline__ uint2 load_shared_pair_if(bool reads, SharedAddress from) {
  uint2 words = {0, 0};
  asm volatile(
      "{\n"
      ".reg .pred reads;\n"
      "setp.ne.s32 reads, %3, 0;\n"
      "@reads ld.shared.v2.u32 {%0, %1}, [%2];\n"
      "}\n"
      : "+r"(words.x), "+r"(words.y)
      : "r"(from), "r"(static_cast<int>(reads))
      : "memory");
  return words;
}
__device__ __forceinline__ void store_shared_pair(SharedAddress to, float a, float b) {
  asm volatile("st.shared.v2.f32 [%0], {%1, %2};\n" ::"r"(to), "f"(a), "f"(b) : "memory");
}

// ---- the grid, where the next one was launched to begin early (programmatic dependent launch)

/// Lets the next grid's blocks begin once all blocks of this one have said so, wherever a
/// multiprocessor has room.
__device__ __forceinline__ void let_next_grid_begin() {
  asm volatile("griddepcontrol.launch_dependents;\n" ::: "memory");
}
/// Until the grid before this one has ended, and all it wrote is visible.
__device__ __forceinline__ void wait_for_grid_before() {
  asm volatile("griddepcontrol.wait;\n" ::: "memory");
}

// ---- the block

/// Whether a block of a producer and so many consumer warpgroups is started with as many registers
/// as they will have in all. Where it is not, a consumer waits for them for ever.
constexpr bool registers_suffice(int consumers, int of_consumer, int of_producer) {
  const int groups = consumers + 1;
  const int of_each = 65536 / (groups * warpgroup_size) / 8 * 8;  // what ptxas gives each thread
  return consumers * of_consumer + of_producer <= groups * of_each;
}
/// Registers of each thread of this warpgroup from here on; see registers_suffice().
template <int Registers>
__device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;\n" ::"n"(Registers));
}
template <int Registers>
__device__ __forceinline__ void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;\n" ::"n"(Registers));
}

/// Barriers by number (1 to 15; 0 is __syncthreads) among `threads` threads, arriving ones counted.
__device__ __forceinline__ void named_sync(int barrier, int threads) {
  asm volatile("bar.sync %0, %1;\n" ::"r"(barrier), "r"(threads) : "memory");
}
__device__ __forceinline__ void named_arrive(int barrier, int threads) {
  asm volatile("bar.arrive %0, %1;\n" ::"r"(barrier), "r"(threads) : "memory");
}

/// Four 8x8 matrices of 16-bit elements to shared memory; lane l gives the address of row l % 8 of
/// matrix l / 8.
__device__ __forceinline__ void store_matrices(SharedAddress row, uint32_t a, uint32_t b,
                                               uint32_t c, uint32_t d) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};\n" ::"r"(row),
               "r"(a), "r"(b), "r"(c), "r"(d)
               : "memory");
}

}  // namespace sigtrain::kernels
