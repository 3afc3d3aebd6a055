// Attention on the GPU against CpuOps<double> on the same inputs, for the benchmark's --check and
// for the tests.
//
// Tolerances. A bf16 rounding has a relative error of at most 2^-8, 1.7e-3 root mean square. An
// output is rounded once, and in each of its terms the weight (by Hopper's forward pass twice:
// 2.4e-3, of which up to 1.6e-3 systematic), or for dQ and dK the logit's gradient. So its error by
// norm stays below 5e-3; 2^-7 leaves room for the sums of fp32 and for softmax's D, which is
// computed from the rounded output. Statistics have neither rounding. log_sum_exp is a sum of fp32:
// 2^-16. A row sum is one of weights, which Hopper's kernels compute to 2^-11 (ShortSigmoid and
// MiddleSigmoid in attention_weights_sm90.cuh).
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "ops/cpu/cpu_ops.h"
#include "ops/cuda/cuda_ops.h"
#include "tools/bench/relative_error.h"

namespace sigtrain {

struct AttentionCase {
  std::string name;
  AttentionDesc desc;
  bool head_bias = false, alibi = false;
  std::vector<int32_t> key_lengths = {};
};

/// Every option of the description, alone and together, at sequence lengths around the sizes of
/// tiles.
inline std::vector<AttentionCase> attention_cases(AttentionKind kind, int64_t head_dim) {
  const double scale = 1.0 / std::sqrt(static_cast<double>(head_dim));
  const auto desc = [&](int64_t batch, int64_t seq_len, int64_t heads, int64_t kv_heads,
                        bool causal, int64_t window, double bias) {
    return AttentionDesc{kind,     batch, seq_len, heads,  kv_heads,
                         head_dim, scale, bias,    causal, window};
  };
  std::vector<AttentionCase> cases = {
      {"one position", desc(2, 1, 2, 1, true, 0, 0.0)},
      {"full, whole tiles", desc(2, 512, 2, 2, false, 0, -std::log(512.0))},
      {"causal, whole tiles", desc(1, 512, 2, 2, true, 0, -std::log(512.0))},
      {"full, 197", desc(2, 197, 3, 3, false, 0, -5.0)},
      {"causal, 333, alibi", desc(1, 333, 3, 3, true, 0, -4.0), false, true},
      {"full, alibi, head bias", desc(1, 257, 2, 2, false, 0, 0.0), true, true},
      {"grouped heads", desc(2, 300, 6, 2, true, 0, -2.0), true, false},
      {"window, causal", desc(1, 500, 2, 1, true, 70, -1.0), false, false},
      {"window, full", desc(1, 411, 2, 2, false, 33, -1.0), true, true},
      {"window of one", desc(1, 130, 2, 1, true, 1, 0.5), true, false},
      {"key lengths", desc(4, 290, 2, 2, false, 0, -3.0), false, false, {290, 0, 1, 131}},
      {"everything", desc(3, 385, 4, 2, true, 150, -2.0), true, true, {385, 64, 200}},
      // Odd and even numbers of chunks of 64 and of 32 keys, cut within a chunk and between two; in
      // sequences that Hopper's forward pass cuts into tiles of 256 queries (450) and of 192 (340).
      {"key lengths, every chunk",
       desc(6, 450, 3, 3, false, 0, -3.0),
       false,
       false,
       {449, 436, 384, 288, 20, 0}},
      {"key lengths, every chunk, 340",
       desc(6, 340, 3, 3, false, 0, -3.0),
       false,
       false,
       {339, 257, 256, 193, 192, 64}},
      {"key lengths, causal", desc(4, 450, 3, 3, true, 0, -3.0), false, false, {450, 200, 131, 70}},
      // Several times as many tiles as a GPU has multiprocessors: blocks that stay go on to a
      // second and third one. The last tiles of sequences have no queries for some consumers.
      {"many tiles", desc(18, 400, 8, 4, true, 0, -3.0), true, false},
      {"many tiles, 300", desc(23, 300, 8, 4, true, 0, -3.0), true, false},
      {"many short tiles", desc(52, 150, 8, 4, false, 0, -5.0), true, false},
      {"full, alibi, 450", desc(1, 450, 2, 2, false, 0, -1.0), true, true},
      {"negative scale", desc(1, 230, 2, 2, false, 0, -1.0), false, false},
      {"saturated", desc(1, 200, 1, 1, false, 0, 0.0), false, false},
  };
  cases[cases.size() - 2].desc.scale = -scale;
  cases.back().desc.scale = 4 * scale;
  return cases;
}

/// What was written, as doubles; statistics that a kind lacks are empty.
struct AttentionResults {
  std::vector<double> out, row_sum, log_sum_exp, dq, dk, dv, d_head_bias;
};

/// Random inputs of one case, each value a bf16 number, q, k and v packed as layers pack them.
class AttentionProblem {
 public:
  AttentionProblem(const AttentionCase& problem, uint32_t seed) : case_(problem) {
    std::mt19937 generator(seed);
    const AttentionDesc& d = case_.desc;
    const auto normals = [&](int64_t count, float spread) {
      std::normal_distribution<float> normal(0.0F, spread);
      std::vector<double> values(count);
      for (double& value : values) value = __bfloat162float(__float2bfloat16(normal(generator)));
      return values;
    };
    qkv_ = normals(rows() * packed_width(), 1.0F);
    d_out_ = normals(rows() * width(), 1.0F);
    if (case_.head_bias) head_bias_ = normals(d.heads, 0.5F);
    for (int64_t h = 0; case_.alibi && h < d.heads; ++h)
      slopes_.push_back(static_cast<float>(std::exp2(-2.0 - 1.5 * static_cast<double>(h))));
  }

