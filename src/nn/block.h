// A transformer block in any of the three norm structures:
//   pre     x + f(norm(x))        post     norm(x + f(x))        hybrid     x + norm(f(norm(x)))
// for f = attention, then f = MLP. Each branch may pass dropout, LayerScale and stochastic depth on
// its way to the stream.
#pragma once

#include <optional>
#include <string>

#include "nn/attention.h"
#include "nn/mlp.h"
#include "nn/norm.h"

namespace sigtrain {

/// Memory [N, C] that all blocks share, one after the other.
struct BlockBuffers {
  Tensor delta;   // branches that backward does not need
  Tensor normed;  // norms' outputs that backward computes again; absent where all are kept
};

class Block {
 public:
  /// What one half (attention or MLP) keeps beside its function's own.
  struct HalfSaved {
    Norm::Saved norm;       // on the stream: before f (pre, hybrid) or after it (post)
    Norm::Saved post_norm;  // hybrid: after f
    Tensor y;               // output of `norm`: its own memory, or BlockBuffers::normed
    Tensor f_out;           // hybrid: output of f
  };
  struct Saved {
    HalfSaved attention_half, mlp_half;
    Attention::Saved attention;
    Mlp::Saved mlp;
  };

  Block(ParameterTable& table, const std::string& name, const ModelConfig& config, int64_t layer);

  /// Advances the stream. With Recompute::norms_and_activations, what `saved` holds of
  /// buffers.normed is written again by backward.
  void forward(const Context& context, const SequenceInfo& sequence, const BlockBuffers& buffers,
               Stream& stream, Saved& saved) const;
  /// On entry gradient.branch is that of the block's last branch (pre, hybrid) or gradient.residual
  /// that of its output (post).
  void backward(const Context& context, const SequenceInfo& sequence, const Saved& saved,
                StreamGradient& gradient) const;

 private:
  /// One half of the block: its norms, LayerScale and random streams.
  struct Half {
    Half(ParameterTable& table, const std::string& name, const ModelConfig& config, int64_t index);
    Norm norm;
    std::optional<Norm> post_norm;
    ParameterId layer_scale = kNoParameter;
    uint64_t dropout_stream, depth_stream;
  };

  template <typename F>
  void forward_half(const Context& context, const SequenceInfo& sequence, const Half& half,
                    const BlockBuffers& buffers, Stream& stream, HalfSaved& saved,
                    bool is_attention, F f) const;
  template <typename F>
  void backward_half(const Context& context, const Half& half, const HalfSaved& saved,
                     StreamGradient& gradient, F f_backward) const;

  /// Writes the norm's output again where forward did not keep it.
  void restore_normed(const Context& context, const Half& half, const HalfSaved& saved) const;

  int64_t layer_, width_;
  NormStructure structure_;
  double dropout_, drop_path_, layer_drop_;
  // Declared in forward order: construction registers the parameters.
  Half attention_half_;
  Attention attention_;
  Half mlp_half_;
  Mlp mlp_;
};

}  // namespace sigtrain
