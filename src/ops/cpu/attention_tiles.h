// What the forward and the backward pass of attention share: where q, k and v lie, which keys a
// query sees, and how queries and keys are cut into tiles.
//
// The keys visible from a query are always one interval, and both its ends move forward with the
// query. So a tile of queries needs the keys of one interval only, and no mask is ever stored.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cmath>

#include "ops/cpu/partition.h"
#include "ops/ops.h"

namespace sigtrain {

/// Rows of a tile of logits, and its columns at most. Fastest of 32 to 128 by 64 to 512 at head_dim
/// 64 and 128: larger tiles compute more that a causal mask hides, smaller ones spend more on
/// packing operands.
constexpr int64_t kAttentionQueryTile = 64;
constexpr int64_t kAttentionKeyTile = 128;
/// Elements at which the visible part of a row of logits is rounded: whole vectors, no remainder.
constexpr int64_t kAttentionColumnBlock = 16;

/// Half-open interval of positions; empty where end <= begin.
struct PositionRange {
  int64_t begin = 0, end = 0;
  int64_t size() const { return std::max<int64_t>(0, end - begin); }
};

/// The head matrices [seq_len, head_dim] inside one HeadsView.
template <typename Real>
struct HeadMatrices {
  HeadMatrices(const AttentionDesc& desc, const HeadsView& view)
      : data(view.storage.as<Real>() ? view.storage.as<Real>() + view.offset : nullptr),
        row_stride(view.row_stride),
        seq_len(desc.seq_len),
        head_dim(desc.head_dim) {}

  Real* row(int64_t batch, int64_t head, int64_t position) const {
    return data + (batch * seq_len + position) * row_stride + head * head_dim;
  }
  void set_zero(int64_t batch, int64_t head, PositionRange positions) const {
    for (int64_t i = positions.begin; i < positions.end; ++i)
      std::fill_n(row(batch, head, i), head_dim, Real{0});
  }

  Real* data;
  int64_t row_stride, seq_len, head_dim;
};

/// Everything that gives the logits, read from tensors once so that no tile can throw.
template <typename Real>
class AttentionLogits {
 public:
  AttentionLogits(const AttentionDesc& desc, const AttentionInputs& inputs)
      : q(desc, inputs.q),
        k(desc, inputs.k),
        v(desc, inputs.v),
        scale(static_cast<Real>(desc.scale)),
        desc_(desc),
        window_(desc.window > 0 ? std::min(desc.window, desc.seq_len) : desc.seq_len),
        head_bias_(inputs.head_bias.as<Real>()),
        alibi_slopes_(inputs.alibi_slopes.as<Real>()),
        key_lengths_(inputs.key_lengths.as<int32_t>()) {}

  int64_t query_tiles() const { return ceil_div(desc_.seq_len, kAttentionQueryTile); }
  PositionRange queries(int64_t tile) const {
    return {tile * kAttentionQueryTile, std::min(desc_.seq_len, (tile + 1) * kAttentionQueryTile)};
  }
  PositionRange visible_keys(int64_t batch, int64_t query) const {
    const int64_t end = desc_.causal ? query + 1 : query + window_;
    return {std::max<int64_t>(0, query - window_ + 1), std::min(end, keys(batch))};
  }
  /// Keys visible from any of `queries`.
  PositionRange visible_keys(int64_t batch, PositionRange queries) const {
    return {visible_keys(batch, queries.begin).begin, visible_keys(batch, queries.end - 1).end};
  }
  int64_t kv_head(int64_t head) const { return head / (desc_.heads / desc_.kv_heads); }
  Real bias(int64_t head) const {
    return static_cast<Real>(desc_.bias) + (head_bias_ ? head_bias_[head] : Real{0});
  }
  Real slope(int64_t head) const { return alibi_slopes_ ? alibi_slopes_[head] : Real{0}; }

  HeadMatrices<Real> q, k, v;
  Real scale;

 private:
  int64_t keys(int64_t batch) const {
    return key_lengths_ ? std::clamp<int64_t>(key_lengths_[batch], 0, desc_.seq_len)
                        : desc_.seq_len;
  }

  AttentionDesc desc_;
  int64_t window_;
  const Real* head_bias_;
  const Real* alibi_slopes_;
  const int32_t* key_lengths_;
};

/// Calls body(keys) for tiles of `keys` in order, of about equal width.
template <typename Body>
void for_key_tiles(PositionRange keys, const Body& body) {
  if (keys.size() == 0) return;
  const int64_t tiles = ceil_div(keys.size(), kAttentionKeyTile);
  const int64_t width =
      ceil_div(ceil_div(keys.size(), tiles), kAttentionColumnBlock) * kAttentionColumnBlock;
  for (int64_t begin = keys.begin; begin < keys.end; begin += width)
    body(PositionRange{begin, std::min(begin + width, keys.end)});
}

/// One row of a tile: its columns [begin, end) are visible, [first, last) are whole blocks around
/// them. bias, slope and distance (of column 0 from the query) turn products into logits.
template <typename Real>
struct LogitRow {
  LogitRow(PositionRange tile, PositionRange visible, int64_t query, Real logit_bias,
           Real alibi_slope)
      : bias(logit_bias), slope(alibi_slope), distance(static_cast<int32_t>(tile.begin - query)) {
    begin = static_cast<int32_t>(std::max(visible.begin, tile.begin) - tile.begin);
    end = static_cast<int32_t>(std::min(visible.end, tile.end) - tile.begin);
    if (end <= begin) begin = end = 0;
    constexpr auto block = static_cast<int32_t>(kAttentionColumnBlock);
    first = begin / block * block;
    last = (end + block - 1) / block * block;
  }
  bool empty() const { return begin == end; }
  bool sees(int32_t column) const { return (column >= begin) & (column < end); }
  Real logit(Real product, int32_t column) const {
    return product + (bias - slope * std::abs(static_cast<Real>(column + distance)));
  }
  /// Sets the columns of a row of `width` outside [first, last) to 0.
  void clear_outside(Real* row, int64_t width) const {
    std::fill_n(row, first, Real{0});
    if (last < width) std::fill_n(row + last, width - last, Real{0});
  }

  Real bias, slope;
  int32_t distance;
  int32_t begin, end, first, last;
};

/// Elements of one thread's scratch, whole cache lines so that threads never share one.
constexpr int64_t padded_elements(int64_t count) { return ceil_div(count, 64) * 64; }

}  // namespace sigtrain
