#include <algorithm>

#include "attention_row_sums.cuh"
#include "attention_sm80_launch.cuh"
#include "attention_sm90.h"
#include "attention_sm90_backward.cuh"
#include "attention_sm90_backward_wide.h"
#include "launch.h"
#include "tensor_map.h"
#include "workspace_parts.h"

namespace sigtrain::kernels {
namespace {

/// The parts of the workspace.
template <int HeadDim>
class BackwardLayoutSm90 {
 public:
  using Tiling = BackwardTilingSm90<HeadDim>;

  BackwardLayoutSm90(const AttentionShape& shape, void* workspace) : parts_(workspace) {
    const size_t heads = static_cast<size_t>(shape.batch) * shape.heads;
    const size_t query_tiles = ceil_div(shape.seq_len, Tiling::queries);
    const size_t key_tiles = ceil_div(shape.seq_len, Tiling::keys);
    dq_sums = parts_.take<float>(heads * query_tiles * Tiling::queries * HeadDim);
    turns = parts_.take<int>(heads * query_tiles * Tiling::consumers);
    cleared_bytes = parts_.bytes();
    bias_partials = parts_.take<float>(heads * key_tiles * Tiling::bias_parts);
    statistics = parts_.take<float>(shape.softmax ? heads * query_tiles * Tiling::queries * 2 : 0);
  }
  size_t bytes() const { return parts_.bytes(); }

  float *dq_sums, *bias_partials, *statistics;
  int* turns;
  size_t cleared_bytes;  // from the beginning: what has to be zero before the pass

