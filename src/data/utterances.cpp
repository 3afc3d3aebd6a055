#include "data/utterances.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <functional>
#include <optional>
#include <set>
#include <sstream>
#include <string_view>

#include "core/error.h"
#include "core/file_io.h"

namespace sigtrain {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kHeader = "path\tstart\tduration\ttranscript";

/// Calls take(number, line) for every line that is not empty, counted from 1, without its end.
void for_each_line(const fs::path& path,
                   const std::function<void(int64_t, std::string_view)>& take) {
  const std::string text = read_file(path);
  int64_t number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    std::string_view line = std::string_view(text).substr(begin, end - begin);
    if (line.ends_with('\r')) line.remove_suffix(1);
    ++number;
    if (!line.empty()) take(number, line);
    begin = end + 1;
  }
}

/// A number of seconds, at least 0; an empty field is 0.
double seconds(std::string_view field, const fs::path& path, int64_t line, const char* what) {
  constexpr double most = 1e9;  // decades: no recording is as long
  double value = 0.0;
  if (field.empty()) return value;
  const auto [end, error] = std::from_chars(field.data(), field.data() + field.size(), value);
  if (error != std::errc() || end != field.data() + field.size() || !(value >= 0.0) ||
      value > most) {
    throw Error("{}:{}: the {} '{}' is no number of seconds", path.string(), line, what, field);
  }
  return value;
}

void add_manifest(const fs::path& path, std::vector<Utterance>& utterances) {
  bool has_header = false;
  for_each_line(path, [&](int64_t number, std::string_view line) {
    if (!has_header) {
      if (line != kHeader) {
        throw Error(
            "{}:{}: a manifest begins with the line path, start, duration, transcript, separated "
            "by tabs",
            path.string(), number);
      }
      has_header = true;
      return;
    }
    std::vector<std::string_view> fields;
    for (size_t begin = 0; begin <= line.size();) {
      const size_t end = std::min(line.find('\t', begin), line.size());
      fields.push_back(line.substr(begin, end - begin));
      begin = end + 1;
    }
    if (fields.size() != 4 || fields[0].empty()) {
      throw Error("{}:{}: not a path, a start, a duration and a transcript, separated by tabs",
                  path.string(), number);
    }
    utterances.push_back({(path.parent_path() / fields[0]).string(),
                          seconds(fields[1], path, number, "start"),
                          seconds(fields[2], path, number, "duration"), std::string(fields[3])});
  });
  if (!has_header) throw Error("{}: the manifest is empty", path.string());
}

/// "SPEAKER-CHAPTER-NUMBER THE WORDS", beside SPEAKER-CHAPTER-NUMBER.flac.
void add_librispeech(const fs::path& path, std::vector<Utterance>& utterances) {
  for_each_line(path, [&](int64_t number, std::string_view line) {
    const size_t space = line.find(' ');
    if (space == 0 || space == std::string_view::npos) {
      throw Error("{}:{}: not a name and the words behind it", path.string(), number);
    }
    const std::string name(line.substr(0, space));
    utterances.push_back({(path.parent_path() / (name + ".flac")).string(), 0.0, 0.0,
                          std::string(line.substr(space + 1))});
  });
}

/// TED-LIUM writes a clitic as a word of its own ("it 's"); words it has none for are "<unk>".
std::string tedlium_transcript(std::istringstream& words) {
  std::string transcript, word;
  while (words >> word) {
    if (word == "<unk>") continue;
    if (!transcript.empty() && word[0] != '\'') transcript += ' ';
    transcript += word;
  }
  return transcript;
}