  AttentionResults on_cpu() {
    CpuOps<double> ops;
    const AttentionDesc& d = case_.desc;
    const auto f64 = [](std::vector<double>& x) {
      return x.empty() ? Tensor{} : Tensor{x.data(), DType::f64, {static_cast<int64_t>(x.size())}};
    };
    std::vector<double> out(d_out_.size()), d_qkv(qkv_.size()), row_sum(statistics()), log_sum_exp;
    std::vector<double> d_head_bias(head_bias_.size());
    if (d.kind == AttentionKind::softmax) log_sum_exp.resize(statistics());
    std::vector<int32_t> lengths = case_.key_lengths;
    AttentionInputs inputs = views(f64(qkv_));
    inputs.head_bias = f64(head_bias_);
    inputs.alibi_slopes = f64(slopes_);
    if (!lengths.empty()) inputs.key_lengths = {lengths.data(), DType::i32, {d.batch}};
    std::vector<double> scratch(
        std::max(ops.attention_forward_workspace(d), ops.attention_backward_workspace(d)) /
            sizeof(double) +
        1);
    ops.set_workspace(f64(scratch));
    const HeadsView out_view{f64(out), 0, width()};
    ops.attention_forward(d, inputs, out_view, f64(log_sum_exp), f64(row_sum));
    const AttentionInputs gradients = views(f64(d_qkv));
    ops.attention_backward(d, inputs, out_view, f64(log_sum_exp), {f64(d_out_), 0, width()},
                           gradients.q, gradients.k, gradients.v, f64(d_head_bias));
    return unpack(out, row_sum, log_sum_exp, d_qkv, d_head_bias);
  }

  /// All outputs are NaN before, and the workspace too.
  /// Without `wants_row_sum` that statistic is not asked for.
  AttentionResults on_gpu(CudaOps& ops, bool wants_row_sum = true) {
    const AttentionDesc& d = case_.desc;
    const bool softmax = d.kind == AttentionKind::softmax;
    const Device qkv(ops, DType::bf16, qkv_), d_out(ops, DType::bf16, d_out_);
    const Device head_bias(ops, DType::bf16, head_bias_), slopes(ops, DType::f32, slopes_);
    const std::vector<double> length_values(case_.key_lengths.begin(), case_.key_lengths.end());
    const Device lengths(ops, DType::i32, length_values);
    const Device out(ops, DType::bf16, poison(d_out_.size()));
    const Device d_qkv(ops, DType::bf16, poison(qkv_.size()));
    const Device row_sum(ops, DType::f32, poison(statistics()));
    const Device log_sum_exp(ops, DType::f32, poison(softmax ? statistics() : 0));
    const Device d_head_bias(ops, DType::f32, std::vector<double>(head_bias_.size(), 0.0));
    const Device scratch(
        ops, DType::f32,
        poison(std::max(ops.attention_forward_workspace(d), ops.attention_backward_workspace(d)) /
                   sizeof(float) +
               1));
    AttentionInputs inputs = views(qkv.tensor);
    inputs.head_bias = head_bias.tensor;
    inputs.alibi_slopes = slopes.tensor;
    inputs.key_lengths = lengths.tensor;
    ops.set_workspace(scratch.tensor);
    const HeadsView out_view{out.tensor, 0, width()};
    ops.attention_forward(d, inputs, out_view, log_sum_exp.tensor,
                          wants_row_sum ? row_sum.tensor : Tensor{});
    const AttentionInputs gradients = views(d_qkv.tensor);
    ops.attention_backward(d, inputs, out_view, log_sum_exp.tensor, {d_out.tensor, 0, width()},
                           gradients.q, gradients.k, gradients.v, d_head_bias.tensor);
    ops.set_workspace({});
    return unpack(out.values(), row_sum.values(), log_sum_exp.values(), d_qkv.values(),
                  d_head_bias.values());
  }

