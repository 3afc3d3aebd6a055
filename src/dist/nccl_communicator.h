// Exchanges tensors in GPUs' memory through NCCL, on a stream beside the backend's. The group
// serves to exchange the communicator's id and to agree on failure.
#pragma once

#include <cuda_runtime.h>
#include <nccl.h>

#include <deque>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "dist/communicator.h"
#include "ops/cuda/cuda_ops.h"

namespace sigtrain {

class NcclCommunicator final : public Communicator {
 public:
  /// All ranks construct theirs at the same time, each with a GPU of its own.
  NcclCommunicator(ProcessGroup& group, CudaOps& ops);
  ~NcclCommunicator() override;

  Ticket all_reduce(const Tensor& x) override;
  Ticket reduce_scatter(const Tensor& x) override;
  Ticket all_gather(const Tensor& x) override;
  Ticket broadcast(const Tensor& x) override;
  void wait(Ticket ticket) override;
  void measure() override;
  ExchangeTimes measured() override;

 private:
  /// Two moments of one stream.
  struct Interval {
    cudaEvent_t begin, end;
  };
  /// Marks this moment of the stream.
  cudaEvent_t mark(cudaStream_t stream);
  /// Gives its events back, to mark other moments.
  void release(const Interval& interval);
  /// Waits for the intervals, gives them back, and returns the seconds they took.
  double take(std::vector<Interval>& intervals);

  /// Starts `call` on the exchanges' stream behind the backend's work so far.
  template <typename Call>
  Ticket start(const char* what, Call call);
  void check_nccl(ncclResult_t result, const char* what);
  /// Makes kernels that wait for a rank which is gone give up, unless this rank is within a call of
  /// NCCL for longer than a moment. Once, from any thread.
  void abort();
  /// What NCCL says is wrong with the communicator, or nothing; from any thread.
  std::string asynchronous_error();

  cudaStream_t compute_;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t computed_ = nullptr;  // the backend's work before an exchange
  // Only one thread at a time may use a communicator, or end it.
  std::timed_mutex using_communicator_;
  ncclComm_t communicator_ = nullptr;
  bool is_aborted_ = false;
  Ticket started_ = 0;
  std::deque<std::pair<Ticket, Interval>> under_way_;
  bool is_measuring_ = false;
  std::vector<Interval> exchanging_, waited_;
  std::vector<cudaEvent_t> free_events_;
};

}  // namespace sigtrain
