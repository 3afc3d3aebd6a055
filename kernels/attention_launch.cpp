#include "attention_launch.h"

#include "attention_checks.h"
#include "attention_sm80.h"
#include "attention_sm90.h"
#include "launch.h"

namespace sigtrain::kernels {
namespace {

/// Shorter sequences fill Hopper's tiles too badly (measured: docs/flash_sigmoid.md).
constexpr int least_seq_len_forward = 129, least_seq_len_backward = 257;

AttentionImpl fastest(const AttentionShape& shape, int least_seq_len) {
  const bool fills_tiles = shape.head_dim != 64 || shape.seq_len >= least_seq_len;
  return attention_can_use_sm90(shape) && fills_tiles ? AttentionImpl::sm90 : AttentionImpl::sm80;
}

}  // namespace

bool attention_can_use_sm90(const AttentionShape& shape) {
  return device_limits().compute_capability == 90 && attention_sm90_supports(shape);
}

AttentionImpl attention_forward_impl(const AttentionShape& shape, AttentionImpl impl) {
  return impl != AttentionImpl::automatic ? impl : fastest(shape, least_seq_len_forward);
}

AttentionImpl attention_backward_impl(const AttentionShape& shape, AttentionImpl impl) {
  return impl != AttentionImpl::automatic ? impl : fastest(shape, least_seq_len_backward);
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
