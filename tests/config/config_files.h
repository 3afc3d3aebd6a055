// Writes config files into a folder of their own and reads them as a user would.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "config/reader.h"

namespace sigtrain {

class ConfigFiles {
 public:
  ConfigFiles() {
    const auto* test = testing::UnitTest::GetInstance()->current_test_info();
    folder_ = std::filesystem::path(SIGTRAIN_BINARY_DIR) / "test_config_files" /
              (std::string(test->test_suite_name()) + "." + test->name());
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  ~ConfigFiles() { std::filesystem::remove_all(folder_); }
  ConfigFiles(const ConfigFiles&) = delete;
  ConfigFiles& operator=(const ConfigFiles&) = delete;

  void write(const std::string& name, const std::string& text) const {
    std::filesystem::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name, std::ios::binary) << text;
  }

  Config read(const std::string& name, const std::vector<std::string>& overrides = {}) const {
    return read_config((folder_ / name).string(), overrides);
  }

  /// The whole message of reading `name`, paths relative to the folder; "" where nothing is wrong.
  std::string error(const std::string& name, const std::vector<std::string>& overrides = {}) const {
    try {
      read(name, overrides);
    } catch (const ConfigError& e) {
      std::string message = e.what();
      const std::string prefix = folder_.string() + "/";
      for (size_t at = 0; (at = message.find(prefix, at)) != std::string::npos;) {
        message.erase(at, prefix.size());
      }
      return message;
    }
    return "";
  }

 private:
  std::filesystem::path folder_;
};

/// The least a config needs; five lines.
inline const char* const kGood =
    "run:\n"
    "  name: good\n"
    "data:\n"
    "  train: [a]\n"
    "  validation: [b]\n";

}  // namespace sigtrain
