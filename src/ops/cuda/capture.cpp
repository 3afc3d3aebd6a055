// A step's work as a CUDA graph, which the driver starts at once instead of kernel by kernel.
#include <utility>

#include "ops/cuda/check.h"
#include "ops/cuda/cuda_ops.h"

namespace sigtrain {
namespace {

constexpr const char* what = "capturing a step into a CUDA graph";

class CudaGraph final : public CapturedWork {
 public:
  /// Takes `graph` over.
  CudaGraph(cudaGraph_t graph, cudaStream_t stream) : stream_(stream) {
    const cudaError_t status = cudaGraphInstantiate(&executable_, graph, 0);
    cudaGraphDestroy(graph);
    check_cuda(status, what);
  }
  ~CudaGraph() override {
    cudaStreamSynchronize(stream_);
    cudaGraphExecDestroy(executable_);
  }
  void replay() override {
    check_cuda(cudaGraphLaunch(executable_, stream_), "replaying a captured step");
  }

 private:
  cudaStream_t stream_;
  cudaGraphExec_t executable_ = nullptr;
};

}  // namespace

bool CudaOps::can_capture() const { return true; }

std::unique_ptr<CapturedWork> CudaOps::capture(const std::function<void()>& work) {
  // Other threads may go on with calls that a capture forbids.
  check_cuda(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), what);
  cudaGraph_t graph = nullptr;
  try {
    work();
  } catch (...) {
    // The stream is of use again, and the first error is the one to be told.
    if (cudaStreamEndCapture(stream_, &graph) == cudaSuccess && graph) cudaGraphDestroy(graph);
    cudaGetLastError();
    throw;
  }
  check_cuda(cudaStreamEndCapture(stream_, &graph), what);
  return std::make_unique<CudaGraph>(graph, stream_);
}

}  // namespace sigtrain
