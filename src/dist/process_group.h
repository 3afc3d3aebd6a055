// The processes that train one model together, as the host sees them: who is there, small values
// exchanged, and failure agreed upon. Tensors are exchanged by dist/communicator.h.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/error.h"

namespace sigtrain {

/// Another rank failed while this one went on. The others know it too.
class RankFailure : public Error {
 public:
  using Error::Error;
};

/// All ranks end here, having agreed that some of them cannot go on.
class AgreedFailure : public Error {
 public:
  AgreedFailure(const std::string& text, bool is_usage, bool is_common)
      : Error("{}", text), is_usage(is_usage), is_common(is_common) {}
  bool is_usage;   // the user asked for something impossible
  bool is_common;  // the same on all ranks: told once, it is told
};

/// Every member of a group calls its collectives in the same order; they throw RankFailure as soon
/// as a rank is known to have failed.
class ProcessGroup {
 public:
  virtual ~ProcessGroup() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;
  /// Index among the ranks of this machine: it chooses the GPU.
  virtual int local_rank() const = 0;
  /// Ranks of this machine.
  virtual int local_size() const = 0;
  /// This rank's share of the processors that the ranks of this machine may run on; at least 1.
  virtual int cores() const = 0;
  /// False for a process that was started alone.
  virtual bool is_distributed() const = 0;
  bool is_root() const { return rank() == 0; }

  /// The texts of all ranks, in their order. Bytes are passed on as they are.
  virtual std::vector<std::string> gather(const std::string& text) = 0;
  /// Replaces values by their sums over the ranks, added in the ranks' order: the same everywhere.
  void sum(std::span<double> values);
  double sum(double value);
  /// Rank 0's text.
  std::string broadcast(const std::string& text);
  /// Throws RankFailure if a rank is known to have failed.
  virtual void check() = 0;

  /// Tells the others that this rank ends, and why. Waits until they know, two seconds at most.
  virtual void fail(const std::string& reason) = 0;
  /// Ends the membership in good order, after all ranks have come here.
  virtual void leave() = 0;

  /// `stop` is called, on another thread, when a rank has failed: it frees whoever waits for it.
  /// `probe` is called a few times a second and says what is wrong with this rank, or nothing.
  /// Empty functions take them back: then none of them runs any more.
  virtual void watch(std::function<void()> stop, std::function<std::string()> probe) = 0;
};

/// The group of a process on its own.
class SingleProcess final : public ProcessGroup {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  int local_rank() const override { return 0; }
  int local_size() const override { return 1; }
  int cores() const override;
  bool is_distributed() const override { return false; }
  std::vector<std::string> gather(const std::string& text) override { return {text}; }
  void check() override {}
  void fail(const std::string&) override {}
  void leave() override {}
  void watch(std::function<void()>, std::function<std::string()>) override {}
};

/// The group that this process was started in by mpirun or srun; a SingleProcess if by neither.
/// Throws UsageError if it was, but this build or its MPI cannot join.
std::unique_ptr<ProcessGroup> join_process_group();

/// Runs `part` on every rank. Where it throws on any, throws AgreedFailure on all; unless all say
/// the same, it names the first rank that failed. With one rank, what `part` throws is passed on.
/// For work around training, where what fails on one rank mostly fails on all. `part` may not call
/// collectives.
void together(ProcessGroup& group, const std::function<void()>& part);

}  // namespace sigtrain
