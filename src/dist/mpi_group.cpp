#include "dist/mpi_group.h"

#include <sched.h>

#include <algorithm>
#include <chrono>
#include <numeric>

#include "dist/start_limit.h"

namespace sigtrain {
namespace {

// Waiting: first at full attention, then giving the core away, then sleeping in between.
constexpr int kSpins = 100, kYields = 200;
constexpr auto kNap = std::chrono::microseconds(50);

// For MPI to start on all machines, which takes longer than a run's ranks may be silent, and for
// the watchdogs to connect.
constexpr auto kStartLimit = std::chrono::seconds(180);

/// A rank's share of the processors of its machine's ranks. Launchers may let all of them run
/// everywhere or each on its own few.
int share_of_cores(MPI_Comm local, int ranks) {
  cpu_set_t own;
  CPU_ZERO(&own);
  ::sched_getaffinity(0, sizeof(own), &own);  // fails on more than 1024: then it counts none
  cpu_set_t all = own;
  check_mpi(MPI_Allreduce(MPI_IN_PLACE, &all, sizeof(all), MPI_BYTE, MPI_BOR, local),
            "counting the processors of this machine");
  return std::clamp(CPU_COUNT(&all) / ranks, 1, std::max(1, CPU_COUNT(&own)));
}

std::string broadcast_at_start(const std::string& text) {
  auto length = static_cast<uint64_t>(text.size());
  check_mpi(MPI_Bcast(&length, 1, MPI_UINT64_T, 0, MPI_COMM_WORLD), "the first exchange");
  std::string shared = text;
  shared.resize(length);
  check_mpi(MPI_Bcast(shared.data(), static_cast<int>(length), MPI_CHAR, 0, MPI_COMM_WORLD),
            "the first exchange");
  return shared;
}

}  // namespace

void check_mpi(int code, const char* what) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = {};
  int length = 0;
  MPI_Error_string(code, text, &length);
  throw Error("{}: MPI says {}", what, std::string(text, static_cast<size_t>(length)));
}

MpiGroup::MpiGroup(const Launch& launch) {
  const StartLimit limit(kStartLimit,
                         fmt::format("the {} ranks that {} started did not all get together within "
                                     "{} seconds: look for one that ended or hangs before it "
                                     "spoke, or for a machine that the others cannot reach",
                                     launch.ranks, launch.launcher, kStartLimit.count()));
  int provided = 0;
  check_mpi(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided), "starting MPI");
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  if (provided < MPI_THREAD_SERIALIZED)
    throw Error("this MPI does not allow calls from a thread: build it with thread support");
  check_mpi(MPI_Comm_rank(MPI_COMM_WORLD, &rank_), "asking MPI for the rank");
  check_mpi(MPI_Comm_size(MPI_COMM_WORLD, &size_), "asking MPI for the number of ranks");
  if (size_ != launch.ranks) {
    throw UsageError(
        "{} started {} processes, but MPI knows of {}: it is another MPI's launcher than the one "
        "this program was built with, or srun needs another --mpi (srun --mpi=list)",
        launch.launcher, launch.ranks, size_);
  }
  MPI_Comm local = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, rank_, MPI_INFO_NULL, &local),
            "finding the ranks of this machine");
  MPI_Comm_rank(local, &local_rank_);
  MPI_Comm_size(local, &local_size_);
  cores_ = share_of_cores(local, local_size_);
  MPI_Comm_free(&local);
  // The launcher's number where it tells one: it is what the GPUs it hands out go by.
  if (launch.local_rank >= 0) local_rank_ = launch.local_rank;
  watchdog_ = std::make_unique<Watchdog>(rank_, size_, broadcast_at_start);
  thread_ = std::thread([this] { work(); });
}

MpiGroup::~MpiGroup() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  changed_.notify_all();
  thread_.join();
  if (has_left_) MPI_Finalize();
}

void MpiGroup::leave() {
  gather("");  // all ranks are here
  watchdog_->leave();
  has_left_ = true;
}

int64_t MpiGroup::submit(std::function<void()> job) {
  const std::lock_guard lock(mutex_);
  jobs_.push_back(std::move(job));
  changed_.notify_all();
  return ++submitted_;
}

void MpiGroup::wait(int64_t number) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return done_ >= number || error_; });
  if (error_) std::rethrow_exception(error_);
}

void MpiGroup::complete(MPI_Request& request) {
  for (int64_t turn = 0;; ++turn) {
    int is_done = 0;
    check_mpi(MPI_Test(&request, &is_done, MPI_STATUS_IGNORE), "an exchange between the ranks");
    if (is_done) return;
    watchdog_->check();
    if (turn < kSpins) continue;
    if (turn < kYields) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(kNap);
    }
  }
}

void MpiGroup::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return ending_ || !jobs_.empty(); });
    if (jobs_.empty() || error_) {
      if (ending_) return;
      jobs_.clear();  // after an error nothing can be exchanged any more
      continue;
    }
    const std::function<void()> job = std::move(jobs_.front());
    jobs_.pop_front();
    lock.unlock();
    std::exception_ptr error;
    try {
      job();
    } catch (...) {
      error = std::current_exception();
    }
    lock.lock();
    error_ = error;
    ++done_;
    changed_.notify_all();
  }
}

std::vector<std::string> MpiGroup::gather(const std::string& text) {
  std::vector<std::string> texts(static_cast<size_t>(size_));
  wait(submit([&] {
    const int own = static_cast<int>(text.size());
    std::vector<int> lengths(texts.size()), starts(texts.size(), 0);
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(
        MPI_Iallgather(&own, 1, MPI_INT, lengths.data(), 1, MPI_INT, MPI_COMM_WORLD, &request),
        "an exchange between the ranks");
    complete(request);
    std::partial_sum(lengths.begin(), lengths.end() - 1, starts.begin() + 1);
    std::string all(static_cast<size_t>(starts.back() + lengths.back()), '\0');
    check_mpi(MPI_Iallgatherv(text.data(), own, MPI_CHAR, all.data(), lengths.data(), starts.data(),
                              MPI_CHAR, MPI_COMM_WORLD, &request),
              "an exchange between the ranks");
    complete(request);
    for (size_t rank = 0; rank < texts.size(); ++rank) {
      texts[rank] =
          all.substr(static_cast<size_t>(starts[rank]), static_cast<size_t>(lengths[rank]));
    }
  }));
  return texts;
}

}  // namespace sigtrain
