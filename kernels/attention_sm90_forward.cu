#include <algorithm>

#include "attention_sm80_launch.cuh"
#include "attention_sm90.h"
#include "attention_sm90_forward.cuh"
#include "launch.h"
#include "tensor_map.h"

namespace sigtrain::kernels {
namespace {

/// How many (sequence, head) pairs share the device at a time. Under a causal mask keys and values,
/// which are read again by every tile of queries, should stay in L2 (50 MB); but where more than
/// four tiles of one head read the same ones at a time they get in each other's way. (Without a
/// mask it makes 3% at the most, either way. Measured with a key head for every head.)
int pairs_at_once(const AttentionShape& shape) {
  if (!shape.causal) return 1;
  const int64_t bytes = int64_t{4} * shape.seq_len * shape.head_dim;
  const int64_t key_heads =
      std::max((32 << 20) / bytes, ceil_div(device_limits().multiprocessors, 4));
  return pairs_of_equal_groups(shape.batch * shape.heads,
                               key_heads * (shape.heads / shape.kv_heads));
}

/// Which of head_dim 64's two tilings: for short sequences the one of larger tiles is faster if
/// they are fewer (measured, for both kinds: docs/flash_sigmoid.md).
using LargerTiles = ForwardTilingSm90<64, 4>;
using SmallerTiles = ForwardTilingSm90<64, 3>;
bool larger_tiles_are_faster(const AttentionShape& shape) {
  return shape.seq_len <= 512 && ceil_div(shape.seq_len, LargerTiles::queries) <
                                     ceil_div(shape.seq_len, SmallerTiles::queries);
}

template <template <int, bool> typename Weights, typename Tiling, bool Alibi>
void launch(const AttentionForward& call, cudaStream_t stream) {
  const AttentionShape& shape = call.shape;
  ForwardWork work;
  work.call = call;
  work.maps = {heads_map(call.q, shape, shape.heads, 64),
               heads_map(call.k, shape, shape.kv_heads, Tiling::stage_keys),
               heads_map(call.v, shape, shape.kv_heads, Tiling::stage_keys),
               heads_map(call.out, shape, shape.heads, 64)};
  work.order = {static_cast<int>(ceil_div(shape.seq_len, Tiling::queries)), shape.heads,
                shape.batch * shape.heads, pairs_at_once(shape), false};
  const auto kernel = &attention_sm90_forward_kernel<Weights, Tiling, Alibi>;
  allow_shared_memory(kernel, Tiling::shared_bytes);
  const int blocks = std::min(device_limits().multiprocessors, work.order.count());
  kernel<<<blocks, Tiling::threads, Tiling::shared_bytes, stream>>>(work);
}

template <template <int, bool> typename Weights, typename Tiling>
void launch_kind(const AttentionForward& call, cudaStream_t stream) {
  if (needs_distance(call))
    launch<Weights, Tiling, true>(call, stream);
  else
    launch<Weights, Tiling, false>(call, stream);
}

template <typename Tiling>
void launch_tiling(const AttentionForward& call, cudaStream_t stream) {
  if (call.shape.softmax)
    launch_kind<SoftmaxWeights, Tiling>(call, stream);
  else
    launch_kind<SigmoidWeights, Tiling>(call, stream);
}

}  // namespace

bool attention_sm90_supports(const AttentionShape& shape) {
  return shape.head_dim == 64 || shape.head_dim == 128 || shape.head_dim == 192;
}

void attention_sm90_forward(const AttentionForward& call, cudaStream_t stream) {
  check_heads("q", call.q);
  check_heads("k", call.k);
  check_heads("v", call.v);
  check_heads("out", call.out);
  if (call.shape.batch == 0 || call.shape.seq_len == 0) return;
  switch (call.shape.head_dim) {
    case 64:
      return larger_tiles_are_faster(call.shape) ? launch_tiling<LargerTiles>(call, stream)
                                                 : launch_tiling<SmallerTiles>(call, stream);
    case 128:
      return launch_tiling<ForwardTilingSm90<128, 2>>(call, stream);
    case 192:
      return launch_tiling<ForwardTilingSm90<192, 2>>(call, stream);
    default:
      reject_head_dim(call.shape.head_dim);
  }
}

}  // namespace sigtrain::kernels
