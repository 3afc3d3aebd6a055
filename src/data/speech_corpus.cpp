#include "data/speech_corpus.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "config/derived.h"
#include "core/ctc_frames.h"
#include "core/error.h"
#include "data/audio_file.h"
#include "data/fnv.h"
#include "data/letters.h"

namespace sigtrain {
namespace {

constexpr size_t kExamples = 5;  // in an error

/// A recording's header, or why it has none.
struct Recording {
  AudioInfo info;
  std::string problem;
};

std::map<std::string, Recording> read_headers(const std::vector<Utterance>& utterances) {
  std::map<std::string, Recording> recordings;
  for (const Utterance& utterance : utterances) recordings[utterance.path];
  std::vector<std::pair<const std::string, Recording>*> all;
  for (auto& recording : recordings) all.push_back(&recording);
#pragma omp parallel for schedule(dynamic, 16)
  for (size_t i = 0; i < all.size(); ++i) {
    try {
      all[i]->second.info = audio_info(all[i]->first);
    } catch (const std::exception& error) {
      all[i]->second.problem = error.what();
    }
  }
  return recordings;
}

std::string name_of(const Utterance& utterance) {
  return utterance.start > 0.0 ? fmt::format("{} from {:.2f} s", utterance.path, utterance.start)
                               : utterance.path;
}

}  // namespace

SpeechCorpus::SpeechCorpus(const std::vector<std::string>& inputs, const Config& config,
                           double longest, double fastest) {
  const SpeechDataConfig& settings = config.data.speech;
  const Letters letters(settings.letters);
  const std::vector<Utterance> utterances = find_utterances(inputs);
  const std::map<std::string, Recording> recordings = read_headers(utterances);
  const auto leave_out = [&](const std::string& reason, std::string text) {
    ++unusable_[reason];
    left_out_.push_back(std::move(text));
  };
  for (const Utterance& utterance : utterances) {
    if (!utterance.is_transcribed) {
      ++untranscribed_;
      continue;
    }
    const Recording& recording = recordings.at(utterance.path);
    if (!recording.problem.empty()) {
      leave_out("unreadable", recording.problem);
      continue;
    }
    const double there = recording.info.seconds() - utterance.start;
    const double seconds = utterance.duration > 0.0 ? utterance.duration : there;
    if (!(seconds > 0.0) || seconds > there + 0.1) {
      leave_out(
          "outside of its recording",
          fmt::format("{}: {} past its end at {:.2f} s", name_of(utterance),
                      there > 0.0 ? fmt::format("the {:.2f} s wanted go", seconds) : "that is",
                      recording.info.seconds()));
      continue;
    }
    std::optional<std::vector<int32_t>> targets = letters.encode(utterance.transcript);
    if (!targets) {
      leave_out("with unknown letters",
                fmt::format("{}: '{}' has a letter that data.speech.letters lacks",
                            name_of(utterance), utterance.transcript));
      continue;
    }
    if (seconds > longest) {
      ++too_long_;
      continue;
    }
    const auto samples =
        static_cast<int64_t>(seconds / fastest * static_cast<double>(settings.sample_rate));
    const int64_t frames =
        speech_frames(config.model.speech, feature_frames(settings.sample_rate, samples));
    if (frames < std::max<int64_t>(1, ctc_frames_needed(*targets))) {
      leave_out(
          "shorter than their letters",
          fmt::format("{}: {:.2f} s give {} frames for the {} that '{}' needs", name_of(utterance),
                      seconds, frames, ctc_frames_needed(*targets), utterance.transcript));
      continue;
    }
    entries_.push_back({utterance, std::move(*targets), seconds});
  }
  const size_t unusable = left_out_.size();
  if (static_cast<double>(unusable) >
      settings.max_damaged * static_cast<double>(utterances.size())) {
    throw Error(
        "{} of {} utterances in {} cannot be used, more than data.speech.max_damaged, {}:{}",
        unusable, utterances.size(), fmt::join(inputs, ", "), settings.max_damaged,
        first_left_out());
  }
  if (entries_.empty()) {
    throw Error("{}: no utterance is left: {}{}", fmt::join(inputs, ", "), describe(),
                first_left_out());
  }
}

std::string SpeechCorpus::first_left_out() const {
  std::string text;
  for (size_t i = 0; i < std::min(left_out_.size(), kExamples); ++i) text += "\n  " + left_out_[i];
  if (left_out_.size() > kExamples) {
    text += fmt::format(
        "\n  and {} more, which a larger data.speech.max_damaged has named and "
        "left out",
        left_out_.size() - kExamples);
  }
  return text;
}

double SpeechCorpus::hours() const {
  double seconds = 0.0;
  for (const SpeechEntry& entry : entries_) seconds += entry.seconds;
  return seconds / 3600.0;
}

uint64_t SpeechCorpus::hash() const {
  Fnv64 hash;
  for (const SpeechEntry& entry : entries_) {
    hash.add(entry.utterance.transcript);
    hash.add(static_cast<uint64_t>(std::llround(entry.seconds * 1000.0)));
  }
  return hash.value();
}

std::string SpeechCorpus::describe() const {
  std::string text = fmt::format("{} utterances, {:.2f} hours", entries_.size(), hours());
  std::vector<std::string> left_out;
  for (const auto& [reason, count] : unusable_)
    left_out.push_back(fmt::format("{} {}", count, reason));
  if (untranscribed_ > 0) left_out.push_back(fmt::format("{} not transcribed", untranscribed_));
  if (too_long_ > 0) left_out.push_back(fmt::format("{} too long", too_long_));
  if (!left_out.empty()) text += fmt::format("; left out: {}", fmt::join(left_out, ", "));
  return text;
}

}  // namespace sigtrain
