// What an arithmetic instruction costs Hopper's tensor cores when both run on one multiprocessor:
// two warpgroups multiply without a pause, a third repeats one instruction. Behind the choice of
// instructions in kernels/attention_weights_sm90.cuh; see docs/flash_sigmoid.md.
#include <cuda_runtime.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "kernels/wgmma_sm90.cuh"

namespace sigtrain::kernels {
namespace {

constexpr int chains = 16, repeats = 8;  // independent chains of an instruction, and their length
constexpr int multiplying = 2;           // warpgroups
constexpr int threads = (multiplying + 2) * warpgroup_size;
constexpr int shared_bytes = 128 << 10;

/// Values that instructions read and write: chain i continues in x[i] or f[i].
struct Values {
  float f[chains];
  uint32_t x[chains];
};

struct MultiplyAdd {
  static constexpr const char* name = "fma.f32, one source";
  __device__ static void step(Values& v, int i) {
    asm volatile("fma.rn.f32 %0, %0, %0, %0;" : "+f"(v.f[i]));
  }
};
struct MultiplyAddOfThree {
  static constexpr const char* name = "fma.f32, three sources";
  __device__ static void step(Values& v, int i) {
    asm volatile("fma.rn.f32 %0, %0, %1, %2;"
                 : "+f"(v.f[i])
                 : "f"(v.f[(i + 5) % chains]), "f"(v.f[(i + 10) % chains]));
  }
};
/// Two chains: as many as the latency of 4 clocks lets through every other clock.
struct SlowMultiplyAdd {
  static constexpr const char* name = "fma.f32, every other clock";
  __device__ static void step(Values& v, int i) { MultiplyAdd::step(v, i % 2); }
};
struct MultiplyAddAndLogic {
  static constexpr const char* name = "fma.f32 and lop3 in turn (each)";
  __device__ static void step(Values& v, int i) {
    if (i % 2 == 0)
      MultiplyAdd::step(v, i);
    else
      asm volatile("lop3.b32 %0, %0, %1, %2, 0xe8;"
                   : "+r"(v.x[i])
                   : "r"(v.x[(i + 4) % chains]), "r"(v.x[(i + 10) % chains]));
  }
};
struct Exponential {
  static constexpr const char* name = "ex2.f32";
  __device__ static void step(Values& v, int i) {
    asm volatile("ex2.approx.ftz.f32 %0, %0;" : "+f"(v.f[i]));
  }
};
struct Pack {
  static constexpr const char* name = "cvt.bf16x2.f32";
  __device__ static void step(Values& v, int i) {
    float x = v.f[i];
    uint32_t packed;
    asm volatile("cvt.rn.bf16x2.f32 %0, %1, %2;"
                 : "=r"(packed)
                 : "f"(x), "f"(v.f[(i + 5) % chains]));
    v.f[i] = __uint_as_float(packed);
  }
};
struct PackedMultiplyAdd {
  static constexpr const char* name = "fma.bf16x2";
  __device__ static void step(Values& v, int i) {
    asm volatile("fma.rn.bf16x2 %0, %0, %0, %0;" : "+r"(v.x[i]));
  }
};
struct MostOfThreePairs {
  static constexpr const char* name = "maximum of three u16x2";
  __device__ static void step(Values& v, int i) {
    v.x[i] = __vimax3_u16x2(v.x[i], v.x[(i + 5) % chains], v.x[(i + 10) % chains]);
    compute_here(v.x[i]);
  }
};
struct LeastOfThree {
  static constexpr const char* name = "minimum of three u32";
  __device__ static void step(Values& v, int i) {
    v.x[i] = __vimin3_u32(v.x[i], v.x[(i + 5) % chains], v.x[(i + 10) % chains]);
    compute_here(v.x[i]);
  }
};

/// `clocks` [blocks, warpgroups] receives how long each warpgroup took: the first two for
/// `products` turns of 8 products each, the third for `rounds` of chains * repeats instructions;
/// the last one does nothing.
template <typename Instruction>
__global__ void __launch_bounds__(threads, 1)
    beside_products_kernel(long long* clocks, int products, int rounds, float seed) {
  const SharedAddress shared = shared_memory();
  for (int i = static_cast<int>(threadIdx.x); i < shared_bytes / 4; i += threads)
    store_shared(shared + i * 4, 0x3c003c00u + (i * 2654435761u >> 12 & 0x00ff00ffu));
  fence_async_shared();
  __syncthreads();
  const int warpgroup = warpgroup_index();
  long long begin = 0, end = 0;
  float result = 0.0f;  // of all that is computed, so that it is
  if (warpgroup < multiplying) {
    take_registers<160>();
    float o[32], s[32];
    uint32_t p[16];
#pragma unroll
    for (int i = 0; i < 32; ++i) o[i] = s[i] = 0.0f;
#pragma unroll
    for (int i = 0; i < 16; ++i) p[i] = 0x3c003c00u + threadIdx.x;
    const uint64_t q = shared_operand(shared + warpgroup * 8192);
    const uint64_t k = shared_operand(shared + 32768), v = shared_operand(shared + 65536, 8192);
    begin = clock64();
    for (int turn = 0; turn < products; ++turn) {
      pin(o);
      pin(s);
      pin(p);
      products_begin();
#pragma unroll
      for (int part = 0; part < 4; ++part) {
        product<true>(o, p + part * 4, advance(v, part * 2048), true);
        product<false, false>(s, advance(q, part * 32), advance(k, part * 32), true);
      }
      products_commit();
      products_wait<0>();
    }
    end = clock64();
#pragma unroll
    for (int i = 0; i < 32; ++i) result += o[i] + s[i];
  } else if (warpgroup == multiplying) {
    take_registers<160>();
    Values values;
#pragma unroll
    for (int i = 0; i < chains; ++i) {
      values.f[i] = seed + 0.01f * i;
      values.x[i] = threadIdx.x + i;
    }
    begin = clock64();
    for (int round = 0; round < rounds; ++round) {
#pragma unroll
      for (int repeat = 0; repeat < repeats; ++repeat)
#pragma unroll
        for (int i = 0; i < chains; ++i) Instruction::step(values, i);
    }
    end = clock64();
#pragma unroll
    for (int i = 0; i < chains; ++i) result += values.f[i] + static_cast<float>(values.x[i]);
  } else {
    give_registers<32>();
  }
  if (threadIdx.x % warpgroup_size == 0)
    clocks[blockIdx.x * (threads / warpgroup_size) + warpgroup] = end - begin;
  if (result == 12345.678f) clocks[0] = 0;
}

void check(cudaError_t status) {
  if (status == cudaSuccess) return;
  std::fprintf(stderr, "error: %s\n", cudaGetErrorString(status));
  std::exit(1);
}

struct Clocks {
  double products, arithmetic;  // means over blocks, of all turns and rounds
};

template <typename Instruction>
Clocks run(int blocks, int products, int rounds) {
  constexpr int groups = threads / warpgroup_size;
  const auto kernel = &beside_products_kernel<Instruction>;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes));
  long long* clocks = nullptr;
  std::vector<long long> on_host(static_cast<size_t>(blocks) * groups);
  check(cudaMalloc(&clocks, on_host.size() * sizeof(long long)));
  kernel<<<blocks, threads, shared_bytes>>>(clocks, products, rounds, 0.5f);
  check(cudaGetLastError());
  check(cudaMemcpy(on_host.data(), clocks, on_host.size() * sizeof(long long),
                   cudaMemcpyDeviceToHost));
  check(cudaFree(clocks));
  Clocks mean{};
  for (int block = 0; block < blocks; ++block) {
    mean.products += static_cast<double>(on_host[block * groups]) / blocks;
    mean.arithmetic += static_cast<double>(on_host[block * groups + multiplying]) / blocks;
  }
  return mean;
}

