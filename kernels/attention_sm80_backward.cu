#include <algorithm>

#include "attention_sm80.h"
#include "attention_sm80_backward.cuh"
#include "attention_sm80_launch.cuh"
#include "launch.h"
#include "workspace_parts.h"

namespace sigtrain::kernels {
namespace {

/// The parts of the workspace.
class BackwardLayout {
 public:
  BackwardLayout(const AttentionShape& shape, int queries, int keys, void* workspace)
      : parts_(workspace) {
    work.query_tiles = static_cast<int>(ceil_div(shape.seq_len, queries));
    work.key_tiles = static_cast<int>(ceil_div(shape.seq_len, keys));
    const size_t heads = static_cast<size_t>(shape.batch) * shape.heads;
    const size_t tiles = heads * work.query_tiles;
    work.ticket = parts_.take<int>(1);
    work.turns = parts_.take<int>(tiles);
    work.bias_partials = parts_.take<float>(heads * work.key_tiles);
    work.statistics = parts_.take<float>(shape.softmax ? tiles * queries * 2 : 0);
    work.dq_sums = parts_.take<float>(work.key_tiles > 1 ? tiles * queries * shape.head_dim : 0);
  }
  size_t bytes() const { return parts_.bytes(); }

  BackwardWork work = {};

 private:
  WorkspaceParts parts_;
};

/// How many (sequence, key head) pairs share the device at a time. A chain of blocks that work on
/// neighbouring key tiles of one pair reads the same queries from L2 one after the other, but
/// starts up one after the other too; so chains are as long as 1/8 of a pair's tiles, up to 4.
int choose_pairs_at_once(int pairs, int key_tiles) {
  const int chain = std::clamp(key_tiles / 8, 1, 4);
  const int at_once = std::max(device_limits().multiprocessors / chain, 1);
  return static_cast<int>(ceil_div(pairs, ceil_div(pairs, at_once)));
}

template <typename Gradient, int HeadDim, bool Alibi>
void launch(const AttentionBackward& call, cudaStream_t stream) {
  using Tiling = BackwardTiling<HeadDim>;
  const AttentionShape& shape = call.forward.shape;
  BackwardWork work = BackwardLayout(shape, Tiling::queries, Tiling::keys, call.workspace).work;
  const int pairs = shape.batch * shape.kv_heads;
  work.pairs_at_once = choose_pairs_at_once(pairs, work.key_tiles);

  const dim3 tiles(work.query_tiles, shape.heads, shape.batch);
  attention_backward_prepare_kernel<Gradient, HeadDim><<<tiles, 128, 0, stream>>>(call, work);
  const auto kernel = &attention_backward_kernel<Gradient, HeadDim, Alibi>;
  allow_shared_memory(kernel, Tiling::shared_bytes);
  kernel<<<pairs * work.key_tiles, Tiling::threads, Tiling::shared_bytes, stream>>>(call, work);
  if (call.d_head_bias)
    attention_backward_bias_kernel<<<shape.heads, bias_threads, 0, stream>>>(
        work.bias_partials, shape.batch * work.key_tiles, call.d_head_bias);
}

}  // namespace

size_t attention_sm80_backward_workspace(const AttentionShape& shape) {
  AttentionForward call = {};
  call.shape = shape;
  size_t bytes = 0;
  choose_kernel(call, [&](auto head_dim, auto) {
    using Tiling = BackwardTiling<head_dim.value>;
    bytes = BackwardLayout(shape, Tiling::queries, Tiling::keys, nullptr).bytes();
  });
  return bytes;
}

void attention_sm80_backward(const AttentionBackward& call, cudaStream_t stream) {
  check_heads("q", call.forward.q);
  check_heads("k", call.forward.k);
  check_heads("v", call.forward.v);
  check_heads("d_out", call.d_out);
  check_heads("dq", call.dq);
  check_heads("dk", call.dk);
  check_heads("dv", call.dv);
  if (call.forward.shape.softmax) check_heads("out", call.forward.out);
  if (call.forward.shape.batch == 0 || call.forward.shape.seq_len == 0) return;
  choose_kernel(call.forward, [&](auto head_dim, auto alibi) {
    if (call.forward.shape.softmax)
      launch<SoftmaxGradient, head_dim.value, alibi.value>(call, stream);
    else
      launch<SigmoidGradient, head_dim.value, alibi.value>(call, stream);
  });
}

}  // namespace sigtrain::kernels
