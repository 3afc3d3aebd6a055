#include "attention_launch.h"

#include "attention_sm80.h"
#include "attention_sm90.h"
#include "launch.h"

namespace sigtrain::kernels {
namespace {

bool uses_sm90(const AttentionShape& shape, AttentionImpl impl) {
  return (impl == AttentionImpl::automatic ? choose_attention(shape) : impl) == AttentionImpl::sm90;
}

}  // namespace

AttentionImpl choose_attention(const AttentionShape& shape) {
  return device_limits().compute_capability == 90 && attention_sm90_supports(shape)
             ? AttentionImpl::sm90
             : AttentionImpl::sm80;
}

size_t attention_backward_workspace(const AttentionShape& shape, AttentionImpl impl) {
  return uses_sm90(shape, impl) && attention_sm90_supports_backward(shape)
             ? attention_sm90_backward_workspace(shape)
             : attention_sm80_backward_workspace(shape);
}

void attention_forward(const AttentionForward& call, cudaStream_t stream, AttentionImpl impl) {
  if (uses_sm90(call.shape, impl))
    attention_sm90_forward(call, stream);
  else
    attention_sm80_forward(call, stream);
}

void attention_backward(const AttentionBackward& call, cudaStream_t stream, AttentionImpl impl) {
  if (uses_sm90(call.forward.shape, impl) && attention_sm90_supports_backward(call.forward.shape))
    attention_sm90_backward(call, stream);
  else
    attention_sm80_backward(call, stream);
}

}  // namespace sigtrain::kernels
