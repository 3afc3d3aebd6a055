// Runs a program as a user would: arguments, environment, both output streams, signals.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <map>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace sigtrain {

struct ProcessResult {
  int exit_code = -1;  // -1 if a signal ended it
  int signal = 0;
  std::string out, err;
  double cpu_seconds = 0.0;
  int64_t peak_kib = 0;  // largest resident memory

  std::string output() const { return out + err; }
};

/// A running program; it is killed if the object goes before wait().
class Process {
 public:
  /// Starts command[0] in `folder`; `variables` are added to this process's environment.
  Process(const std::vector<std::string>& command, const std::filesystem::path& folder,
          const std::map<std::string, std::string>& variables = {})
      : out_(memory_file()), err_(memory_file()) {
    std::vector<std::string> environment;
    for (char** entry = environ; *entry != nullptr; ++entry) {
      const std::string text = *entry;
      if (!variables.contains(text.substr(0, text.find('=')))) environment.push_back(text);
    }
    for (const auto& [name, value] : variables) environment.push_back(name + "=" + value);

    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, out_, STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, err_, STDERR_FILENO);
    posix_spawn_file_actions_addchdir_np(&actions, folder.c_str());
    const int code = posix_spawn(&id_, command[0].c_str(), &actions, nullptr,
                                 pointers(command).data(), pointers(environment).data());
    posix_spawn_file_actions_destroy(&actions);
    if (code != 0) throw std::runtime_error("cannot start " + command[0]);
  }
  ~Process() {
    if (is_running()) {
      send(SIGKILL);
      wait();
    }
    ::close(out_);
    ::close(err_);
  }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  void send(int signal) const { ::kill(id_, signal); }
  bool is_running() { return !reaped_ && !reap(WNOHANG); }
  /// What it has written so far.
  std::string out() const { return text(out_); }

  /// Waits for the end. A program that takes longer than two minutes is killed, which fails the
  /// test.
  ProcessResult wait() {
    while (is_running()) {
      if (seconds() > 120.0) {
        ADD_FAILURE() << "did not end: " << text(out_) << text(err_);
        send(SIGKILL);
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    ProcessResult result;
    if (WIFEXITED(status_)) result.exit_code = WEXITSTATUS(status_);
    if (WIFSIGNALED(status_)) result.signal = WTERMSIG(status_);
    result.out = text(out_);
    result.err = text(err_);
    const auto seconds_of = [](const timeval& time) {
      return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
    };
    result.cpu_seconds = seconds_of(usage_.ru_utime) + seconds_of(usage_.ru_stime);
    result.peak_kib = usage_.ru_maxrss;
    return result;
  }

 private:
  static int memory_file() {
    const int descriptor = ::memfd_create("output", MFD_CLOEXEC);
    if (descriptor < 0) throw std::runtime_error("memfd_create failed");
    return descriptor;
  }
  static std::string text(int descriptor) {
    std::string text;
    char buffer[4096];
    ssize_t count;
    while ((count = ::pread(descriptor, buffer, sizeof(buffer), static_cast<off_t>(text.size()))) >
           0) {
      text.append(buffer, static_cast<size_t>(count));
    }
    return text;
  }
  static std::vector<char*> pointers(const std::vector<std::string>& texts) {
    std::vector<char*> pointers;
    for (const std::string& text : texts) pointers.push_back(const_cast<char*>(text.c_str()));
    pointers.push_back(nullptr);
    return pointers;
  }
  bool reap(int flags) {
    if (::wait4(id_, &status_, flags, &usage_) == id_) reaped_ = true;
    return reaped_;
  }
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

  int out_, err_;
  pid_t id_ = -1;
  bool reaped_ = false;
  int status_ = 0;
  rusage usage_{};
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace sigtrain
