// Connectionist temporal classification (Graves et al. 2006), one sequence a thread, in log space.
//
// A sequence's states are its targets with a blank before, between and behind them: s = 0 ... 2L.
// alpha[t, s] sums the paths over frames 0 ... t that end in s, beta[t, s] those over frames
// t + 1 ... T - 1 that go on from s. Every path takes one label a frame, so that log p of each may
// be counted from the frame's largest logit on instead of from its log Z: that moves no share of
// any state and keeps the sums small, where float is exact enough.
#include <limits>
#include <vector>

#include "core/ctc_frames.h"
#include "ops/cpu/cpu_ops.h"
#include "ops/cpu/partition.h"

namespace sigtrain {
namespace {

template <typename Real>
constexpr Real kImpossible = -std::numeric_limits<Real>::infinity();

/// log(e^a + e^b + e^c)
template <typename Real>
Real log_add(Real a, Real b, Real c) {
  const Real largest = std::max(a, std::max(b, c));
  if (largest == kImpossible<Real>) return largest;
  return largest + std::log(std::exp(a - largest) + std::exp(b - largest) + std::exp(c - largest));
}

/// Memory of one sequence, at most that of CtcDesc.
template <typename Real>
struct Lattice {
  Lattice(const CtcDesc& desc, Real* memory)
      : states(2 * desc.max_targets + 1),
        alpha(memory),
        beta(alpha + desc.seq_len * states),
        next_beta(beta + states),
        maxima(next_beta + states),
        log_z(maxima + desc.seq_len),
        shares(log_z + desc.seq_len) {}

  static int64_t elements(const CtcDesc& desc) {
    const int64_t states = 2 * desc.max_targets + 1;
    return (desc.seq_len + 2) * states + 2 * desc.seq_len + desc.vocab_size;
  }

  int64_t states;
  Real* alpha;             // [seq_len, states]
  Real *beta, *next_beta;  // [states]
  Real *maxima, *log_z;  // [seq_len]: the largest logit, and log of the sum of exp counted from it
  Real* shares;          // [vocab_size]: of a frame's paths, by label
};

/// One sequence: `length` frames of logits, `count` targets.
template <typename Real>
class Sequence {
 public:
  Sequence(const CtcDesc& desc, const Real* logits, int64_t length, const int32_t* targets,
           int64_t count, Lattice<Real> lattice)
      : desc_(desc),
        logits_(logits),
        length_(length),
        targets_(targets),
        count_(count),
        states_(2 * count + 1),
        lattice_(lattice) {}

  bool is_feasible() const {
    return ctc_frames_needed({targets_, static_cast<size_t>(count_)}) <= length_;
  }

  /// Fills the lattice's alpha; -log p.
  double loss() {
    double log_z = 0.0;
    for (int64_t t = 0; t < length_; ++t) {
      const Real* row = frame(t);
      const Real largest = *std::max_element(row, row + desc_.vocab_size);
      double sum = 0.0;
      for (int64_t v = 0; v < desc_.vocab_size; ++v)
        sum += std::exp(static_cast<double>(row[v]) - largest);
      lattice_.maxima[t] = largest;
      lattice_.log_z[t] = static_cast<Real>(std::log(sum));
      log_z += std::log(sum);
    }
    if (length_ == 0) return 0.0;  // feasible, so without targets
    for (int64_t t = 0; t < length_; ++t) {
      Real* now = alpha(t);
      for (int64_t s = 0; s < states_; ++s) {
        Real arriving = s <= 1 ? Real(0) : kImpossible<Real>;
        if (t > 0) {
          const Real* before = alpha(t - 1);
          arriving = log_add(before[s], s > 0 ? before[s - 1] : kImpossible<Real>,
                             may_skip_to(s) ? before[s - 2] : kImpossible<Real>);
        }
        now[s] = arriving + emission(t, s);
      }
    }
    const Real* last = alpha(length_ - 1);
    log_paths_ = log_add(last[states_ - 1], states_ > 1 ? last[states_ - 2] : kImpossible<Real>,
                         kImpossible<Real>);
    return log_z - static_cast<double>(log_paths_);
  }

  /// After loss(): d_logits[t, v] = gradient_scale (p[t, v] - share of the paths that take v at t).
  void gradient(Real* d_logits) {
    Real *beta = lattice_.beta, *next = lattice_.next_beta;
    for (int64_t t = length_ - 1; t >= 0; --t) {
      for (int64_t s = 0; s < states_; ++s) {
        if (t == length_ - 1) {
          beta[s] = s >= states_ - 2 ? Real(0) : kImpossible<Real>;
          continue;
        }
        const auto going_to = [&](int64_t to) { return next[to] + emission(t + 1, to); };
        beta[s] =
            log_add(going_to(s), s + 1 < states_ ? going_to(s + 1) : kImpossible<Real>,
                    s + 2 < states_ && may_skip_to(s + 2) ? going_to(s + 2) : kImpossible<Real>);
      }
      std::fill_n(lattice_.shares, desc_.vocab_size, Real(0));
      for (int64_t s = 0; s < states_; ++s)
        lattice_.shares[label(s)] += std::exp(alpha(t)[s] + beta[s] - log_paths_);
      const Real* row = frame(t);
      const auto scale = static_cast<Real>(desc_.gradient_scale);
      for (int64_t v = 0; v < desc_.vocab_size; ++v) {
        const Real p = std::exp(row[v] - lattice_.maxima[t] - lattice_.log_z[t]);
        d_logits[t * desc_.vocab_size + v] = scale * (p - lattice_.shares[v]);
      }
      std::swap(beta, next);
    }
  }

