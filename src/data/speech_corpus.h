// The utterances a run learns from or is tested on, checked before any work: what cannot be used is
// counted by its reason and named.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "config/schema.h"
#include "data/utterances.h"

namespace sigtrain {

/// An utterance that can be used.
struct SpeechEntry {
  Utterance utterance;
  std::vector<int32_t> targets;
  double seconds = 0.0;
};

class SpeechCorpus {
 public:
  /// Reads the header of every recording that the utterances name, on all processors. Throws what
  /// find_utterances throws, and Error naming the first unusable utterances where they are more
  /// than data.speech.max_damaged of all, or where none is left. Utterances longer than `longest`
  /// seconds and those not transcribed are left out, which is no damage; those left have frames for
  /// their letters at `fastest` times their speed.
  SpeechCorpus(const std::vector<std::string>& inputs, const Config& config, double longest,
               double fastest);

  const std::vector<SpeechEntry>& entries() const { return entries_; }
  double hours() const;
  int64_t too_long() const { return too_long_; }
  int64_t untranscribed() const { return untranscribed_; }
  /// Numbers of unusable utterances by reason: "unreadable", "with unknown letters", ...
  const std::map<std::string, int64_t>& unusable() const { return unusable_; }
  /// Each of these with what is wrong with it, in the order of the inputs.
  const std::vector<std::string>& left_out() const { return left_out_; }
  /// Of transcripts and durations: another corpus has another.
  uint64_t hash() const;
  /// "1,132 utterances, 2.10 hours; left out: ..."
  std::string describe() const;

 private:
  /// The first of left_out(), a line each, for an error.
  std::string first_left_out() const;

  std::vector<SpeechEntry> entries_;
  std::map<std::string, int64_t> unusable_;
  std::vector<std::string> left_out_;
  int64_t too_long_ = 0, untranscribed_ = 0;
};

}  // namespace sigtrain
