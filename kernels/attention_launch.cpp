#include "attention_launch.h"

#include <algorithm>

#include "attention_sm80.h"
#include "attention_sm90.h"
#include "launch.h"

namespace sigtrain::kernels {
namespace {

bool uses_sm90(const AttentionShape& shape, AttentionImpl impl) {
  return (impl == AttentionImpl::automatic ? choose_attention(shape) : impl) == AttentionImpl::sm90;
}

/// Short sequences fill tiles of 192 queries and 128 keys badly (measured at ViT's 197 positions).
bool forward_uses_sm90(const AttentionShape& shape, AttentionImpl impl) {
  return uses_sm90(shape, impl) &&
         !(impl == AttentionImpl::automatic && shape.head_dim == 64 && shape.seq_len < 256);
}

/// At head_dim 64 the kernels of compute capability 8.0 are the faster deterministic ones.
bool backward_uses_sm90(const AttentionShape& shape, bool deterministic, AttentionImpl impl) {
  return uses_sm90(shape, impl) && attention_sm90_supports_backward(shape) &&
         !(impl == AttentionImpl::automatic && deterministic && shape.head_dim == 64);
}

}  // namespace

AttentionImpl choose_attention(const AttentionShape& shape) {
  return device_limits().compute_capability == 90 && attention_sm90_supports(shape)
             ? AttentionImpl::sm90
             : AttentionImpl::sm80;
}

size_t attention_backward_workspace(const AttentionShape& shape, AttentionImpl impl) {
  size_t bytes = 0;
  for (const bool deterministic : {false, true})
    bytes = std::max(bytes, backward_uses_sm90(shape, deterministic, impl)
                                ? attention_sm90_backward_workspace(shape)
                                : attention_sm80_backward_workspace(shape));
  return bytes;
}

void attention_forward(const AttentionForward& call, cudaStream_t stream, AttentionImpl impl) {
  if (forward_uses_sm90(call.shape, impl))
    attention_sm90_forward(call, stream);
  else
    attention_sm80_forward(call, stream);
}

void attention_backward(const AttentionBackward& call, cudaStream_t stream, AttentionImpl impl) {
  if (backward_uses_sm90(call.forward.shape, call.deterministic, impl))
    attention_sm90_backward(call, stream);
  else
    attention_sm80_backward(call, stream);
}

}  // namespace sigtrain::kernels
