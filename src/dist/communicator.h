// Exchanges tensors of a backend's memory between the ranks. Calls return at once: what they
// started runs in the order of the calls, beside the backend's own work. All ranks make the same
// calls.
#pragma once

#include <cstdint>
#include <memory>

#include "core/tensor.h"
#include "dist/process_group.h"
#include "ops/ops.h"

namespace sigtrain {

/// An exchange that was started; later ones have larger numbers. 0: one that is over.
using Ticket = int64_t;

/// What the exchanges that were waited for took, in seconds: their own time, waiting for slower
/// ranks included, and the time that the backend's work stood still for them. The rest of it was
/// hidden behind that work.
struct ExchangeTimes {
  double exchanging = 0.0, waited = 0.0;
};

/// Tensors are f32, or f64 where that is the backend's accumulate_dtype; all_gather and broadcast
/// take any dtype. An exchange starts when all work given to the backend before it is done. Until
/// wait() for its ticket, the backend may not touch its tensor.
class Communicator {
 public:
  virtual ~Communicator() = default;

  int rank() const { return group_.rank(); }
  int size() const { return group_.size(); }
  ProcessGroup& group() const { return group_; }

  /// x becomes its sum over the ranks, the same bits on all.
  virtual Ticket all_reduce(const Tensor& x) = 0;
  /// x is cut into size() equal parts; this rank's becomes its sum over the ranks, and the others
  /// hold nothing of use.
  virtual Ticket reduce_scatter(const Tensor& x) = 0;
  /// x is cut likewise; every part becomes that of its rank.
  virtual Ticket all_gather(const Tensor& x) = 0;
  /// x becomes rank 0's.
  virtual Ticket broadcast(const Tensor& x) = 0;

  /// All work given to the backend from now on finds this exchange, and those before it, done.
  virtual void wait(Ticket ticket) = 0;

  /// Takes the times of the exchanges that are waited for until measured() is called, whenever they
  /// were started; not within captured work.
  virtual void measure() = 0;
  /// Waits for those exchanges, and for no others: what is under way stays hidden where it can.
  virtual ExchangeTimes measured() = 0;

 protected:
  explicit Communicator(ProcessGroup& group) : group_(group) {}
  ProcessGroup& group_;
};

/// For one rank: every exchange is over before it begins.
class LocalCommunicator final : public Communicator {
 public:
  explicit LocalCommunicator(ProcessGroup& group) : Communicator(group) {}
  Ticket all_reduce(const Tensor&) override { return 0; }
  Ticket reduce_scatter(const Tensor&) override { return 0; }
  Ticket all_gather(const Tensor&) override { return 0; }
  Ticket broadcast(const Tensor&) override { return 0; }
  void wait(Ticket) override {}
  void measure() override {}
  ExchangeTimes measured() override { return {}; }
};

/// MPI for memory of the host, NCCL for that of GPUs; both must outlive it. Throws UsageError where
/// this build lacks what is needed, or two ranks have the same GPU.
std::unique_ptr<Communicator> make_communicator(ProcessGroup& group, Ops& ops);

/// This rank's of `parts` equal parts of x.
inline Tensor part_of(const Tensor& x, int64_t part, int64_t parts) {
  const int64_t elements = x.numel() / parts;
  return x.reshape({x.numel()}).slice(part * elements, (part + 1) * elements);
}

}  // namespace sigtrain
