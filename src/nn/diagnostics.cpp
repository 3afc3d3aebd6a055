#include "nn/diagnostics.h"

#include <cmath>

#include "ops/host_values.h"

namespace sigtrain {

std::string_view name_of(Diagnostic diagnostic) {
  switch (diagnostic) {
    case Diagnostic::attention_out_rms:
      return "attention_out_rms";
    case Diagnostic::attention_branch_rms:
      return "attention_branch_rms";
    case Diagnostic::attention_row_sum:
      return "attention_row_sum";
  }
  return "?";
}

Diagnostics::Diagnostics(Ops& ops, int64_t layers, int64_t micro_batches)
    : Diagnostics(planning(ops, layers, micro_batches)) {
  memory_ = ops.allocate(values_.bytes());
  values_.data = memory_.get();
  ops.fill(values_, 0.0);
}

Diagnostics Diagnostics::planning(const Ops& ops, int64_t layers, int64_t micro_batches) {
  Diagnostics diagnostics;
  diagnostics.layers_ = layers;
  diagnostics.values_ = {
      nullptr, ops.accumulate_dtype(), {micro_batches, kDiagnosticCount, layers}};
  diagnostics.weights_.assign(static_cast<size_t>(micro_batches), 1.0);
  return diagnostics;
}

void Diagnostics::begin_micro_batch(int64_t micro_batch) {
  micro_batch_ = micro_batch;
  weigh(1.0);
}

Tensor Diagnostics::slot(Diagnostic diagnostic, int64_t layer) const {
  const int64_t index =
      (micro_batch_ * kDiagnosticCount + static_cast<int64_t>(diagnostic)) * layers_ + layer;
  return values_.reshape({values_.numel()}).slice(index, index + 1);
}

void Diagnostics::take_mean(Ops& ops, Diagnostic diagnostic, int64_t layer, const Tensor& x,
                            const Tensor& lengths) const {
  if (lengths) {
    ops.sequence_mean(x, lengths, slot(diagnostic, layer));
  } else {
    ops.mean(x, slot(diagnostic, layer));
  }
}

void Diagnostics::take_root_mean_square(Ops& ops, Diagnostic diagnostic, int64_t layer,
                                        const Tensor& x, const Tensor& lengths) const {
  if (lengths) {
    ops.sequence_root_mean_square(x, lengths, slot(diagnostic, layer));
  } else {
    ops.root_mean_square(x, slot(diagnostic, layer));
  }
}

std::array<std::vector<double>, kDiagnosticCount> Diagnostics::read(Ops& ops,
                                                                    ProcessGroup& group) const {
  const std::vector<double> values = host_values(ops, values_);
  const auto slots = static_cast<size_t>(kDiagnosticCount * layers_);
  const auto is_rms = [&](size_t slot) {
    return static_cast<int64_t>(slot) / layers_ !=
           static_cast<int64_t>(Diagnostic::attention_row_sum);
  };
  std::vector<double> sums(slots + 1, 0.0);  // the last: of the weights
  for (size_t micro = 0; micro < weights_.size(); ++micro) {
    for (size_t slot = 0; slot < slots; ++slot) {
      const double value = values[micro * slots + slot];
      sums[slot] += weights_[micro] * (is_rms(slot) ? value * value : value);
    }
    sums[slots] += weights_[micro];
  }
  group.sum(sums);
  // Without any rows there is nothing but the zeros that were written.
  const double weight = sums[slots] > 0.0 ? sums[slots] : 1.0;
  std::array<std::vector<double>, kDiagnosticCount> by_diagnostic;
  for (size_t slot = 0; slot < slots; ++slot) {
    const double mean = sums[slot] / weight;
    by_diagnostic[slot / static_cast<size_t>(layers_)].push_back(is_rms(slot) ? std::sqrt(mean)
                                                                              : mean);
  }
  return by_diagnostic;
}

}  // namespace sigtrain