 private:
  const Real* frame(int64_t t) const { return logits_ + t * desc_.vocab_size; }
  Real* alpha(int64_t t) const { return lattice_.alpha + t * lattice_.states; }
  int32_t label(int64_t s) const { return s % 2 == 0 ? desc_.blank : targets_[s / 2]; }
  Real emission(int64_t t, int64_t s) const { return frame(t)[label(s)] - lattice_.maxima[t]; }
  /// Whether a path may go from s - 2 to s: between equal targets there must be a blank.
  bool may_skip_to(int64_t s) const {
    return s % 2 == 1 && s >= 3 && targets_[s / 2] != targets_[s / 2 - 1];
  }

  const CtcDesc& desc_;
  const Real* logits_;
  int64_t length_;
  const int32_t* targets_;
  int64_t count_, states_;
  Lattice<Real> lattice_;
  Real log_paths_ = 0;
};

void check_inputs(const CtcDesc& desc, const int32_t* frame_lengths, const int32_t* targets,
                  const int32_t* target_lengths) {
  for (int64_t b = 0; b < desc.batch; ++b) {
    if (frame_lengths[b] < 0 || frame_lengths[b] > desc.seq_len || target_lengths[b] < 0 ||
        target_lengths[b] > desc.max_targets) {
      throw Error("ctc: sequence {} has {} frames and {} targets; at most {} and {} are possible",
                  b, frame_lengths[b], target_lengths[b], desc.seq_len, desc.max_targets);
    }
    for (int64_t i = 0; i < target_lengths[b]; ++i) {
      const int32_t target = targets[b * desc.max_targets + i];
      if (target >= 0 && target < desc.vocab_size && target != desc.blank) continue;
      throw Error(
          "ctc: target {} of sequence {} is {}, which is the blank or not in the vocabulary "
          "[0, {}): the data and the model's vocab_size do not belong together",
          i, b, target, desc.vocab_size);
    }
  }
}

}  // namespace

template <typename Real>
size_t CpuOps<Real>::ctc_loss_workspace(const CtcDesc& desc) const {
  return static_cast<size_t>(desc.batch * Lattice<Real>::elements(desc)) * sizeof(Real);
}

template <typename Real>
void CpuOps<Real>::ctc_loss(const CtcDesc& desc, const Tensor& logits, const Tensor& frame_lengths,
                            const Tensor& targets, const Tensor& target_lengths,
                            const Tensor& losses, const Tensor& sums, const Tensor& d_logits) {
  const int32_t *lengths = frame_lengths.as<int32_t>(), *target = targets.as<int32_t>(),
                *counts = target_lengths.as<int32_t>();
  check_inputs(desc, lengths, target, counts);
  const int64_t per_sequence = Lattice<Real>::elements(desc),
                sequence_logits = desc.seq_len * desc.vocab_size;
  Real* memory = scratch<Real>(workspace_, desc.batch * per_sequence, "ctc_loss");
  const Real* inputs = logits.as<Real>();
  Real *gradients = d_logits.as<Real>(), *loss = losses.as<Real>();
  struct Outcome {
    bool feasible;
    double nll;
  };
  std::vector<Outcome> outcomes(static_cast<size_t>(desc.batch));
  for_pieces(desc.batch, 1, [&](int64_t b, int64_t) {
    Sequence<Real> sequence(desc, inputs + b * sequence_logits, lengths[b],
                            target + b * desc.max_targets, counts[b],
                            {desc, memory + b * per_sequence});
    const bool feasible = sequence.is_feasible();
    const double nll = feasible ? sequence.loss() : std::numeric_limits<double>::infinity();
    outcomes[static_cast<size_t>(b)] = {feasible, nll};
    loss[b] = static_cast<Real>(nll);
    if (!gradients) return;
    Real* gradient = gradients + b * sequence_logits;
    if (feasible) sequence.gradient(gradient);
    const int64_t written = feasible ? lengths[b] * desc.vocab_size : 0;
    std::fill(gradient + written, gradient + sequence_logits, Real(0));
  });
  double totals[ctc_sum_slots] = {};
  for (int64_t b = 0; b < desc.batch; ++b) {
    const Outcome& outcome = outcomes[static_cast<size_t>(b)];
    // Not by its loss, which is infinite too where the logits leave the targets no probability.
    if (!outcome.feasible) {
      totals[ctc_sum_infeasible] += 1.0;
      continue;
    }
    totals[ctc_sum_nll] += outcome.nll;
    totals[ctc_sum_sequences] += 1.0;
    totals[ctc_sum_targets] += counts[b];
  }
  for (int slot = 0; slot < ctc_sum_slots; ++slot)
    sums.as<Real>()[slot] += static_cast<Real>(totals[slot]);
}

#define SIGTRAIN_INSTANTIATE(Real)                                                                 \
  template size_t CpuOps<Real>::ctc_loss_workspace(const CtcDesc&) const;                          \
  template void CpuOps<Real>::ctc_loss(const CtcDesc&, const Tensor&, const Tensor&,               \
                                       const Tensor&, const Tensor&, const Tensor&, const Tensor&, \
                                       const Tensor&);
SIGTRAIN_INSTANTIATE(float)
SIGTRAIN_INSTANTIATE(double)
#undef SIGTRAIN_INSTANTIATE

}  // namespace sigtrain