 private:
  WorkspaceParts parts_;
};

/// How many (sequence, key head) pairs share the device at a time.
template <int HeadDim>
int pairs_at_once(const AttentionShape& shape, int key_tiles, bool deterministic) {
  const int pairs = shape.batch * shape.kv_heads;
  const int64_t blocks = device_limits().multiprocessors;
  if (!deterministic) {
    if (!shape.causal) return 1;
    // What tiles of one head share is queries, d_out and sums of dQ: they should stay in L2. But
    // the more blocks work on a pair, the more of them add to the same sums at a time, as all end
    // with the same queries: long sequences are fastest with eight to a pair, or as many as will
    // have eight tiles each. (Without a mask one pair behind the other is as fast or faster.)
    const int64_t shared = int64_t{8} * shape.seq_len * HeadDim * (shape.heads / shape.kv_heads);
    return pairs_of_equal_groups(
        pairs, std::max((24 << 20) / shared, ceil_div(blocks, std::max(8, key_tiles / 8))));
  }
  // Blocks of one pair follow each other through its queries, and each runs later than the one in
  // front of it by what a share takes to arrive, a step or two. While few blocks work on a pair
  // that is a delay at the beginning alone: where they are no more than a quarter of the pair's
  // tiles, those that draw the next tiles do not catch up with the last ones. Under a causal mask
  // blocks begin at their keys' positions and wait there for those in front of them to come by:
  // three at a time were best. (They pass by the same queries shortly after one another, so that
  // the rest of the pair need not be in L2.)
  return pairs_of_equal_groups(pairs,
                               ceil_div(blocks, shape.causal ? 3 : std::max(key_tiles / 4, 1)));
}

template <template <int, bool> typename Gradient, int HeadDim, bool Alibi>
void launch(const AttentionBackward& call, cudaStream_t stream) {
  using Tiling = BackwardTilingSm90<HeadDim>;
  const AttentionShape& shape = call.forward.shape;
  const BackwardLayoutSm90<HeadDim> layout(shape, call.workspace);
  BackwardWorkSm90 work;
  work.maps = {heads_map(call.forward.q, shape, shape.heads, Tiling::queries),
               heads_map(call.forward.k, shape, shape.kv_heads, Tiling::keys),
               heads_map(call.forward.v, shape, shape.kv_heads, Tiling::keys),
               heads_map(call.d_out, shape, shape.heads, Tiling::queries),
               heads_map(call.dk, shape, shape.kv_heads, 64),
               heads_map(call.dv, shape, shape.kv_heads, 64)};
  work.call = call;
  work.query_tiles = static_cast<int>(ceil_div(shape.seq_len, Tiling::queries));
  work.key_tiles = static_cast<int>(ceil_div(shape.seq_len, Tiling::keys));
  work.dq_sums = layout.dq_sums;
  work.statistics = layout.statistics;
  work.bias_partials = layout.bias_partials;
  work.turns = layout.turns;
  work.order = {work.key_tiles, shape.kv_heads, shape.batch * shape.kv_heads,
                pairs_at_once<HeadDim>(shape, work.key_tiles, call.deterministic), true};

  const cudaError_t cleared = cudaMemsetAsync(call.workspace, 0, layout.cleared_bytes, stream);
  if (cleared != cudaSuccess) reject_clearing(layout.cleared_bytes, cudaGetErrorString(cleared));
  if (shape.softmax) {
    const int padded = work.query_tiles * Tiling::queries;
    attention_statistics_kernel<HeadDim>
        <<<dim3(padded / 64, shape.heads, shape.batch), 256, 0, stream>>>(call, layout.statistics,
                                                                          padded);
  }
  const auto kernel = &attention_sm90_backward_kernel<Gradient, HeadDim, Alibi>;
  allow_shared_memory(kernel, Tiling::shared_bytes);
  const int blocks = std::min(device_limits().multiprocessors, work.order.count());
  kernel<<<blocks, Tiling::threads, Tiling::shared_bytes, stream>>>(work);
  const int64_t chunks = int64_t{shape.batch} * shape.seq_len * shape.heads * (HeadDim / 8);
  constexpr float slope_unit = Gradient<Tiling::queries, Alibi>::slope_unit;
  attention_sm90_round_dq_kernel<HeadDim>
      <<<grid_size(chunks, 256, 8), 256, 0, stream>>>(work, shape.scale * slope_unit);
  if (call.d_head_bias)
    attention_backward_bias_kernel<<<shape.heads, bias_threads, 0, stream>>>(
        work.bias_partials, shape.batch * work.key_tiles * Tiling::bias_parts, call.d_head_bias);
}

template <template <int, bool> typename Gradient, int HeadDim>
void launch_kind(const AttentionBackward& call, cudaStream_t stream) {
  if (needs_distance(call.forward))
    launch<Gradient, HeadDim, true>(call, stream);
  else
    launch<Gradient, HeadDim, false>(call, stream);
}

template <int HeadDim>
void launch_head_dim(const AttentionBackward& call, cudaStream_t stream) {
  if (call.forward.shape.softmax)
    launch_kind<SoftmaxGradientSm90, HeadDim>(call, stream);
  else
    launch_kind<SigmoidGradientSm90, HeadDim>(call, stream);
}

}  // namespace

size_t attention_sm90_backward_workspace(const AttentionShape& shape) {
  switch (shape.head_dim) {
    case 64:
      return BackwardLayoutSm90<64>(shape, nullptr).bytes();
    case 128:
      return BackwardLayoutSm90<128>(shape, nullptr).bytes();
    case 192:
      return attention_sm90_backward_wide_workspace(shape);
    default:
      reject_head_dim(shape.head_dim);
  }
}

void attention_sm90_backward(const AttentionBackward& call, cudaStream_t stream) {
  check_heads("q", call.forward.q);
  check_heads("k", call.forward.k);
  check_heads("v", call.forward.v);
  check_heads("d_out", call.d_out);
  check_heads("dq", call.dq);
  check_heads("dk", call.dk);
  check_heads("dv", call.dv);
  if (call.forward.shape.softmax) check_heads("out", call.forward.out);
  if (call.forward.shape.batch == 0 || call.forward.shape.seq_len == 0) return;
  switch (call.forward.shape.head_dim) {
    case 64:
      return launch_head_dim<64>(call, stream);
    case 128:
      return launch_head_dim<128>(call, stream);
    case 192:
      return attention_sm90_backward_wide(call, stream);
    default:
      reject_head_dim(call.forward.shape.head_dim);
  }
}

}  // namespace sigtrain::kernels
