// Times the memory-bound operations of the CUDA backend at the shapes of the 1B language model,
// and says what share of the copy bandwidth measured in the same run each reaches.
#include <cuda_runtime.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "core/error.h"
#include "kernels/column_sums.h"
#include "kernels/cross_entropy.h"
#include "kernels/elementwise.h"
#include "ops/cuda/check.h"
#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/pointers.h"

namespace sigtrain {
namespace {

// lm_1b: 4 sequences of 4096, width 2048, 32 heads of 64, SwiGLU of 5632, vocabulary 32768.
constexpr int64_t batch = 4, seq_len = 4096, rows = batch * seq_len, width = 2048;
constexpr int64_t heads = 32, head_dim = 64, hidden = 5632, vocab_size = 32768;
constexpr int64_t parameter_count = 1300000000;

/// Tensors that are allocated until the bench ends. Activations and parameters are random: a GPU
/// takes more power, and so runs slower, on them than on zeros.
class Pool {
 public:
  explicit Pool(CudaOps& ops) : ops_(ops) {
    std::vector<float> values(1 << 20);
    std::mt19937 engine(1);
    std::normal_distribution<float> normal;
    for (float& value : values) value = normal(engine);
    const Shape shape{static_cast<int64_t>(values.size())};
    for (Tensor* pattern : {&narrow_pattern_, &wide_pattern_}) {
      pattern->dtype = pattern == &narrow_pattern_ ? DType::bf16 : DType::f32;
      pattern->shape = shape;
      pattern_memory_.push_back(ops_.allocate(pattern->bytes()));
      pattern->data = pattern_memory_.back().get();
    }
    ops_.upload(wide_pattern_, values.data());
    ops_.copy(wide_pattern_, narrow_pattern_);
    for (float& value : values) value = std::abs(value);
    ops_.upload(wide_pattern_, values.data());
  }

  /// Standard normal, repeating every 2^20 elements; of f32 absolute values (a second moment is
  /// positive).
  Tensor random(Shape shape, DType dtype = DType::bf16) {
    Tensor result = tensor(shape, dtype, 0.0);
    const Tensor& pattern = dtype == DType::bf16 ? narrow_pattern_ : wide_pattern_;
    const Tensor flat{result.data, dtype, {result.numel()}};
    for (int64_t i = 0; i < flat.numel(); i += pattern.numel()) {
      const int64_t end = std::min(flat.numel(), i + pattern.numel());
      ops_.copy(pattern.slice(0, end - i), flat.slice(i, end));
    }
    return result;
  }

  Tensor tensor(Shape shape, DType dtype = DType::bf16, double value = 0.01) {
    Tensor result{nullptr, dtype, shape};
    memory_.push_back(ops_.allocate(result.bytes()));
    result.data = memory_.back().get();
    ops_.fill(result, value);
    return result;
  }
  Tensor statistics(Shape shape) { return tensor(shape, DType::f32, 1.0); }
  void clear() {
    ops_.synchronize();
    memory_.clear();
  }

 private:
  CudaOps& ops_;
  std::vector<DeviceMemory> memory_, pattern_memory_;
  Tensor narrow_pattern_, wide_pattern_;
};

struct Result {
  std::string name;
  double bytes, microseconds;
  double gigabytes_per_second() const { return bytes / microseconds * 1e-3; }
};

class Bench {
 public:
  Bench(CudaOps& ops, int repetitions) : ops_(ops) {
    events_.resize(2 * static_cast<size_t>(repetitions));
    for (cudaEvent_t& event : events_) check_cuda(cudaEventCreate(&event), "bench");
    int device = 0, l2_bytes = 0;
    check_cuda(cudaGetDevice(&device), "bench");
    check_cuda(cudaDeviceGetAttribute(&l2_bytes, cudaDevAttrL2CacheSize, device), "bench");
    l2_bytes_ = static_cast<size_t>(l2_bytes);
  }
  ~Bench() {
    for (cudaEvent_t event : events_) cudaEventDestroy(event);
  }
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;