/// "TALK CHANNEL SPEAKER START END <LABELS> the words" (NIST's segment time marks).
void add_tedlium(const fs::path& path, std::vector<Utterance>& utterances) {
  for_each_line(path, [&](int64_t number, std::string_view line) {
    if (line.starts_with(";;")) return;
    std::istringstream words{std::string(line)};
    std::string talk, channel, speaker, start, end, labels;
    if (!(words >> talk >> channel >> speaker >> start >> end >> labels) ||
        !labels.starts_with('<')) {
      throw Error("{}:{}: not a talk, a channel, a speaker, a start, an end and <labels>",
                  path.string(), number);
    }
    const double begin = seconds(start, path, number, "start");
    const double duration = seconds(end, path, number, "end") - begin;
    if (!(duration > 0.0)) {
      throw Error("{}:{}: the end, {}, is not behind the start, {}", path.string(), number, end,
                  start);
    }
    const std::string transcript = tedlium_transcript(words);
    const bool is_transcribed =
        !transcript.empty() && transcript != "ignore_time_segment_in_scoring";
    const fs::path stem = path.parent_path().parent_path() / "sph" / talk;
    const fs::path sphere = stem.string() + ".sph", flac = stem.string() + ".flac";
    utterances.push_back(
        {(fs::exists(flac) ? flac : sphere).string(), begin, duration, transcript, is_transcribed});
  });
}

bool is_librispeech(const fs::path& path) {
  return path.filename().string().ends_with(".trans.txt");
}

bool is_tedlium(const fs::path& path) {
  return path.extension() == ".stm" && path.parent_path().filename() == "stm";
}

/// By the name: where nothing is there, a link leads nowhere. That to a recording is found missing
/// where its transcript is read.
bool may_hold_transcripts(const fs::path& path) {
  return !path.has_extension() || is_librispeech(path) || is_tedlium(path);
}

/// All files at any depth, also behind links; a folder that is reached in several ways is taken
/// once.
void find_files(const fs::path& folder, std::set<fs::path>& seen, std::vector<fs::path>& files) {
  std::error_code error;
  const fs::path real = fs::canonical(folder, error);
  if (!error && !seen.insert(real).second) return;
  fs::directory_iterator entries(folder, error);
  std::vector<fs::directory_entry> found;
  for (; !error && entries != fs::directory_iterator(); entries.increment(error))
    found.push_back(*entries);
  if (error) {
    throw Error("{}: cannot be read: {}; make it readable or take it away", folder.string(),
                error.message());
  }
  std::sort(found.begin(), found.end());
  for (const fs::directory_entry& entry : found) {
    if (entry.is_directory(error)) {
      find_files(entry.path(), seen, files);
    } else if (entry.is_regular_file(error)) {
      files.push_back(entry.path());
    } else if (error && (error != std::errc::no_such_file_or_directory ||
                         may_hold_transcripts(entry.path()))) {
      throw Error("{}: cannot be read: {}; make it readable or take it away", entry.path().string(),
                  error.message());
    }
  }
}

void add_folder(const fs::path& folder, std::vector<Utterance>& utterances) {
  std::vector<fs::path> files, librispeech, tedlium;
  std::set<fs::path> seen;
  find_files(folder, seen, files);
  for (const fs::path& path : files) {
    if (is_librispeech(path)) librispeech.push_back(path);
    if (is_tedlium(path)) tedlium.push_back(path);
  }
  if (librispeech.empty() == tedlium.empty()) {
    throw UsageError(
        "{}: {}", folder.string(),
        librispeech.empty()
            ? "no transcripts in it: neither *.trans.txt (LibriSpeech) nor stm/*.stm (TED-LIUM)"
            : "it has both LibriSpeech's *.trans.txt and TED-LIUM's stm/*.stm: name one of them");
  }
  std::sort(librispeech.begin(), librispeech.end());
  std::sort(tedlium.begin(), tedlium.end());
  for (const fs::path& path : librispeech) add_librispeech(path, utterances);
  for (const fs::path& path : tedlium) add_tedlium(path, utterances);
}

}  // namespace

std::vector<Utterance> find_utterances(const std::vector<std::string>& inputs) {
  std::vector<Utterance> utterances;
  for (const std::string& input : inputs) {
    std::error_code ignored;
    if (fs::is_directory(input, ignored)) {
      add_folder(input, utterances);
    } else if (fs::is_regular_file(input, ignored)) {
      add_manifest(input, utterances);
    } else {
      throw UsageError("{}: no such manifest or folder of speech", input);
    }
  }
  return utterances;
}

}  // namespace sigtrain
