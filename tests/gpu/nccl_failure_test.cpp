// What the group that watches over an NcclCommunicator learns of it, and does to it.
#if defined(SIGTRAIN_HAS_NCCL)
#include <gmock/gmock.h>

#include <optional>
#include <utility>

#include "dist/nccl_communicator.h"
#include "needs_gpu.h"
#include "ops/cuda/cuda_ops.h"

namespace {

/// What NCCL says of every communicator of this program.
ncclResult_t told_by_nccl = ncclSuccess;

}  // namespace

// Stands for the library's function in this program: an error of a network cannot be had on demand.
extern "C" ncclResult_t ncclCommGetAsyncError(ncclComm_t, ncclResult_t* state) {
  *state = told_by_nccl;
  return ncclSuccess;
}

namespace sigtrain {
namespace {

using testing::HasSubstr;

/// One rank whose watch the test keeps itself.
class WatchedRank final : public ProcessGroup {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  int local_rank() const override { return 0; }
  int local_size() const override { return 1; }
  int cores() const override { return 1; }
  bool is_distributed() const override { return true; }
  std::vector<std::string> gather(const std::string& text) override { return {text}; }
  void check() override {
    if (has_failed) throw RankFailure("rank 1 ended without a word");
  }
  void fail(const std::string&) override {}
  void leave() override {}
  void watch(std::function<void()> new_stop, std::function<std::string()> new_probe) override {
    stop = std::move(new_stop);
    probe = std::move(new_probe);
  }

  bool has_failed = false;
  std::function<void()> stop;
  std::function<std::string()> probe;
};

class NcclFailure : public NeedsGpu {
 protected:
  ~NcclFailure() override { told_by_nccl = ncclSuccess; }
  void SetUp() override {
    NeedsGpu::SetUp();
    if (IsSkipped()) return;
    ops_.emplace();
    memory_ = ops_->allocate(256 * sizeof(float));
    x_ = {memory_.get(), DType::f32, {256}};
    ops_->fill(x_, 1.0);
    communicator_.emplace(group_, *ops_);
  }

  WatchedRank group_;
  std::optional<CudaOps> ops_;
  DeviceMemory memory_;
  Tensor x_;
  std::optional<NcclCommunicator> communicator_;
};

TEST_F(NcclFailure, AnErrorBetweenCallsIsTold) {
  ASSERT_TRUE(group_.probe);
  EXPECT_EQ(group_.probe(), "");
  told_by_nccl = ncclInProgress;
  EXPECT_EQ(group_.probe(), "");
  told_by_nccl = ncclRemoteError;
  EXPECT_THAT(group_.probe(), HasSubstr(ncclGetErrorString(ncclRemoteError)));
  told_by_nccl = ncclSuccess;
  EXPECT_EQ(group_.probe(), "");
}

TEST_F(NcclFailure, NothingIsExchangedOnceARankHasFailed) {
  communicator_->wait(communicator_->all_reduce(x_));
  ASSERT_TRUE(group_.stop);
  group_.stop();
  // What NCCL says of a communicator that is no more is not asked for.
  told_by_nccl = ncclInternalError;
  EXPECT_EQ(group_.probe(), "");
  try {
    communicator_->all_reduce(x_);
    ADD_FAILURE() << "it was exchanged";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("all-reduce: the GPUs are no longer connected"));
  }
  group_.has_failed = true;
  EXPECT_THROW(communicator_->all_gather(x_), RankFailure) << "the reason is the better answer";
  group_.stop();
  communicator_.reset();
  EXPECT_FALSE(group_.stop) << "what it uses is gone";
  EXPECT_FALSE(group_.probe);
}

}  // namespace
}  // namespace sigtrain
#endif
