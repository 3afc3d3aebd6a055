// The ranks that an MPI launcher started. All MPI calls are made by one thread, in the order they
// were asked for, so that the program goes on computing meanwhile and no call outlives a dead rank.
#pragma once

#include <mpi.h>

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>

#include "dist/launcher.h"
#include "dist/process_group.h"
#include "dist/watchdog.h"

namespace sigtrain {

class MpiGroup final : public ProcessGroup {
 public:
  /// Starts MPI; once in a process. Throws UsageError if MPI finds other ranks than `launch` says.
  explicit MpiGroup(const Launch& launch);
  /// After leave() it ends MPI; else it leaves MPI as it is, since ending it would wait for all.
  ~MpiGroup() override;

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  int local_rank() const override { return local_rank_; }
  int local_size() const override { return local_size_; }
  int cores() const override { return cores_; }
  bool is_distributed() const override { return true; }
  std::vector<std::string> gather(const std::string& text) override;
  void check() override { watchdog_->check(); }
  void fail(const std::string& reason) override { watchdog_->report(reason); }
  void leave() override;
  void watch(std::function<void()> stop, std::function<std::string()> probe) override {
    watchdog_->watch(std::move(stop), std::move(probe));
  }

  /// Has the thread run `job`, after all jobs before it. Returns its number.
  int64_t submit(std::function<void()> job);
  /// Waits until job `number` and all before it are done; throws what one of them threw.
  void wait(int64_t number);
  /// For jobs: waits for a non-blocking call, as long as no rank fails.
  void complete(MPI_Request& request);

 private:
  void work();

  int rank_ = 0, size_ = 1, local_rank_ = 0, local_size_ = 1, cores_ = 1;
  std::unique_ptr<Watchdog> watchdog_;
  std::thread thread_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> jobs_;
  int64_t submitted_ = 0, done_ = 0;
  std::exception_ptr error_;
  bool ending_ = false, has_left_ = false;
};

/// Throws Error for a return code other than MPI_SUCCESS; `what` was being done.
void check_mpi(int code, const char* what);

}  // namespace sigtrain
