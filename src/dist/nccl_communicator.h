// Exchanges tensors in GPUs' memory through NCCL, on a stream beside the backend's. The group
// serves to exchange the communicator's id and to agree on failure.
#pragma once

#include <cuda_runtime.h>
#include <nccl.h>

#include <atomic>
#include <deque>
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
  /// Marks the moment, if times are taken; null otherwise.
  cudaEvent_t mark(cudaStream_t stream);
  double take(std::vector<Interval>& intervals);

  /// Starts `call` on the exchanges' stream behind the backend's work so far.
  template <typename Call>
  Ticket start(const char* what, Call call);
  void check_nccl(ncclResult_t result, const char* what);
  /// Makes kernels that wait for a rank which is gone give up. Once, from any thread.
  void abort();

  cudaStream_t compute_;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t computed_ = nullptr;  // the backend's work before an exchange
  ncclComm_t communicator_ = nullptr;
  std::atomic<bool> is_aborted_{false};
  Ticket started_ = 0;
  std::deque<std::pair<Ticket, cudaEvent_t>> under_way_;
  std::vector<cudaEvent_t> free_events_;
  bool is_measuring_ = false;
  std::vector<Interval> exchanging_, waited_;
  std::vector<cudaEvent_t> free_marks_;  // events that tell their time
};

}  // namespace sigtrain