  /// Sets of buffers to turn over, so that none is found in the second-level cache.
  int sets(double bytes_of_a_set) const {
    const double wanted = 4.0 * static_cast<double>(l2_bytes_) / bytes_of_a_set;
    return std::clamp(static_cast<int>(wanted) + 1, 1, 16);
  }

  /// Median over repetitions of the time of operation(set), each repetition the average of
  /// operations that follow each other without a pause, as they do in a step. All are queued before
  /// the first is waited for, so that the time of starting them from the host is hidden. `bytes` is
  /// what an operation has to read and write once.
  void run(const std::string& name, double bytes, int set_count,
           const std::function<void(int)>& operation) {
    constexpr int operations = 8;
    int set = 0;
    measure(
        name, bytes, operations, [] {},
        [&] {
          for (int i = 0; i < operations; ++i) operation(set++ % set_count);
        });
  }

  /// For an operation that destroys its input: `prepare` makes it anew and is not timed.
  void run_prepared(const std::string& name, double bytes, const std::function<void()>& prepare,
                    const std::function<void()>& operation) {
    measure(name, bytes, 1, prepare, operation);
  }

  std::vector<Result> results;

 private:
  void measure(const std::string& name, double bytes, int operations,
               const std::function<void()>& prepare, const std::function<void()>& work) {
    for (int i = 0; i < 2; ++i) prepare(), work();
    for (size_t i = 0; i < events_.size(); i += 2) {
      prepare();
      check_cuda(cudaEventRecord(events_[i], ops_.stream()), "bench");
      work();
      check_cuda(cudaEventRecord(events_[i + 1], ops_.stream()), "bench");
    }
    check_cuda(cudaEventSynchronize(events_.back()), "bench");
    std::vector<float> times(events_.size() / 2);
    for (size_t i = 0; i < times.size(); ++i) {
      check_cuda(cudaEventElapsedTime(&times[i], events_[2 * i], events_[2 * i + 1]), "bench");
    }
    const auto middle = times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2);
    std::nth_element(times.begin(), middle, times.end());
    results.push_back({name, bytes, 1e3 * *middle / operations});
    const Result& result = results.back();
    // The copy comes first: all others are compared with it.
    fmt::print("{:<28} {:>9.1f} {:>9.1f} {:>9.0f} {:>7.0f}%\n", result.name, result.bytes * 1e-6,
               result.microseconds, result.gigabytes_per_second(),
               100.0 * result.gigabytes_per_second() / results.front().gigabytes_per_second());
    std::fflush(stdout);
  }

