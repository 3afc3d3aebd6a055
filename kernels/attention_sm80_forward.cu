#include "attention_sm80.h"
#include "attention_sm80_forward.cuh"
#include "attention_sm80_launch.cuh"
#include "launch.h"

namespace sigtrain::kernels {
namespace {

template <template <int> typename Policy, int HeadDim, bool Alibi>
void launch(const AttentionForward& call, cudaStream_t stream) {
  using Tiling = ForwardTiling<HeadDim>;
  const auto kernel = &attention_forward_kernel<Policy, HeadDim, Alibi>;
  allow_shared_memory(kernel, Tiling::shared_bytes);
  const AttentionShape& shape = call.shape;
  const dim3 grid(ceil_div(shape.seq_len, Tiling::queries), shape.heads, shape.batch);
  kernel<<<grid, Tiling::threads, Tiling::shared_bytes, stream>>>(call);
}

}  // namespace

void attention_sm80_forward(const AttentionForward& call, cudaStream_t stream) {
  check_heads("q", call.q);
  check_heads("k", call.k);
  check_heads("v", call.v);
  check_heads("out", call.out);
  if (call.shape.batch == 0 || call.shape.seq_len == 0) return;
  choose_kernel(call, [&](auto head_dim, auto alibi) {
    if (call.shape.softmax)
      launch<SoftmaxPolicy, head_dim.value, alibi.value>(call, stream);
    else
      launch<SigmoidPolicy, head_dim.value, alibi.value>(call, stream);
  });
}

}  // namespace sigtrain::kernels
