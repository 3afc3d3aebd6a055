#include "train/signals.h"

#include <atomic>
#include <cerrno>
#include <system_error>

#include "core/error.h"

namespace sigtrain {
namespace {

// Lock-free, so that a handler may write it and any thread may read it.
std::atomic<int> received{0};
static_assert(std::atomic<int>::is_always_lock_free);
std::atomic<bool> installed{false};

void handle(int signal) { received.store(signal == SIGUSR1 ? SIGTERM : signal); }

void install(int signal, int flags, struct sigaction* earlier) {
  struct sigaction action {};
  action.sa_handler = handle;
  action.sa_flags = flags;
  sigemptyset(&action.sa_mask);
  if (::sigaction(signal, &action, earlier) != 0) {
    throw Error("cannot handle signal {}: {}", signal, std::generic_category().message(errno));
  }
}

}  // namespace

StopSignal::StopSignal() {
  if (installed.exchange(true)) throw Error("two StopSignal objects at the same time");
  received.store(0);
  // SA_RESTART: reads and writes under way are not disturbed. SA_RESETHAND: the first SIGINT puts
  // the default back, so the second one ends the process. SIGTERM stays handled, because
  // schedulers and mpirun both may send it.
  install(SIGINT, SA_RESTART | static_cast<int>(SA_RESETHAND), &earlier_interrupt_);
  install(SIGTERM, SA_RESTART, &earlier_terminate_);
  install(SIGUSR1, SA_RESTART, &earlier_user_);
}

StopSignal::~StopSignal() {
  ::sigaction(SIGINT, &earlier_interrupt_, nullptr);
  ::sigaction(SIGTERM, &earlier_terminate_, nullptr);
  ::sigaction(SIGUSR1, &earlier_user_, nullptr);
  installed.store(false);
}

int StopSignal::signal() const { return received.load(); }

}  // namespace sigtrain
