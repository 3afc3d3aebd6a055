// The blocks of a transformer and the norm behind them: what language models, vision transformers
// and speech encoders share between their input and their head.
#pragma once

#include <optional>
#include <vector>

#include "config/schema.h"
#include "nn/block.h"
#include "nn/context.h"

namespace sigtrain {

class BlockStack {
 public:
  /// What a pass keeps of its forward, and the memory of the gradients that its backward hands
  /// down.
  struct Pass {
    StreamGradient gradient;  // training only
    SequenceInfo sequence;    // the tables, and this batch's key lengths
    BlockBuffers buffers;
    std::vector<Block::Saved> blocks;  // empty blocks where their forward is run again
    std::vector<Stream> inputs;        // of the blocks and of the final norm, in the same case
    std::vector<Arena::Mark> marks;    // before each block
    Norm::Saved final_norm;
  };

  /// Registers the blocks, each a group layers.I, and then, as the first of the group "head",
  /// final_norm (which a post-norm stack lacks, as it ends in a norm already).
  BlockStack(ParameterTable& table, const ModelConfig& config);

  /// Position tables of attention (RoPE, ALiBi) in the backend's memory, owned by the stack; call
  /// once before any pass. A planning backend gets the shapes alone.
  void make_tables(Ops& ops);

  /// x [N, C], which the stack may overwrite and which must live until backward -> [N, C], the
  /// final norm's output. key_lengths: optional i32 [batch], positions from there on are padding.
  /// In training, memory for backward comes first; without, what a block allocates is released
  /// behind it.
  Tensor forward(const Context& context, const Tensor& x, const Tensor& key_lengths,
                 Pass& pass) const;
  /// Where the gradient of forward's output is to be written before backward.
  Tensor d_output(const Pass& pass) const;
  /// The gradient of x: valid until the arena is released.
  Tensor backward(const Context& context, Pass& pass) const;

 private:
  /// Memory for the block inputs of Recompute::block, beside the first, which is `stream`.
  std::vector<Stream> allocate_inputs(const Context& context, const Stream& stream) const;
  void backward_block(const Context& context, size_t layer, Pass& pass) const;

  ModelConfig config_;
  std::vector<Block> blocks_;
  std::vector<int> block_groups_;
  int head_group_ = 0;
  std::optional<Norm> final_norm_;
  DeviceMemory table_memory_;
  SequenceInfo tables_;
};

/// `values` as a tensor of `dtype` in the backend's memory, which `memory` then owns. A planning
/// backend gets the shape alone.
Tensor make_table(Ops& ops, Shape shape, const std::vector<double>& values, DType dtype,
                  DeviceMemory& memory);

}  // namespace sigtrain