  /// NaN in all that no result may depend on: keys and values behind a sequence's last one, and
  /// what lies between rows.
  void poison_padding() {
    for (int64_t row = 0; row < rows(); ++row) {
      poison_columns(row, width() + 2 * kv_width(), padding);
      if (is_padding(row)) poison_columns(row, width(), 2 * kv_width());
    }
  }
  /// NaN in the queries there, on which their own out depends, and all gradients of the sequence.
  void poison_padded_queries() {
    for (int64_t row = 0; row < rows(); ++row)
      if (is_padding(row)) poison_columns(row, 0, width());
  }
  /// Of `out`: the rows of queries that are no padding.
  std::vector<double> without_padding(const std::vector<double>& values) const {
    std::vector<double> kept;
    for (int64_t row = 0; row < rows(); ++row)
      if (!is_padding(row))
        kept.insert(kept.end(), values.begin() + row * width(),
                    values.begin() + (row + 1) * width());
    return kept;
  }

  /// The size of d_head_bias's terms: under softmax they cancel, and only rounding is left.
  double bias_gradient_size() const {
    return std::sqrt(static_cast<double>(rows() * case_.desc.head_dim));
  }

 private:
  /// A tensor in the memory of a GPU; absent if it has no elements.
  class Device {
   public:
    Device(CudaOps& ops, DType dtype, const std::vector<double>& values) : ops_(ops) {
      if (values.empty()) return;
      std::vector<std::byte> host(values.size() * size_of(dtype));
      for (size_t i = 0; i < values.size(); ++i) {
        if (dtype == DType::bf16) {
          put(host, i, __float2bfloat16(static_cast<float>(values[i])));
        } else if (dtype == DType::f32) {
          put(host, i, static_cast<float>(values[i]));
        } else {
          put(host, i, static_cast<int32_t>(values[i]));
        }
      }
      memory_ = ops.allocate(host.size());
      tensor = {memory_.get(), dtype, {static_cast<int64_t>(values.size())}};
      ops.upload(tensor, host.data());
      ops.synchronize();
    }
    std::vector<double> values() const {
      std::vector<double> result(tensor.numel());
      if (result.empty()) return result;
      std::vector<std::byte> host(tensor.bytes());
      ops_.download(host.data(), tensor);
      for (size_t i = 0; i < result.size(); ++i)
        result[i] = tensor.dtype == DType::bf16 ? __bfloat162float(get<__nv_bfloat16>(host, i))
                                                : get<float>(host, i);
      return result;
    }

    Tensor tensor;

   private:
    template <typename T>
    static void put(std::vector<std::byte>& bytes, size_t i, T value) {
      std::memcpy(bytes.data() + i * sizeof(T), &value, sizeof(T));
    }
    template <typename T>
    static T get(const std::vector<std::byte>& bytes, size_t i) {
      T value;
      std::memcpy(&value, bytes.data() + i * sizeof(T), sizeof(T));
      return value;
    }

    CudaOps& ops_;
    DeviceMemory memory_;
  };

  // 16 columns more than q, k and v need: a stride that no kernel may take for granted.
  static constexpr int64_t padding = 16;

