#include "attention_launch.h"

#include "attention_checks.h"
#include "attention_sm80.h"
#include "attention_sm90.h"
#include "launch.h"

namespace sigtrain::kernels {
namespace {

AttentionImpl fastest(const AttentionShape& shape) {
  // Short sequences fill tiles of 128 or 192 positions badly (measured at ViT's 197).
  const bool fills_tiles = shape.head_dim != 64 || shape.seq_len >= 256;
  return attention_can_use_sm90(shape) && fills_tiles ? AttentionImpl::sm90 : AttentionImpl::sm80;
}

}  // namespace

bool attention_can_use_sm90(const AttentionShape& shape) {
  return device_limits().compute_capability == 90 && attention_sm90_supports(shape);
}

AttentionImpl attention_forward_impl(const AttentionShape& shape, AttentionImpl impl) {
  return impl != AttentionImpl::automatic ? impl : fastest(shape);
}

AttentionImpl attention_backward_impl(const AttentionShape& shape, AttentionImpl impl) {
  return impl != AttentionImpl::automatic ? impl : fastest(shape);
}

size_t attention_backward_workspace(const AttentionShape& shape, AttentionImpl impl) {
  return attention_backward_impl(shape, impl) == AttentionImpl::sm90
             ? attention_sm90_backward_workspace(shape)
             : attention_sm80_backward_workspace(shape);
}

void attention_forward(const AttentionForward& call, cudaStream_t stream, AttentionImpl impl) {
  check_counts(call.shape);
  if (attention_forward_impl(call.shape, impl) == AttentionImpl::sm90)
    attention_sm90_forward(call, stream);
  else
    attention_sm80_forward(call, stream);
}

void attention_backward(const AttentionBackward& call, cudaStream_t stream, AttentionImpl impl) {
  check_counts(call.forward.shape);
  if (attention_backward_impl(call.forward.shape, impl) == AttentionImpl::sm90)
    attention_sm90_backward(call, stream);
  else
    attention_sm80_backward(call, stream);
}

}  // namespace sigtrain::kernels
