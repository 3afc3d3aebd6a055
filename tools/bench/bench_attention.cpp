// Times attention forward and backward on the GPU, or checks them against CpuOps<double>.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>

#include "kernels/attention_launch.h"
#include "ops/cuda/check.h"
#include "tools/bench/attention_cases.h"

namespace sigtrain {
namespace {

struct Options {
  std::string impl = "auto", kind = "sigmoid";
  int batch = 4, heads = 32, kv_heads = 0, head_dim = 64, seq_len = 4096, window = 0;
  bool causal = false, alibi = false, head_bias = false, json = false, check = false;
  bool deterministic = false;
  double bias = std::numeric_limits<double>::quiet_NaN();
  int iterations = 20;
};

/// What a training step's forward or backward takes, in ms: the median over single calls between
/// two events.
template <typename Call>
double median_ms(cudaStream_t stream, int iterations, const Call& call) {
  cudaEvent_t begin, end;
  check_cuda(cudaEventCreate(&begin), "cudaEventCreate");
  check_cuda(cudaEventCreate(&end), "cudaEventCreate");
  std::vector<float> times;
  constexpr int warm_up = 3;
  for (int i = 0; i < warm_up + iterations; ++i) {
    check_cuda(cudaEventRecord(begin, stream), "cudaEventRecord");
    call();
    check_cuda(cudaEventRecord(end, stream), "cudaEventRecord");
    check_cuda(cudaEventSynchronize(end), "attention");
    float ms = 0.0F;
    check_cuda(cudaEventElapsedTime(&ms, begin, end), "cudaEventElapsedTime");
    if (i >= warm_up) times.push_back(ms);
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  return times[times.size() / 2];
}

/// Device memory of this program, freed at its end.
class Memory {
 public:
  explicit Memory(CudaOps& ops) : ops_(ops) {}
  __nv_bfloat16* normals(int64_t count) {
    // A period of a prime number of values repeats nowhere in step with rows and tiles.
    constexpr int64_t period = 1000003;
    std::vector<__nv_bfloat16> host(count), values(std::min(period, count));
    std::mt19937 generator(static_cast<uint32_t>(held_.size()));
    std::normal_distribution<float> normal;
    for (auto& value : values) value = __float2bfloat16(normal(generator));
    for (int64_t i = 0; i < count; ++i) host[i] = values[i % period];
    return upload(host);
  }
  template <typename T>
  T* upload(const std::vector<T>& host) {
    T* device = take<T>(static_cast<int64_t>(host.size()));
    check_cuda(cudaMemcpy(device, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice),
               "cudaMemcpy");
    return device;
  }
  template <typename T>
  T* take(int64_t count) {
    held_.push_back(ops_.allocate(std::max<size_t>(count * sizeof(T), 1)));
    return static_cast<T*>(held_.back().get());
  }

 private:
  CudaOps& ops_;
  std::vector<DeviceMemory> held_;
};

kernels::AttentionBackward make_call(const Options& options, Memory& memory) {
  kernels::AttentionBackward call{};
  kernels::AttentionForward& forward = call.forward;
  const bool softmax = options.kind == "softmax";
  const double bias = !std::isnan(options.bias) ? options.bias
                      : softmax                 ? 0.0
                                                : -std::log(static_cast<double>(options.seq_len));
  forward.shape = {options.batch,
                   options.seq_len,
                   options.heads,
                   options.kv_heads,
                   options.head_dim,
                   softmax,
                   options.causal,
                   options.window,
                   static_cast<float>(1.0 / std::sqrt(static_cast<double>(options.head_dim))),
                   static_cast<float>(bias)};
  const int64_t rows = int64_t{options.batch} * options.seq_len;
  const int64_t width = int64_t{options.heads} * options.head_dim;
  const int64_t kv_width = int64_t{options.kv_heads} * options.head_dim;
  const int64_t packed = width + 2 * kv_width;  // as the layers lay q, k and v
  __nv_bfloat16* qkv = memory.normals(rows * packed);
  forward.q = {qkv, packed};
  forward.k = {qkv + width, packed};
  forward.v = {qkv + width + kv_width, packed};
  forward.out = {memory.take<__nv_bfloat16>(rows * width), width};
  call.d_out = {memory.normals(rows * width), width};
  __nv_bfloat16* d_qkv = memory.take<__nv_bfloat16>(rows * packed);
  call.dq = {d_qkv, packed};
  call.dk = {d_qkv + width, packed};
  call.dv = {d_qkv + width + kv_width, packed};
  if (options.alibi) {
    std::vector<float> slopes(options.heads);
    for (int h = 0; h < options.heads; ++h)
      slopes[h] = std::exp2(-8.0F * static_cast<float>(h + 1) / static_cast<float>(options.heads));
    forward.alibi_slopes = memory.upload(slopes);
  }
  if (options.head_bias) {
    forward.head_bias =
        memory.upload(std::vector<__nv_bfloat16>(options.heads, __float2bfloat16(0.0F)));
    call.d_head_bias = memory.upload(std::vector<float>(options.heads, 0.0F));
  }
  forward.tickets = memory.upload(std::vector<int>(2, 0));
  if (softmax) forward.log_sum_exp = memory.take<float>(rows * options.heads);
  return call;
}

/// The kernels asked for; throws UsageError where they cannot run.
kernels::AttentionImpl choose_impl(const Options& options, const kernels::AttentionShape& shape) {
  if (options.impl == "auto") return kernels::AttentionImpl::automatic;
  if (options.impl == "sm80") return kernels::AttentionImpl::sm80;
  if (!kernels::attention_can_use_sm90(shape))
    throw UsageError(
        "--impl sm90 needs a GPU of compute capability 9.0 and a --head-dim of 64, 128 or 192");
  return kernels::AttentionImpl::sm90;
}

const char* name_of(kernels::AttentionImpl impl) {
  return impl == kernels::AttentionImpl::sm90 ? "sm90" : "sm80";
}

void time_attention(const Options& options, CudaOps& ops) {
  Memory memory(ops);
  kernels::AttentionBackward call = make_call(options, memory);
  const kernels::AttentionImpl impl = choose_impl(options, call.forward.shape);
  const size_t workspace = kernels::attention_backward_workspace(call.forward.shape, impl);
  call.workspace = memory.take<std::byte>(static_cast<int64_t>(workspace));
  call.deterministic = options.deterministic;
  const double forward_ms = median_ms(ops.stream(), options.iterations, [&] {
    kernels::attention_forward(call.forward, ops.stream(), impl);
    check_launch("attention forward");
  });
  const double backward_ms = median_ms(ops.stream(), options.iterations, [&] {
    kernels::attention_backward(call, ops.stream(), impl);
    check_launch("attention backward");
  });
  // As FlashAttention counts: 2 products forward and 5 backward, half of them under a causal mask.
  // A window is not taken off.
  const double flops = 4.0 * options.batch * options.heads * options.seq_len * options.seq_len *
                       options.head_dim * (options.causal ? 0.5 : 1.0);
  cudaDeviceProp properties{};
  check_cuda(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
  const nlohmann::ordered_json result = {
      {"impl", options.impl},
      {"fwd_impl", name_of(kernels::attention_forward_impl(call.forward.shape, impl))},
      {"bwd_impl", name_of(kernels::attention_backward_impl(call.forward.shape, impl))},
      {"kind", options.kind},
      {"batch", options.batch},
      {"heads", options.heads},
      {"kv_heads", options.kv_heads},
      {"head_dim", options.head_dim},
      {"seq_len", options.seq_len},
      {"causal", options.causal},
      {"alibi", options.alibi},
      {"bias", call.forward.shape.bias},
      {"window", options.window},
      {"deterministic", options.deterministic},
      {"fwd_ms", forward_ms},
      {"bwd_ms", backward_ms},
      {"fwd_tflops", flops / forward_ms * 1e-9},
      {"bwd_tflops", 2.5 * flops / backward_ms * 1e-9},
      {"workspace_bytes", workspace},
      {"gpu", properties.name}};
  if (options.json) {
    fmt::print("{}\n", result.dump());
  } else {
    fmt::print("forward {:.3f} ms, {:.1f} TFLOP/s; backward {:.3f} ms, {:.1f} TFLOP/s on {}\n",
               forward_ms, flops / forward_ms * 1e-9, backward_ms, 2.5 * flops / backward_ms * 1e-9,
               properties.name);
  }
}

/// Prints the errors of every case of the head dimensions that the kernels asked for take; true if
/// all are within their tolerances, and the same bits came twice where that is asked for.
bool check_all(const Options& options, CudaOps& ops) {
  kernels::AttentionShape any_shape{};
  any_shape.head_dim = 64;
  const kernels::AttentionImpl impl = choose_impl(options, any_shape);
  ops.set_attention_impl(impl);
  ops.set_deterministic(options.deterministic);
  const std::vector<int64_t> head_dims = impl == kernels::AttentionImpl::sm90
                                             ? std::vector<int64_t>{64, 128, 192}
                                             : std::vector<int64_t>{32, 64, 96, 128, 192};
  bool all_passed = true;
  fmt::print("{:<8}{:>4} {:<26}", "kind", "D", "relative errors");
  for (const char* name : AttentionCheck::names) fmt::print("{:>9}", name);
  fmt::print("  twice\n");
  for (const AttentionKind kind : {AttentionKind::sigmoid, AttentionKind::softmax}) {
    for (const int64_t head_dim : head_dims) {
      for (const AttentionCase& attention_case : attention_cases(kind, head_dim)) {
        AttentionProblem problem(attention_case, 1);
        const AttentionCheck check = check_attention(ops, problem, problem.on_cpu());
        const bool passed = check.within_tolerances() && check.same_out_without_sums &&
                            (check.same_bits_twice || !options.deterministic);
        all_passed = all_passed && passed;
        fmt::print("{:<8}{:>4} {:<26}", kind == AttentionKind::sigmoid ? "sigmoid" : "softmax",
                   head_dim, attention_case.name);
        for (const double error : check.errors) fmt::print("{:>9.1e}", error);
        fmt::print("  {:<6} {}\n", check.same_bits_twice ? "same" : "differ",
                   passed ? "PASS" : "FAIL");
      }
    }
  }
  fmt::print("tolerances {:>28}", "");
  for (const double tolerance : AttentionCheck::tolerances) fmt::print("{:>9.1e}", tolerance);
  fmt::print("\n{}\n", all_passed ? "PASS" : "FAIL");
  return all_passed;
}

int run(int argc, char** argv) {
  Options options;
  CLI::App app("Times attention on the GPU, or checks it against the CPU in double.");
  app.add_option("--impl", options.impl, "Kernels: the fastest, or those of a compute capability")
      ->check(CLI::IsMember({"auto", "sm90", "sm80"}));
  app.add_option("--kind", options.kind)->check(CLI::IsMember({"sigmoid", "softmax"}));
  app.add_option("--batch", options.batch)->check(CLI::PositiveNumber);
  app.add_option("--heads", options.heads)->check(CLI::PositiveNumber);
  app.add_option("--kv-heads", options.kv_heads, "Key and value heads; as many as heads if absent")
      ->check(CLI::PositiveNumber);
  app.add_option("--head-dim", options.head_dim)->check(CLI::IsMember({32, 64, 96, 128, 192}));
  app.add_option("--seq-len", options.seq_len)->check(CLI::PositiveNumber);
  app.add_option("--window", options.window)->check(CLI::NonNegativeNumber);
  app.add_option("--bias", options.bias, "Of the logits; sigmoid: -log(seq_len) if absent");
  app.add_option("--iters", options.iterations)->check(CLI::PositiveNumber);
  app.add_flag("--causal", options.causal);
  app.add_flag("--alibi", options.alibi);
  app.add_flag("--head-bias", options.head_bias, "With a learned bias and its gradient");
  app.add_flag("--deterministic", options.deterministic, "The same bits every time");
  app.add_flag("--json", options.json, "One line of JSON");
  app.add_flag("--check", options.check, "Errors of all kinds, head dimensions and options");
  CLI11_PARSE(app, argc, argv);
  if (options.kv_heads == 0) options.kv_heads = options.heads;
  if (options.heads % options.kv_heads != 0)
    throw UsageError("--heads {} is not a multiple of --kv-heads {}", options.heads,
                     options.kv_heads);
  CudaOps ops;
  if (options.check) return check_all(options, ops) ? 0 : 1;
  time_attention(options, ops);
  return 0;
}

}  // namespace
}  // namespace sigtrain

int main(int argc, char** argv) {
  try {
    return sigtrain::run(argc, argv);
  } catch (const sigtrain::UsageError& error) {
    std::cerr << error.what() << '\n';
    return 2;
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
