#include "core/log.h"

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/spdlog.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <mutex>
#include <vector>

#include "core/error.h"

namespace sigtrain {
namespace {

constexpr const char* kProgressLogger = "progress";

// Standard output. On a terminal it keeps the live line below the log: each message first erases
// that line and then draws it again.
class OutputSink : public spdlog::sinks::base_sink<std::mutex> {
 public:
  explicit OutputSink(bool live) : live_(live) {}
  ~OutputSink() override { erase(); }

  bool live() const { return live_; }

  void show(std::string_view text) {
    const std::lock_guard lock(mutex_);
    // One column is left free: a full last column makes some terminals wrap.
    line_ = text.substr(0, static_cast<size_t>(std::max(terminal_columns() - 1, 0)));
    draw();
  }

  void clear() {
    const std::lock_guard lock(mutex_);
    erase();
    line_.clear();
  }

 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    if (live_ && message.logger_name == kProgressLogger) return;
    spdlog::memory_buf_t text;
    formatter_->format(message, text);
    erase();
    std::fwrite(text.data(), 1, text.size(), stdout);
    draw();
  }
  void flush_() override { std::fflush(stdout); }

 private:
  void erase() {
    if (!line_.empty()) std::fputs("\r\x1b[2K", stdout);
  }
  void draw() {
    if (!line_.empty()) std::fprintf(stdout, "\r\x1b[2K%s", line_.c_str());
    std::fflush(stdout);
  }

  bool live_;
  std::string line_;
};

// The level, where it is not the usual one.
class LevelFlag : public spdlog::custom_flag_formatter {
 public:
  explicit LevelFlag(bool coloured) : coloured_(coloured) {}

  void format(const spdlog::details::log_msg& message, const std::tm&,
              spdlog::memory_buf_t& out) override {
    if (message.level == spdlog::level::info) return;
    const char* colour = message.level >= spdlog::level::err    ? "\x1b[31m"
                         : message.level == spdlog::level::warn ? "\x1b[33m"
                                                                : "\x1b[2m";
    const auto level = spdlog::level::to_string_view(message.level);
    std::string text(level.data(), level.size());
    text = coloured_ ? colour + text + ":\x1b[0m " : text + ": ";
    out.append(text.data(), text.data() + text.size());
  }
  std::unique_ptr<custom_flag_formatter> clone() const override {
    return std::make_unique<LevelFlag>(coloured_);
  }

 private:
  bool coloured_;
};

std::shared_ptr<OutputSink>& output() {
  static std::shared_ptr<OutputSink> sink;
  return sink;
}

}  // namespace

void init_log(const LogOptions& options) {
  spdlog::level::level_enum level = spdlog::level::from_str(options.level);
  if (level == spdlog::level::off && options.level != "off") {
    throw UsageError("unknown log level '{}'; use trace, debug, info, warning, error or off",
                     options.level);
  }
  if (options.rank != 0) level = std::max(level, spdlog::level::warn);

  auto sink = std::make_shared<OutputSink>(options.live && options.rank == 0 &&
                                           ::isatty(STDOUT_FILENO) == 1);
  std::vector<spdlog::sink_ptr> sinks = {sink};
  if (!options.file.empty()) {
    try {
      sinks.push_back(std::make_shared<spdlog::sinks::basic_file_sink_mt>(options.file.string()));
    } catch (const spdlog::spdlog_ex& error) {
      throw Error("cannot write the log: {}", error.what());
    }
  }

  const std::string rank = options.ranks > 1 ? fmt::format("[rank {}] ", options.rank) : "";
  for (const spdlog::sink_ptr& target : sinks) {
    auto formatter = std::make_unique<spdlog::pattern_formatter>();
    formatter->add_flag<LevelFlag>('*', target == sink && sink->live());
    formatter->set_pattern("[%H:%M:%S] " + rank + "%*%v");
    target->set_formatter(std::move(formatter));
  }
  const auto make_logger = [&](const std::string& name) {
    auto logger = std::make_shared<spdlog::logger>(name, sinks.begin(), sinks.end());
    logger->set_level(level);
    logger->flush_on(spdlog::level::trace);
    spdlog::drop(name);
    return logger;
  };
  spdlog::set_default_logger(make_logger(""));
  spdlog::register_logger(make_logger(kProgressLogger));
  output() = sink;
}

bool has_live_line() { return output() && output()->live(); }

int terminal_columns() {
  winsize size{};
  const bool known = ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return known ? size.ws_col : 80;
}

void set_live_line(std::string_view text) {
  if (has_live_line()) output()->show(text);
}

void clear_live_line() {
  if (has_live_line()) output()->clear();
}

void log_progress(std::string_view text) {
  if (const auto logger = spdlog::get(kProgressLogger)) {
    logger->info(text);
  } else {
    spdlog::info(text);
  }
}

}  // namespace sigtrain