  CudaOps& ops_;
  size_t l2_bytes_ = 0;
  std::vector<cudaEvent_t> events_;  // before and behind each repetition
};

constexpr double row_bytes = 2.0 * rows * width;

void bench_copy(Bench& bench, Pool& pool, CudaOps& ops) {
  const Tensor a = pool.random({rows, 16 * width}), b = pool.random({rows, 16 * width});
  bench.run("copy", 2.0 * static_cast<double>(a.bytes()), 1, [&](int) { ops.copy(a, b); });
}

void bench_elementwise(Bench& bench, Pool& pool, CudaOps& ops) {
  const int sets = bench.sets(row_bytes);
  std::vector<Tensor> x, y, gates, activated, d_gates;
  for (int i = 0; i < sets; ++i) {
    x.push_back(pool.random({rows, width}));
    y.push_back(pool.random({rows, width}));
    gates.push_back(pool.random({rows, 2 * hidden}));
    d_gates.push_back(pool.random({rows, 2 * hidden}));
    activated.push_back(pool.random({rows, hidden}));
  }
  const double hidden_bytes = 2.0 * rows * hidden;
  bench.run("add", 3 * row_bytes, sets, [&](int i) { ops.add(x[i], y[i]); });
  bench.run("dropout", 2 * row_bytes, sets, [&](int i) { ops.dropout({1, 2}, 0.1, x[i], y[i]); });
  bench.run("swiglu forward", 3 * hidden_bytes, sets,
            [&](int i) { ops.swiglu_forward(gates[i], activated[i]); });
  bench.run("swiglu backward", 5 * hidden_bytes, sets,
            [&](int i) { ops.swiglu_backward(gates[i], activated[i], d_gates[i]); });
}

void bench_norm(Bench& bench, Pool& pool, CudaOps& ops) {
  const int sets = bench.sets(2 * row_bytes);
  std::vector<Tensor> residual, delta, sum, y;
  for (int i = 0; i < sets; ++i) {
    for (auto* tensors : {&residual, &delta, &sum, &y})
      tensors->push_back(pool.random({rows, width}));
  }
  const Tensor weight = pool.random({width}), bias = pool.random({width});
  const Tensor gamma = pool.random({width});
  const Tensor mean = pool.statistics({rows}), rstd = pool.statistics({rows});
  const Tensor dweight = pool.statistics({width}), dbias = pool.statistics({width}),
               dgamma = pool.statistics({width});
  const NormDesc rms{NormKind::rmsnorm, 1e-5}, layer{NormKind::layernorm, 1e-5};
  bench.run("rmsnorm forward", 2 * row_bytes, sets, [&](int i) {
    ops.residual_norm_forward(rms, residual[i], {}, {}, weight, {}, y[i], {}, rstd);
  });
  bench.run("add + rmsnorm forward", 4 * row_bytes, sets, [&](int i) {
    ops.residual_norm_forward(rms, residual[i], {delta[i], {}, {}}, sum[i], weight, {}, y[i], {},
                              rstd);
  });
  bench.run("add + rmsnorm backward", 4 * row_bytes, sets, [&](int i) {
    ops.residual_norm_backward(rms, sum[i], weight, {}, rstd, y[i], true, residual[i], dweight, {},
                               {delta[i], {}, {}}, {}, {});
  });
  bench.run("add + layernorm forward", 4 * row_bytes, sets, [&](int i) {
    ops.residual_norm_forward(layer, residual[i], {delta[i], gamma, {}}, sum[i], weight, bias, y[i],
                              mean, rstd);
  });
  bench.run("layerscale + ln backward", 6 * row_bytes, sets, [&](int i) {
    ops.residual_norm_backward(layer, sum[i], weight, mean, rstd, y[i], true, residual[i], dweight,
                               dbias, {delta[i], gamma, {}}, delta[i], dgamma);
  });
}

void bench_qk(Bench& bench, Pool& pool, CudaOps& ops) {
  const QkNormRopeDesc desc{batch, seq_len, heads, heads, head_dim, 1e-5};
  const int sets = bench.sets(3 * row_bytes);
  std::vector<Tensor> qkv, qk, d_qkv;
  for (int i = 0; i < sets; ++i) {
    qkv.push_back(pool.random({rows, 3 * width}));
    d_qkv.push_back(pool.random({rows, 3 * width}));
    qk.push_back(pool.random({rows, 2 * width}));
  }
  const Tensor q_weight = pool.random({head_dim}), k_weight = pool.random({head_dim});
  const Tensor dq_weight = pool.statistics({head_dim}), dk_weight = pool.statistics({head_dim});
  const Tensor rope = pool.statistics({seq_len, head_dim});
  const Tensor rstd = pool.statistics({rows, 2 * heads});
  const double statistic_bytes = 4.0 * rows * 2 * heads;
  bench.run("qk norm + rope forward", 4 * row_bytes + statistic_bytes, sets, [&](int i) {
    ops.qk_norm_rope_forward(desc, qkv[i], q_weight, k_weight, rope, qk[i], rstd);
  });
  bench.run("qk norm + rope backward", 6 * row_bytes + statistic_bytes, sets, [&](int i) {
    ops.qk_norm_rope_backward(desc, qkv[i], q_weight, k_weight, rope, rstd, d_qkv[i], dq_weight,
                              dk_weight);
  });
  bench.run("rope backward", 4 * row_bytes, sets, [&](int i) {
    ops.qk_norm_rope_backward(desc, qkv[i], {}, {}, rope, {}, d_qkv[i], {}, {});
  });
}

// Token ids as in text: few frequent ones, many rare ones (Zipf's law).
std::vector<int32_t> text_like_tokens() {
  std::vector<int32_t> ids(rows);
  uint64_t state = 1;
  for (int32_t& id : ids) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    const double uniform = static_cast<double>(state >> 11) * 0x1p-53;
    id = static_cast<int32_t>(std::pow(static_cast<double>(vocab_size), uniform)) - 1;
  }
  return ids;
}

