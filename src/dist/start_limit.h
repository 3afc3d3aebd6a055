// Ends a process that cannot get together with the other ranks. The watchdog knows of ranks that
// end once they are connected; before, calls of MPI may wait for one that never comes. mpirun ends
// the others of one that it saw end, but sees nothing behind a shell that goes on, or a frozen
// machine.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

namespace sigtrain {

class StartLimit {
 public:
  /// Ends the process with `message` and exit code 1 after `limit`, unless destroyed before.
  StartLimit(std::chrono::milliseconds limit, std::string message);
  ~StartLimit();
  StartLimit(const StartLimit&) = delete;
  StartLimit& operator=(const StartLimit&) = delete;

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool is_over_ = false;
  std::thread thread_;
};

}  // namespace sigtrain
