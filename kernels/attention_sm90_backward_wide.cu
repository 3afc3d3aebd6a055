#include <algorithm>

#include "attention_row_sums.cuh"
#include "attention_sm80_launch.cuh"
#include "attention_sm90_backward_wide.cuh"
#include "attention_sm90_backward_wide.h"
#include "launch.h"
#include "tensor_map.h"
#include "workspace_parts.h"

namespace sigtrain::kernels {
namespace {

using KeysTiling = WideKeysTilingSm90;
using QueriesTiling = WideQueriesTilingSm90;

/// The parts of the workspace.
class WideLayout {
 public:
  WideLayout(const AttentionShape& shape, void* workspace) : parts_(workspace) {
    const size_t heads = static_cast<size_t>(shape.batch) * shape.heads;
    const size_t query_tiles = ceil_div(shape.seq_len, QueriesTiling::queries);
    bias_partials = parts_.take<float>(heads * query_tiles * QueriesTiling::bias_parts);
    statistics =
        parts_.take<float>(shape.softmax ? heads * query_tiles * QueriesTiling::queries * 2 : 0);
    tickets = parts_.take<int>(2);
  }
  size_t bytes() const { return parts_.bytes(); }

  float *bias_partials, *statistics;
  int* tickets;  // has to be zero before the pass by keys

 private:
  WorkspaceParts parts_;
};

/// How many (sequence, head) pairs share the device at a time. What the tiles of one share, two
/// tensors of `rows` rows, should stay in L2; without a causal mask all tiles are as long, and one
/// pair behind the other is best.
int pairs_at_once(const AttentionShape& shape, int pairs, int64_t rows) {
  const int64_t bytes = 4 * rows * shape.head_dim;
  return shape.causal ? static_cast<int>(std::clamp<int64_t>((24 << 20) / bytes, 1, pairs)) : 1;
}

template <template <int, bool> typename Gradient, bool Alibi>
void launch(const AttentionBackward& call, cudaStream_t stream) {
  const AttentionShape& shape = call.forward.shape;
  const WideLayout layout(shape, call.workspace);
  const int key_pairs = shape.batch * shape.kv_heads, query_pairs = shape.batch * shape.heads;
  WideBackwardWork work;
  work.q = heads_map(call.forward.q, shape, shape.heads, 64);
  work.k = heads_map(call.forward.k, shape, shape.kv_heads, 64);
  work.v = heads_map(call.forward.v, shape, shape.kv_heads, 64);
  work.d_out = heads_map(call.d_out, shape, shape.heads, 64);
  work.call = call;
  const int64_t group = shape.heads / shape.kv_heads;
  work.key_tiles = {static_cast<int>(ceil_div(shape.seq_len, KeysTiling::keys)), shape.kv_heads,
                    key_pairs, pairs_at_once(shape, key_pairs, group * shape.seq_len), true};
  work.query_tiles = {static_cast<int>(ceil_div(shape.seq_len, QueriesTiling::queries)),
                      shape.heads, query_pairs, pairs_at_once(shape, query_pairs, shape.seq_len),
                      false};
  work.statistics = layout.statistics;
  work.bias_partials = layout.bias_partials;
  work.tickets[0] = call.forward.tickets;
  work.tickets[1] = layout.tickets;
  work.padded_queries = work.query_tiles.tiles * QueriesTiling::queries;

  if (shape.softmax)
    attention_statistics_kernel<WideTilingSm90::head_dim>
        <<<dim3(work.padded_queries / 64, shape.heads, shape.batch), 256, 0, stream>>>(
            call, layout.statistics, work.padded_queries);
  const cudaError_t cleared = cudaMemsetAsync(layout.tickets, 0, 2 * sizeof(int), stream);
  if (cleared != cudaSuccess) reject_clearing(2 * sizeof(int), cudaGetErrorString(cleared));
  // Kernels leave an error behind where they cannot be launched, as those launched by <<<>>> do.
  const auto launch_pass = [&](auto* kernel, const TileOrder& order, int shared_bytes,
                               bool begins_early) {
    allow_shared_memory(kernel, shared_bytes);
    cudaLaunchAttribute early;
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config{};
    config.gridDim = std::min(device_limits().multiprocessors, order.count());
    config.blockDim = WideTilingSm90::threads;
    config.dynamicSmemBytes = shared_bytes;
    config.stream = stream;
    config.attrs = &early;
    config.numAttrs = begins_early ? 1 : 0;
    cudaLaunchKernelEx(&config, kernel, work);
  };
  // Not early: the pass by keys, which is, reads statistics and tickets that are ready only because
  // this one waited for them.
  launch_pass(&attention_sm90_wide_queries_kernel<Gradient, Alibi>, work.query_tiles,
              QueriesTiling::shared_bytes, false);
  launch_pass(&attention_sm90_wide_keys_kernel<Gradient, Alibi>, work.key_tiles,
              KeysTiling::shared_bytes, true);
  if (call.d_head_bias)
    attention_backward_bias_kernel<<<shape.heads, bias_threads, 0, stream>>>(
        work.bias_partials, shape.batch * work.query_tiles.tiles * QueriesTiling::bias_parts,
        call.d_head_bias);
}

template <template <int, bool> typename Gradient>
void launch_kind(const AttentionBackward& call, cudaStream_t stream) {
  if (needs_distance(call.forward))
    launch<Gradient, true>(call, stream);
  else
    launch<Gradient, false>(call, stream);
}

}  // namespace

size_t attention_sm90_backward_wide_workspace(const AttentionShape& shape) {
  return WideLayout(shape, nullptr).bytes();
}

void attention_sm90_backward_wide(const AttentionBackward& call, cudaStream_t stream) {
  if (call.forward.shape.softmax)
    launch_kind<SoftmaxGradientSm90>(call, stream);
  else
    launch_kind<SigmoidGradientSm90>(call, stream);
}

}  // namespace sigtrain::kernels