template <typename Instruction>
void measure(int blocks) {
  constexpr int turns = 4000, rounds = 4000;
  constexpr double in_round = chains * repeats;
  const double alone = run<Instruction>(blocks, 0, rounds).arithmetic / rounds / in_round;
  const double undisturbed = run<Instruction>(blocks, turns, 0).products;
  if (alone < 0.5 || undisturbed < turns) {
    std::fprintf(stderr, "error: %s: the compiler has left out what was to be measured\n",
                 Instruction::name);
    std::exit(1);
  }
  // Arithmetic for longer than products can take beside it.
  const int enough = static_cast<int>(6 * undisturbed / (alone * in_round));
  const Clocks both = run<Instruction>(blocks, turns, enough);
  // In the same run the rest of the arithmetic is alone again.
  const double rest = (both.arithmetic - both.products) / alone;
  const double beside = enough * in_round - rest;
  std::printf("| %-32s | %5.2f | %5.2f | %3.0f%% | %5.2f |\n", Instruction::name, alone,
              both.products / beside, 100 * undisturbed / both.products,
              (both.products - undisturbed) / beside);
}

template <typename... Instructions>
void measure_all(int blocks) {
  std::printf(
      "| instruction | clocks alone | beside products | products' speed | tensor cores' "
      "clocks lost for one |\n|---|---:|---:|---:|---:|\n");
  (measure<Instructions>(blocks), ...);
}

}  // namespace
}  // namespace sigtrain::kernels

int main(int argc, char** argv) {
  CLI::App app{"Clocks of a warp's instruction, alone and beside products of the tensor cores"};
  CLI11_PARSE(app, argc, argv);
  using namespace sigtrain::kernels;
  cudaDeviceProp device{};
  check(cudaGetDeviceProperties(&device, 0));
  if (device.major != 9) {
    std::fprintf(stderr, "error: %s is no Hopper GPU (compute capability 9.0)\n", device.name);
    return 1;
  }
  std::printf("%s\n\n", device.name);
  measure_all<MultiplyAdd, MultiplyAddOfThree, SlowMultiplyAdd, MultiplyAddAndLogic, Exponential,
              Pack, PackedMultiplyAdd, MostOfThreePairs, LeastOfThree>(device.multiProcessorCount);
}
