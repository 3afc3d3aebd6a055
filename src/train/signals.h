// Ending a run in good order on Ctrl-C or on a scheduler's notice.
#pragma once

#include <csignal>

namespace sigtrain {

/// While it lives, SIGINT and SIGTERM set a flag that the loop asks for between steps; SIGUSR1,
/// which mpirun passes on without ending its ranks, counts as SIGTERM. A second Ctrl-C ends the
/// process at once. The earlier handlers come back with the destructor. One at a
/// time: a second object throws Error.
class StopSignal {
 public:
  StopSignal();
  ~StopSignal();
  StopSignal(const StopSignal&) = delete;
  StopSignal& operator=(const StopSignal&) = delete;

  bool requested() const { return signal() != 0; }
  /// SIGINT or SIGTERM; 0 if neither came.
  int signal() const;

 private:
  struct sigaction earlier_interrupt_ {};
  struct sigaction earlier_terminate_ {};
  struct sigaction earlier_user_ {};
};

}  // namespace sigtrain
