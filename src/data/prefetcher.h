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
#include <set>
#include <thread>
#include <utility>
#include <vector>

namespace sigtrain {

/// How a batch is made: begun, then its pieces filled in, in any order and by any threads at once,
/// then finished. Pieces keep all threads busy with few batches in the making, and no thread waits
/// for the slowest one's batch. With 0 pieces begin makes all of it.
template <typename Batch>
struct BatchMaker {
  std::function<Batch(int64_t step)> begin;
  int64_t pieces = 0;
  std::function<void(int64_t step, int64_t piece, Batch&)> make_piece{};
  std::function<void(int64_t step, Batch&)> finish{};

  /// How many threads can be at work on a batch.
  int64_t threads() const { return std::max<int64_t>(1, pieces); }
  Batch make(int64_t step) const {
    Batch batch = begin(step);
    if (pieces == 0) return batch;
    for (int64_t piece = 0; piece < pieces; ++piece) make_piece(step, piece, batch);
    finish(step, batch);
    return batch;
  }
};

/// Makes the batches of step = first, first + 1, ... and hands them out in that order, at most
/// `depth` steps ahead of the consumer. With several workers the maker is called from as many
/// threads at once. What it throws, next() throws at that step, again and again. One consumer.
template <typename Batch>
class Prefetcher {
 public:
  /// Steps first <= step < end. depth 0: no threads, next() makes its batch itself.
  Prefetcher(BatchMaker<Batch> maker, int64_t first, int64_t depth, int workers = 1,
             int64_t end = std::numeric_limits<int64_t>::max())
      : maker_(std::move(maker)),
        slots_(static_cast<size_t>(std::max<int64_t>(depth, 0))),
        consumed_(first),
        claimed_(first),
        end_(end) {
    const auto at_once = std::ssize(slots_) * maker_.threads();
    const auto count = std::min<int64_t>(std::max(workers, 1), at_once);
    try {
      for (int64_t i = 0; i < count; ++i) workers_.emplace_back([this] { work(); });
    } catch (...) {
      stop();
      throw;
    }
  }
  Prefetcher(std::function<Batch(int64_t)> make, int64_t first, int64_t depth, int workers = 1,
             int64_t end = std::numeric_limits<int64_t>::max())
      : Prefetcher(BatchMaker<Batch>{std::move(make)}, first, depth, workers, end) {}

  ~Prefetcher() { stop(); }
  Prefetcher(const Prefetcher&) = delete;
  Prefetcher& operator=(const Prefetcher&) = delete;

  /// The step whose batch next() returns.
  int64_t step() const { return consumed_; }

  /// Waits for the batch of step() and moves on to the following one; nothing after the last.
  std::optional<Batch> next() {
    if (consumed_ >= end_) return std::nullopt;
    if (slots_.empty()) {
      std::optional<Batch> batch(maker_.make(consumed_));
      ++consumed_;
      return batch;
    }
    std::unique_lock lock(mutex_);
    Slot& slot = slot_of(consumed_);
    ready_.wait(lock, [&] { return slot.ready || slot.error != nullptr; });
    if (slot.error) std::rethrow_exception(slot.error);
    std::optional<Batch> batch = std::exchange(slot.batch, std::nullopt);
    slot = Slot{};
    ++consumed_;
    lock.unlock();
    room_.notify_one();
    return batch;
  }

 private:
  struct Slot {
    std::optional<Batch> batch;
    int64_t claimed = 0, made = 0;  // pieces
    bool ready = false;
    std::exception_ptr error;
  };
  using Lock = std::unique_lock<std::mutex>;

  Slot& slot_of(int64_t step) { return slots_[static_cast<size_t>(step) % slots_.size()]; }
  bool has_room() const {
    return claimed_ < end_ && claimed_ - consumed_ < static_cast<int64_t>(slots_.size());
  }

  void work() {
    Lock lock(mutex_);
    while (true) {
      room_.wait(lock, [&] { return stopping_ || !open_.empty() || has_room(); });
      if (stopping_) return;
      const int64_t step = open_.empty() ? claimed_++ : *open_.begin();
      Slot& slot = slot_of(step);
      try {
        if (open_.empty()) {
          begin(lock, step, slot);
        } else {
          make_piece(lock, step, slot);
        }
      } catch (...) {
        if (!lock.owns_lock()) lock.lock();
        if (!slot.error) slot.error = std::current_exception();
        // The consumer never gets past a step that failed, so none after it is worth making.
        claimed_ = end_;
        open_.erase(open_.lower_bound(step), open_.end());
      }
      if (slot.ready || slot.error) ready_.notify_one();
    }
  }

  // Both are called with the lock held and give it back while they call the maker. The slot of a
  // step in the making is touched by no one else but for its counts.

  void begin(Lock& lock, int64_t step, Slot& slot) {
    lock.unlock();
    std::optional<Batch> batch(maker_.begin(step));
    lock.lock();
    slot.batch = std::move(batch);
    slot.ready = maker_.pieces == 0;
    if (slot.ready) return;
    open_.insert(step);
    room_.notify_all();
  }

  void make_piece(Lock& lock, int64_t step, Slot& slot) {
    const int64_t piece = slot.claimed++;
    if (slot.claimed == maker_.pieces) open_.erase(step);
    lock.unlock();
    maker_.make_piece(step, piece, *slot.batch);
    lock.lock();
    if (++slot.made < maker_.pieces) return;
    lock.unlock();
    maker_.finish(step, *slot.batch);
    lock.lock();
    slot.ready = true;
  }

  void stop() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    room_.notify_all();
    for (std::thread& worker : workers_) worker.join();
  }

  BatchMaker<Batch> maker_;
  std::mutex mutex_;
  std::condition_variable ready_;  // a batch is there
  std::condition_variable room_;   // a batch may be begun, or a piece made
  std::vector<Slot> slots_;        // of step s: s % depth
  std::set<int64_t> open_;         // steps that have pieces nobody has claimed
  int64_t consumed_;               // the next step to hand out; written by the consumer alone
  int64_t claimed_;                // the next step to begin
  int64_t end_;
  bool stopping_ = false;
  std::vector<std::thread> workers_;
};

}  // namespace sigtrain
