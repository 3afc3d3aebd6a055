// Exchanges tensors in the host's memory through MPI, on the group's thread.
#pragma once

#include <deque>
#include <mutex>

#include "dist/communicator.h"
#include "dist/mpi_group.h"

namespace sigtrain {

class MpiCommunicator final : public Communicator {
 public:
  explicit MpiCommunicator(MpiGroup& mpi) : Communicator(mpi), mpi_(mpi) {}
  /// Waits for what is under way: its tensors may go after this.
  ~MpiCommunicator() override;

  Ticket all_reduce(const Tensor& x) override;
  Ticket reduce_scatter(const Tensor& x) override;
  Ticket all_gather(const Tensor& x) override;
  Ticket broadcast(const Tensor& x) override;
  void wait(Ticket ticket) override;
  void measure() override;
  ExchangeTimes measured() override;

 private:
  /// Has the group's thread run `exchange`, and takes its time.
  Ticket submit(std::function<void()> exchange);
  // For the group's thread.
  void sum_own_part(const Tensor& x, const std::vector<int>& counts,
                    const std::vector<int>& starts);
  void collect_parts(const Tensor& x, const std::vector<int>& counts,
                     const std::vector<int>& starts);

  MpiGroup& mpi_;
  Ticket last_ = 0;
  std::vector<std::byte> sums_;  // of this rank's part
  bool is_measuring_ = false;
  ExchangeTimes times_;
  std::deque<Ticket> under_way_;  // started and not waited for
  std::mutex mutex_;
  std::deque<double> seconds_;  // of those that are over, in the same order; both threads'
};

}  // namespace sigtrain
