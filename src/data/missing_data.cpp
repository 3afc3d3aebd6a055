#include "data/missing_data.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace sigtrain {
namespace {

namespace fs = std::filesystem;

struct Maker {
  std::string_view folder, command;
};

/// What makes the data that the configs name, by the folder it is written to.
constexpr Maker kMakers[] = {
    {"data/tiny", "scripts/quickstart.sh"},
    {"data/lm", "scripts/prepare_english_and_code.sh"},
    {"data/digits", "/usr/bin/python3 tools/digits_to_idx.py data/digits"},
    {"data/prompts", "scripts/prepare_prompts.sh"},
};

std::string_view advice_for_source(DataSource source) {
  switch (source) {
    case DataSource::text:
      return "build/tokenize TEXT... --output DIR makes token shards in DIR/train and "
             "DIR/validation";
    case DataSource::image_folder:
      return "data.source image_folder takes a folder of class folders with .jpg or .png images "
             "(docs/images.md)";
    case DataSource::cifar10:
      return "data.source cifar10 takes the files of CIFAR-10's binary version, unpacked "
             "(docs/images.md)";
    case DataSource::idx:
      return "data.source idx takes IDX files of images, as MNIST's, unpacked (docs/images.md)";
    case DataSource::speech:
      return "data.source speech takes folders of LibriSpeech and TED-LIUM, and manifests, which "
             "scripts/make_manifest.py makes of any folder (docs/speech.md)";
    case DataSource::synthetic:
      break;
  }
  return "data.source synthetic takes no files";
}

std::string advice_for(const std::string& path, std::string_view otherwise) {
  const std::string normal = fs::path(path).lexically_normal().string();
  for (const Maker& maker : kMakers) {
    if (normal == maker.folder || normal.starts_with(std::string(maker.folder) + '/'))
      return fmt::format("{} makes {}", maker.command, maker.folder);
  }
  return std::string(otherwise);
}

bool is_missing(const std::string& path) {
  std::error_code ignored;
  return fs::status(path, ignored).type() == fs::file_type::not_found;
}

}  // namespace

std::string describe_missing_data(const DataConfig& data) {
  if (data.source == DataSource::synthetic) return {};
  bool is_relative = false;
  std::vector<std::string> lines, advices;
  const auto require = [&](std::string_view key, const std::string& path,
                           std::string_view otherwise) {
    if (!is_missing(path)) return;
    lines.push_back(fmt::format("{}: {} does not exist", key, path));
    const std::string advice = advice_for(path, otherwise);
    if (std::find(advices.begin(), advices.end(), advice) == advices.end())
      advices.push_back(advice);
    is_relative = is_relative || fs::path(path).is_relative();
  };
  const std::string_view advice = advice_for_source(data.source);
  for (const std::string& path : data.train) require("data.train", path, advice);
  for (const std::string& path : data.validation) require("data.validation", path, advice);
  if (data.tokenizer.ends_with(".model")) {
    require("data.tokenizer", data.tokenizer,
            "build/tokenize TEXT... --output DIR --train-bpe SIZE makes DIR/tokenizer.model");
  }
  lines.insert(lines.end(), advices.begin(), advices.end());
  if (is_relative) {
    std::error_code ignored;
    lines.push_back(fmt::format("Relative paths start where the trainer was started, {}",
                                fs::current_path(ignored).string()));
  }
  return fmt::format("{}", fmt::join(lines, "\n"));
}

}  // namespace sigtrain
