// What was said where: lists of utterances from manifests and from the folders of LibriSpeech and
// TED-LIUM.
#pragma once

#include <string>
#include <vector>

namespace sigtrain {

struct Utterance {
  std::string path;       // of the recording
  double start = 0.0;     // seconds
  double duration = 0.0;  // seconds; 0: to the recording's end
  std::string transcript;
  bool is_transcribed = true;  // false: something may be said that nobody wrote down
};

/// The utterances that `inputs` name, in that order. A file is a manifest: tab-separated lines of
/// path, start, duration and transcript behind that very header, paths being relative to the
/// manifest's folder. A folder holds, at any depth and also behind links, either LibriSpeech's
/// *.trans.txt beside their .flac files (Panayotov et al. 2015) or TED-LIUM's stm/*.stm with
/// ../sph/*.sph or .flac (Hernandez et al. 2018); its files are taken in order of name. TED-LIUM's
/// segments that are not to be scored, or that have no known word, are not transcribed. Throws
/// UsageError for an input that does not exist or is neither, and Error naming file and line for a
/// line that is not as it should be, or naming a folder that cannot be read or a link that leads
/// nowhere.
std::vector<Utterance> find_utterances(const std::vector<std::string>& inputs);

}  // namespace sigtrain
