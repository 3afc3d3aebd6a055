#include "dist/mpi_communicator.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <limits>
#include <utility>

namespace sigtrain {
namespace {

MPI_Datatype type_to_add(DType dtype) {
  if (dtype == DType::f32) return MPI_FLOAT;
  if (dtype == DType::f64) return MPI_DOUBLE;
  throw Error("cannot add up tensors of {} between ranks", name_of(dtype));
}

/// For elements that are passed on as they are.
MPI_Datatype type_to_pass(DType dtype) {
  switch (size_of(dtype)) {
    case 2:
      return MPI_UINT16_T;
    case 4:
      return MPI_UINT32_T;
    case 8:
      return MPI_UINT64_T;
    default:
      throw Error("cannot exchange tensors of {} between ranks", name_of(dtype));
  }
}

int count_of(int64_t count) {
  if (count > std::numeric_limits<int>::max())
    throw Error("{} elements are too many for one exchange: lower train.bucket_bytes", count);
  return static_cast<int>(count);
}

/// Cuts `count` elements into one part a rank, equal but for the last ones' being shorter by one.
void cut(int64_t count, int ranks, std::vector<int>& counts, std::vector<int>& starts) {
  counts.assign(static_cast<size_t>(ranks), 0);
  starts.assign(static_cast<size_t>(ranks), 0);
  int64_t begin = 0;
  for (int rank = 0; rank < ranks; ++rank) {
    const int64_t part = count / ranks + (rank < count % ranks);
    counts[static_cast<size_t>(rank)] = count_of(part);
    starts[static_cast<size_t>(rank)] = count_of(begin);
    begin += part;
  }
}

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

constexpr const char* kWhat = "an exchange between the ranks";

}  // namespace

MpiCommunicator::~MpiCommunicator() {
  try {
    mpi_.wait(last_);
  } catch (...) {  // told to whoever waited for it
  }
}

void MpiCommunicator::sum_own_part(const Tensor& x, const std::vector<int>& counts,
                                   const std::vector<int>& starts) {
  const auto rank = static_cast<size_t>(mpi_.rank());
  const size_t bytes = static_cast<size_t>(counts[rank]) * size_of(x.dtype);
  sums_.resize(std::max(bytes, sums_.size()));
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Ireduce_scatter(x.data, sums_.data(), counts.data(), type_to_add(x.dtype), MPI_SUM,
                                MPI_COMM_WORLD, &request),
            kWhat);
  mpi_.complete(request);
  auto* own =
      static_cast<std::byte*>(x.data) + static_cast<size_t>(starts[rank]) * size_of(x.dtype);
  if (bytes) std::memcpy(own, sums_.data(), bytes);
}

void MpiCommunicator::collect_parts(const Tensor& x, const std::vector<int>& counts,
                                    const std::vector<int>& starts) {
  MPI_Request request = MPI_REQUEST_NULL;
  MPI_Datatype type = type_to_pass(x.dtype);
  check_mpi(MPI_Iallgatherv(MPI_IN_PLACE, 0, type, x.data, counts.data(), starts.data(), type,
                            MPI_COMM_WORLD, &request),
            kWhat);
  mpi_.complete(request);
}

Ticket MpiCommunicator::all_reduce(const Tensor& x) {
  // Every element is summed on one rank: then all have the same bits, and the same as with
  // reduce_scatter.
  return submit([this, x] {
    std::vector<int> counts, starts;
    cut(x.numel(), mpi_.size(), counts, starts);
    sum_own_part(x, counts, starts);
    collect_parts(x, counts, starts);
  });
}

Ticket MpiCommunicator::reduce_scatter(const Tensor& x) {
  return submit([this, x] {
    std::vector<int> counts, starts;
    cut(x.numel(), mpi_.size(), counts, starts);
    sum_own_part(x, counts, starts);
  });
}

Ticket MpiCommunicator::all_gather(const Tensor& x) {
  return submit([this, x] {
    std::vector<int> counts, starts;
    cut(x.numel(), mpi_.size(), counts, starts);
    collect_parts(x, counts, starts);
  });
}

Ticket MpiCommunicator::broadcast(const Tensor& x) {
  return submit([this, x] {
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(MPI_Ibcast(x.data, count_of(static_cast<int64_t>(x.bytes())), MPI_BYTE, 0,
                         MPI_COMM_WORLD, &request),
              kWhat);
    mpi_.complete(request);
  });
}

Ticket MpiCommunicator::submit(std::function<void()> exchange) {
  last_ = mpi_.submit([this, exchange = std::move(exchange)] {
    const auto begin = Clock::now();
    exchange();
    const double seconds = seconds_since(begin);
    const std::lock_guard lock(mutex_);
    seconds_.push_back(seconds);
  });
  under_way_.push_back(last_);
  return last_;
}

void MpiCommunicator::wait(Ticket ticket) {
  const auto begin = Clock::now();
  mpi_.wait(ticket);
  if (is_measuring_) times_.waited += seconds_since(begin);
  const std::lock_guard lock(mutex_);
  while (!under_way_.empty() && under_way_.front() <= ticket) {
    if (is_measuring_) times_.exchanging += seconds_.front();
    under_way_.pop_front();
    seconds_.pop_front();
  }
}

void MpiCommunicator::measure() {
  is_measuring_ = true;
  times_ = {};
}

ExchangeTimes MpiCommunicator::measured() {
  is_measuring_ = false;
  return times_;
}

}  // namespace sigtrain