void bench_embedding(Bench& bench, Pool& pool, CudaOps& ops) {
  std::vector<int32_t> ids = text_like_tokens();
  const Tensor tokens = pool.tensor({rows}, DType::i32, 0);
  ops.upload(tokens, ids.data());
  std::sort(ids.begin(), ids.end());
  const auto distinct = static_cast<double>(std::unique(ids.begin(), ids.end()) - ids.begin());
  const int sets = bench.sets(row_bytes);
  std::vector<Tensor> weight, dweight, y;
  for (int i = 0; i < sets; ++i) {
    weight.push_back(pool.random({vocab_size, width}));
    dweight.push_back(pool.random({vocab_size, width}, DType::f32));
    y.push_back(pool.random({rows, width}));
  }
  bench.run("embedding forward", row_bytes + distinct * width * 2, sets,
            [&](int i) { ops.embedding_forward(tokens, weight[i], {}, y[i]); });
  bench.run("embedding backward", row_bytes + distinct * width * 8, sets,
            [&](int i) { ops.embedding_backward(tokens, y[i], dweight[i], {}); });
  // What it costs to sort the tokens: next to nothing but that is left of the operation.
  const Tensor thin = pool.random({rows, 8}), thin_sums = pool.statistics({vocab_size, 8});
  bench.run("  of rows of 8 elements", 16.0 * rows + distinct * 64, 1,
            [&](int) { ops.embedding_backward(tokens, thin, thin_sums, {}); });
}

void bench_activation(Bench& bench, Pool& pool, CudaOps& ops) {
  const int sets = bench.sets(row_bytes);
  std::vector<Tensor> x, y;
  for (int i = 0; i < sets; ++i) {
    x.push_back(pool.random({rows, hidden}));
    y.push_back(pool.random({rows, hidden}));
  }
  const Tensor sums = pool.statistics({hidden});
  const Tensor partials = pool.statistics({kernels::column_sum_partials(rows, hidden)});
  const double hidden_bytes = 2.0 * rows * hidden;
  bench.run("gelu forward", 2 * hidden_bytes, sets, [&](int i) {
    kernels::gelu_forward(bf16_pointer(x[i]), bf16_pointer(y[i]), rows * hidden, ops.stream());
  });
  bench.run("gelu backward", 3 * hidden_bytes, sets, [&](int i) {
    kernels::gelu_backward(bf16_pointer(x[i]), bf16_pointer(y[i]), rows, hidden, nullptr, nullptr,
                           ops.stream());
  });
  const Tensor partials_of_dx =
      pool.statistics({kernels::activation_backward_partials(rows, hidden)});
  bench.run("gelu backward, bias gradient", 3 * hidden_bytes, sets, [&](int i) {
    kernels::gelu_backward(bf16_pointer(x[i]), bf16_pointer(y[i]), rows, hidden, sums.as<float>(),
                           partials_of_dx.as<float>(), ops.stream());
  });
  bench.run("bias gradient", hidden_bytes, sets, [&](int i) {
    kernels::add_column_sums(bf16_pointer(x[i]), rows, hidden, sums.as<float>(),
                             partials.as<float>(), ops.stream());
  });
}

void bench_cross_entropy(Bench& bench, Pool& pool, CudaOps& ops) {
  constexpr int64_t chunk = 4096;
  const Tensor logits = pool.random({chunk, vocab_size});
  const Tensor changed = pool.random({chunk, vocab_size});
  const Tensor targets = pool.tensor({chunk}, DType::i32, 0);
  std::vector<int32_t> ids = text_like_tokens();
  ops.upload(targets, ids.data());
  const Tensor results = pool.statistics({chunk, 4});
  const Tensor fault = pool.tensor({sizeof(kernels::Fault) / 4}, DType::i32, 0);
  kernels::CrossEntropy call{};
  call.settings = {-1, 0.0, 0.0, 1.0 / rows};
  call.rows = chunk;
  call.vocab_size = vocab_size;
  call.row_stride = vocab_size;
  call.logits = bf16_pointer(changed);
  call.gradient = true;
  call.targets = targets.as<int32_t>();
  call.results = static_cast<kernels::CrossEntropyRow*>(results.data);
  call.fault = static_cast<kernels::Fault*>(fault.data);
  bench.run_prepared(
      "cross-entropy of a chunk", 2.0 * static_cast<double>(logits.bytes()),
      [&] { ops.copy(logits, changed); }, [&] { kernels::cross_entropy(call, ops.stream()); });
}