  static std::vector<double> poison(size_t count) {
    return std::vector<double>(count, std::numeric_limits<double>::quiet_NaN());
  }
  void poison_columns(int64_t row, int64_t first, int64_t count) {
    const auto begin = qkv_.begin() + row * packed_width() + first;
    std::fill(begin, begin + count, std::numeric_limits<double>::quiet_NaN());
  }
  bool is_padding(int64_t row) const {
    const int64_t seq_len = case_.desc.seq_len;
    return !case_.key_lengths.empty() && row % seq_len >= case_.key_lengths[row / seq_len];
  }
  int64_t rows() const { return case_.desc.batch * case_.desc.seq_len; }
  int64_t width() const { return case_.desc.heads * case_.desc.head_dim; }
  int64_t kv_width() const { return case_.desc.kv_heads * case_.desc.head_dim; }
  int64_t packed_width() const { return width() + 2 * kv_width() + padding; }
  size_t statistics() const { return static_cast<size_t>(rows() * case_.desc.heads); }
  AttentionInputs views(const Tensor& packed) const {
    AttentionInputs inputs;
    inputs.q = {packed, 0, packed_width()};
    inputs.k = {packed, width(), packed_width()};
    inputs.v = {packed, width() + kv_width(), packed_width()};
    return inputs;
  }
  AttentionResults unpack(std::vector<double> out, std::vector<double> row_sum,
                          std::vector<double> log_sum_exp, const std::vector<double>& d_qkv,
                          std::vector<double> d_head_bias) const {
    const auto columns = [&](int64_t first, int64_t count) {
      std::vector<double> part;
      for (int64_t row = 0; row < rows(); ++row) {
        const auto begin = d_qkv.begin() + row * packed_width() + first;
        part.insert(part.end(), begin, begin + count);
      }
      return part;
    };
    return {std::move(out),
            std::move(row_sum),
            std::move(log_sum_exp),
            columns(0, width()),
            columns(width(), kv_width()),
            columns(width() + kv_width(), kv_width()),
            std::move(d_head_bias)};
  }

  AttentionCase case_;
  std::vector<double> qkv_, d_out_, head_bias_, slopes_;
};

struct AttentionCheck {
  static constexpr std::array<const char*, 7> names = {"out", "row_sum", "lse",   "dq",
                                                       "dk",  "dv",      "d_bias"};
  static constexpr std::array<double, 7> tolerances = {0x1p-7, 0x1p-11, 0x1p-16, 0x1p-7,
                                                       0x1p-7, 0x1p-7,  0x1p-7};
  std::array<double, 7> errors{};
  bool same_bits_twice = false, same_out_without_sums = false;

  bool within_tolerances() const {
    for (size_t i = 0; i < errors.size(); ++i)
      if (!(errors[i] <= tolerances[i])) return false;
    return true;
  }
};

/// `exact`: what problem.on_cpu() gave. Runs on the GPU three times.
inline AttentionCheck check_attention(CudaOps& ops, AttentionProblem& problem,
                                      const AttentionResults& exact) {
  const AttentionResults got = problem.on_gpu(ops);
  const AttentionResults again = problem.on_gpu(ops);
  // Training asks for no row sums, and takes a shorter way through the kernels.
  const AttentionResults without_sums = problem.on_gpu(ops, false);
  AttentionCheck check;
  check.same_out_without_sums = without_sums.out == got.out;
  check.errors = {
      relative_error_by_norm(got.out, exact.out),
      relative_error_by_norm(got.row_sum, exact.row_sum),
      relative_error_by_norm(got.log_sum_exp, exact.log_sum_exp),
      // A position that sees itself alone has softmax gradients of 0 but for rounding; elsewhere
      // they are far above 1e-3.
      relative_error_by_norm(got.dq, exact.dq, 1e-3 * std::sqrt(exact.dq.size())),
      relative_error_by_norm(got.dk, exact.dk, 1e-3 * std::sqrt(exact.dk.size())),
      relative_error_by_norm(got.dv, exact.dv),
      relative_error_by_norm(got.d_head_bias, exact.d_head_bias, problem.bias_gradient_size())};
  check.same_bits_twice = again.out == got.out && again.row_sum == got.row_sum &&
                          again.log_sum_exp == got.log_sum_exp && again.dq == got.dq &&
                          again.dk == got.dk && again.dv == got.dv &&
                          again.d_head_bias == got.d_head_bias;
  return check;
}

}  // namespace sigtrain
