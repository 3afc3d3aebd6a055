#include "dist/start_limit.h"

#include <spdlog/spdlog.h>

#include <cstdlib>
#include <utility>

#include "core/log.h"

namespace sigtrain {

StartLimit::StartLimit(std::chrono::milliseconds limit, std::string message)
    : thread_([this, limit, message = std::move(message)] {
        std::unique_lock lock(mutex_);
        if (changed_.wait_for(lock, limit, [this] { return is_over_; })) return;
        clear_live_line();
        spdlog::error("{}", message);
        spdlog::shutdown();
        std::_Exit(1);
      }) {}

StartLimit::~StartLimit() {
  {
    const std::lock_guard lock(mutex_);
    is_over_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

}  // namespace sigtrain