void bench_optimizer(Bench& bench, Pool& pool, CudaOps& ops) {
  const Tensor gradients = pool.random({parameter_count}, DType::f32);
  const Tensor weights = pool.random({parameter_count}, DType::f32);
  const Tensor first = pool.random({parameter_count}, DType::f32);
  const Tensor second = pool.random({parameter_count}, DType::f32);
  const Tensor copy = pool.random({parameter_count});
  const Tensor control = pool.statistics({control_slots}), result = pool.statistics({1});
  const auto count = static_cast<double>(parameter_count);
  bench.run("adamw", 30 * count, 1,
            [&](int) { ops.adamw({}, control, gradients, weights, first, second, copy); });
  bench.run("ema", 12 * count, 1, [&](int) { ops.ema_update(0.999, control, weights, first); });
  bench.run("sum of squares", 4 * count, 1, [&](int) { ops.sum_of_squares(gradients, result); });
  bench.run("f32 to bf16", 6 * count, 1, [&](int) { ops.copy(weights, copy); });
  bench.run("clear gradients", 4 * count, 1, [&](int) { ops.fill(gradients, 0.0); });
}

int run(int repetitions, const std::string& json_path) {
  CudaOps ops;
  Bench bench(ops, repetitions);
  Pool shared(ops), pool(ops);
  const QkNormRopeDesc qk{batch, seq_len, heads, heads, head_dim, 1e-5};
  const size_t workspace =
      std::max({ops.residual_norm_backward_workspace(rows, width),
                ops.embedding_backward_workspace(rows, vocab_size, width),
                ops.linear_backward_workspace(rows, 8, width),
                ops.qk_norm_rope_backward_workspace(qk), ops.reduction_workspace(parameter_count)});
  ops.set_workspace(shared.tensor({static_cast<int64_t>(workspace / 4)}, DType::f32));
  ops.set_random_step(1);

  fmt::print("{:<28} {:>9} {:>9} {:>9} {:>8}\n", "", "MB", "us", "GB/s", "of copy");
  for (const auto& part : {bench_copy, bench_elementwise, bench_norm, bench_qk, bench_embedding,
                           bench_activation, bench_cross_entropy, bench_optimizer}) {
    part(bench, pool, ops);
    pool.clear();
  }
  if (json_path.empty()) return 0;
  nlohmann::json lines = nlohmann::json::array();
  for (const Result& result : bench.results) {
    lines.push_back({{"name", result.name},
                     {"bytes", result.bytes},
                     {"microseconds", result.microseconds},
                     {"gb_per_second", result.gigabytes_per_second()},
                     {"share_of_copy", result.gigabytes_per_second() /
                                           bench.results.front().gigabytes_per_second()}});
  }
  std::ofstream file(json_path);
  file << lines.dump(1) << '\n';
  if (!file.flush()) throw Error("{}: cannot be written", json_path);
  return 0;
}

}  // namespace
}  // namespace sigtrain

int main(int argc, char** argv) {
  CLI::App app{"Times the memory-bound operations of the CUDA backend"};
  int repetitions = 20;
  std::string json_path;
  app.add_option("--repetitions", repetitions, "timed repetitions of each operation")
      ->check(CLI::Range(1, 10000));
  app.add_option("--json", json_path, "also write the table to this file");
  CLI11_PARSE(app, argc, argv);
  try {
    return sigtrain::run(repetitions, json_path);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_kernels: %s\n", error.what());
    return 1;
  }
}
