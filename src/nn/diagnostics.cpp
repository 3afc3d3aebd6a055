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

Diagnostics::Diagnostics(Ops& ops, int64_t layers) : Diagnostics(planning(ops, layers)) {
  memory_ = ops.allocate(values_.bytes());
  values_.data = memory_.get();
  ops.fill(values_, 0.0);
}

Diagnostics Diagnostics::planning(const Ops& ops, int64_t layers) {
  Diagnostics diagnostics;
  diagnostics.layers_ = layers;
  diagnostics.values_ = {nullptr, ops.accumulate_dtype(), {kDiagnosticCount, layers}};
  return diagnostics;
}

Tensor Diagnostics::slot(Diagnostic diagnostic, int64_t layer) const {
  const int64_t index = static_cast<int64_t>(diagnostic) * layers_ + layer;
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
  std::vector<double> all = host_values(ops, values_);
  if (group.size() > 1) {
    // Each rank's micro-batch counts alike: a root mean square is that of the mean squares, a mean
    // that of means.
    const auto is_rms = [&](size_t i) {
      return static_cast<int64_t>(i) / layers_ !=
             static_cast<int64_t>(Diagnostic::attention_row_sum);
    };
    for (size_t i = 0; i < all.size(); ++i) all[i] = is_rms(i) ? all[i] * all[i] : all[i];
    group.sum(all);
    for (size_t i = 0; i < all.size(); ++i) {
      all[i] /= group.size();
      if (is_rms(i)) all[i] = std::sqrt(all[i]);
    }
  }
  std::array<std::vector<double>, kDiagnosticCount> by_diagnostic;
  for (int d = 0; d < kDiagnosticCount; ++d)
    by_diagnostic[d].assign(all.begin() + d * layers_, all.begin() + (d + 1) * layers_);
  return by_diagnostic;
}

}  // namespace sigtrain
