#include "tasks/ctc_decoder.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

namespace sigtrain {
namespace {

constexpr double kImpossible = -std::numeric_limits<double>::infinity();

double log_add(double a, double b) {
  if (a < b) std::swap(a, b);
  return b == kImpossible ? a : a + std::log1p(std::exp(b - a));
}

/// A text as a path in a tree: its last letter, and the node of the text before it.
struct Node {
  int32_t parent, letter;
};

/// A text that the beam holds, with the log probability of the paths to it that end in a blank and
/// of those that end in its last letter.
struct Beam {
  int32_t node = 0;
  double blank = kImpossible, letter = kImpossible;
  double total() const { return log_add(blank, letter); }
};

class PrefixSearch {
 public:
  explicit PrefixSearch(int32_t blank) : blank_(blank) { beams_.push_back({0, 0.0, kImpossible}); }

  void step(const std::vector<double>& log_p, int64_t width) {
    std::map<int32_t, Beam> next;  // by node: the same order every time
    const auto at = [&](int32_t node) -> Beam& {
      Beam& beam = next[node];
      beam.node = node;
      return beam;
    };
    for (const Beam& beam : beams_) {
      const double total = beam.total();
      const int32_t last = nodes_[static_cast<size_t>(beam.node)].letter;
      Beam& same = at(beam.node);
      same.blank = log_add(same.blank, total + log_p[static_cast<size_t>(blank_)]);
      if (last != kNone)
        same.letter = log_add(same.letter, beam.letter + log_p[static_cast<size_t>(last)]);
      for (size_t v = 0; v < log_p.size(); ++v) {
        const auto letter = static_cast<int32_t>(v);
        if (letter == blank_) continue;
        // The same letter once more is another letter only behind a blank.
        const double before = letter == last ? beam.blank : total;
        if (before == kImpossible) continue;
        Beam& longer = at(child(beam.node, letter));
        longer.letter = log_add(longer.letter, before + log_p[v]);
      }
    }
    beams_.clear();
    for (const auto& [node, beam] : next) beams_.push_back(beam);
    const auto kept = std::min(static_cast<size_t>(width), beams_.size());
    std::partial_sort(beams_.begin(), beams_.begin() + static_cast<std::ptrdiff_t>(kept),
                      beams_.end(), [](const Beam& a, const Beam& b) {
                        const double x = a.total(), y = b.total();
                        return x != y ? x > y : a.node < b.node;
                      });
    beams_.resize(kept);
  }

  std::vector<int32_t> best() const {
    std::vector<int32_t> letters;
    for (int32_t node = beams_.front().node; node != 0;
         node = nodes_[static_cast<size_t>(node)].parent)
      letters.push_back(nodes_[static_cast<size_t>(node)].letter);
    std::reverse(letters.begin(), letters.end());
    return letters;
  }

 private:
  static constexpr int32_t kNone = -1;

  int32_t child(int32_t node, int32_t letter) {
    const auto [found, is_new] =
        children_.try_emplace({node, letter}, static_cast<int32_t>(nodes_.size()));
    if (is_new) nodes_.push_back({node, letter});
    return found->second;
  }

  int32_t blank_;
  std::vector<Node> nodes_{{kNone, kNone}};
  std::map<std::pair<int32_t, int32_t>, int32_t> children_;
  std::vector<Beam> beams_;
};

}  // namespace

std::vector<int32_t> decode_greedy(std::span<const float> logits, int64_t vocab_size,
                                   int32_t blank) {
  std::vector<int32_t> letters;
  int32_t before = blank;
  for (auto row = logits.begin(); row != logits.end(); row += vocab_size) {
    const auto best = static_cast<int32_t>(std::max_element(row, row + vocab_size) - row);
    if (best != before && best != blank) letters.push_back(best);
    before = best;
  }
  return letters;
}

std::vector<int32_t> decode_beam(std::span<const float> logits, int64_t vocab_size, int32_t blank,
                                 int64_t beam_width) {
  PrefixSearch search(blank);
  std::vector<double> log_p(static_cast<size_t>(vocab_size));
  for (auto row = logits.begin(); row != logits.end(); row += vocab_size) {
    const double largest = *std::max_element(row, row + vocab_size);
    double sum = 0.0;
    for (int64_t v = 0; v < vocab_size; ++v) sum += std::exp(row[v] - largest);
    for (int64_t v = 0; v < vocab_size; ++v)
      log_p[static_cast<size_t>(v)] = row[v] - largest - std::log(sum);
    search.step(log_p, beam_width);
  }
  return search.best();
}

}  // namespace sigtrain
