// Cross-entropy of few classes, against one class or a distribution over them.
#include <cmath>

#include "ops/cpu/cpu_ops.h"
#include "ops/cpu/partition.h"

namespace sigtrain {

template <typename Real>
void CpuOps<Real>::classification_loss(double gradient_scale, const Tensor& logits,
                                       const Tensor& labels, const Tensor& targets,
                                       const Tensor& sums, const Tensor& d_logits) {
  const int64_t rows = logits.rows(), classes = logits.columns();
  const int32_t* label = labels.as<int32_t>();
  const Real *all_logits = logits.as<Real>(), *all_targets = targets.as<Real>();
  Real* gradients = d_logits.as<Real>();
  double totals[class_sum_slots] = {};
  // Rows are few and short beside the layers' work: one thread, and so one order of the sums.
  for (int64_t n = 0; n < rows; ++n) {
    const Real* x = all_logits + n * classes;
    const Real* t = all_targets ? all_targets + n * classes : nullptr;
    Real* gradient = gradients ? gradients + n * classes : nullptr;
    const int32_t own = label[n];
    if (own >= classes) {
      throw Error(
          "classification_loss: the label of row {} is {}, but the model has {} classes: the data "
          "and model.vision.classes do not belong together",
          n, own, classes);
    }
    if (own < 0) {
      if (gradient) std::fill_n(gradient, classes, Real{0});
      continue;
    }
    const double largest = *std::max_element(x, x + classes);
    double sum = 0.0;
    for (int64_t j = 0; j < classes; ++j) sum += std::exp(x[j] - largest);
    const double log_z = largest + std::log(sum);
    double objective = log_z - x[own];
    if (all_targets) {
      objective = 0.0;
      for (int64_t j = 0; j < classes; ++j) objective += t[j] * (log_z - x[j]);
    }
    int64_t larger = 0;
    // Written so that nothing is right about a logit that is no number.
    for (int64_t j = 0; j < classes; ++j)
      larger += !(x[j] <= x[own]) || (x[j] == x[own] && j < own);
    totals[class_sum_objective] += objective;
    totals[class_sum_nll] += log_z - x[own];
    totals[class_sum_count] += 1.0;
    totals[class_sum_correct] += larger < 1;
    totals[class_sum_correct_of_5] += larger < 5;
    if (!gradient) continue;
    for (int64_t j = 0; j < classes; ++j) {
      const double target = all_targets ? static_cast<double>(t[j]) : (j == own ? 1.0 : 0.0);
      gradient[j] = static_cast<Real>(gradient_scale * (std::exp(x[j] - log_z) - target));
    }
  }
  for (int slot = 0; slot < class_sum_slots; ++slot)
    sums.as<Real>()[slot] += static_cast<Real>(totals[slot]);
}

template void CpuOps<float>::classification_loss(double, const Tensor&, const Tensor&,
                                                 const Tensor&, const Tensor&, const Tensor&);
template void CpuOps<double>::classification_loss(double, const Tensor&, const Tensor&,
                                                  const Tensor&, const Tensor&, const Tensor&);

}  // namespace sigtrain
