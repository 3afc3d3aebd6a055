// Makes the batches of the coming steps in the background.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <limits>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

namespace sigtrain {

/// Calls `make(step)` for step = first, first + 1, ... and hands the results out in that order, at
/// most `depth` steps ahead of the consumer. With several workers `make` is called from as many
/// threads at once. What `make` throws, next() throws at that step, again and again. One consumer.
template <typename Batch>
class Prefetcher {
 public:
  /// Steps first <= step < end. depth 0: no threads, next() makes its batch itself.
  Prefetcher(std::function<Batch(int64_t)> make, int64_t first, int64_t depth, int workers = 1,
             int64_t end = std::numeric_limits<int64_t>::max())
      : make_(std::move(make)),
        slots_(static_cast<size_t>(std::max<int64_t>(depth, 0))),
        consumed_(first),
        claimed_(first),
        end_(end) {
    if (slots_.empty()) return;
    const auto count = std::min<size_t>(static_cast<size_t>(std::max(workers, 1)), slots_.size());
    try {
      for (size_t i = 0; i < count; ++i) workers_.emplace_back([this] { work(); });
    } catch (...) {
      stop();
      throw;
    }
  }

  ~Prefetcher() { stop(); }
  Prefetcher(const Prefetcher&) = delete;
  Prefetcher& operator=(const Prefetcher&) = delete;

  /// The step whose batch next() returns.
  int64_t step() const { return consumed_; }

  /// Waits for the batch of step() and moves on to the following one; nothing after the last.
  std::optional<Batch> next() {
    if (consumed_ >= end_) return std::nullopt;
    if (slots_.empty()) {
      std::optional<Batch> batch(make_(consumed_));
      ++consumed_;
      return batch;
    }
    std::unique_lock lock(mutex_);
    Slot& slot = slot_of(consumed_);
    ready_.wait(lock, [&] { return slot.batch.has_value() || slot.error != nullptr; });
    if (slot.error) std::rethrow_exception(slot.error);
    std::optional<Batch> batch = std::exchange(slot.batch, std::nullopt);
    ++consumed_;
    lock.unlock();
    room_.notify_one();
    return batch;
  }

 private:
  struct Slot {
    std::optional<Batch> batch;
    std::exception_ptr error;
  };

  Slot& slot_of(int64_t step) { return slots_[static_cast<size_t>(step) % slots_.size()]; }

  void work() {
    std::unique_lock lock(mutex_);
    while (true) {
      room_.wait(lock, [&] {
        return stopping_ || claimed_ >= end_ ||
               claimed_ - consumed_ < static_cast<int64_t>(slots_.size());
      });
      if (stopping_ || claimed_ >= end_) return;
      const int64_t step = claimed_++;
      lock.unlock();
      Slot made;
      try {
        made.batch.emplace(make_(step));
      } catch (...) {
        made.error = std::current_exception();
      }
      lock.lock();
      // The consumer never gets past a step that failed, so none after it is worth making.
      if (made.error) {
        claimed_ = end_;
        room_.notify_all();
      }
      slot_of(step) = std::move(made);
      ready_.notify_one();
    }
  }

  void stop() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    room_.notify_all();
    for (std::thread& worker : workers_) worker.join();
  }

  std::function<Batch(int64_t)> make_;
  std::mutex mutex_;
  std::condition_variable ready_;  // a batch is there
  std::condition_variable room_;   // a batch may be made
  std::vector<Slot> slots_;        // of step s: s % depth
  int64_t consumed_;               // the next step to hand out; written by the consumer alone
  int64_t claimed_;                // the next step to make
  int64_t end_;
  bool stopping_ = false;
  std::vector<std::thread> workers_;
};

}  // namespace sigtrain
