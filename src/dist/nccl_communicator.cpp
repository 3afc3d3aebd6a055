#include "dist/nccl_communicator.h"

#include <unistd.h>

#include <cstring>

#include "ops/cuda/check.h"

namespace sigtrain {
namespace {

ncclDataType_t type_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return ncclFloat32;
    case DType::f64:
      return ncclFloat64;
    case DType::bf16:
      return ncclBfloat16;
    case DType::i32:
      return ncclInt32;
    default:
      throw Error("cannot exchange tensors of {} between GPUs", name_of(dtype));
  }
}

/// Where this process's GPU is: machine and PCI address.
std::string gpu_place() {
  int device = 0;
  char bus[32] = {}, machine[256] = {};
  check_cuda(cudaGetDevice(&device), "asking for the GPU");
  check_cuda(cudaDeviceGetPCIBusId(bus, sizeof(bus), device), "asking for the GPU's address");
  ::gethostname(machine, sizeof(machine) - 1);
  return fmt::format("{} of {}", bus, machine);
}

void refuse_shared_gpus(ProcessGroup& group) {
  const std::vector<std::string> places = group.gather(gpu_place());
  for (size_t a = 0; a < places.size(); ++a) {
    for (size_t b = a + 1; b < places.size(); ++b) {
      if (places[a] != places[b]) continue;
      throw AgreedFailure(fmt::format("ranks {} and {} have the same GPU, {}: start one rank a GPU",
                                      a, b, places[a]),
                          true, true);
    }
  }
}

}  // namespace

NcclCommunicator::NcclCommunicator(ProcessGroup& group, CudaOps& ops)
    : Communicator(group), compute_(ops.stream()) {
  refuse_shared_gpus(group);
  ncclUniqueId id{};
  if (group.is_root()) check_nccl(ncclGetUniqueId(&id), "starting NCCL");
  const std::string bytes = group.broadcast({id.internal, sizeof(id.internal)});
  std::memcpy(id.internal, bytes.data(), sizeof(id.internal));
  // Ahead of the backend's kernels wherever both could run: what waits for an exchange is all
  // ranks.
  int lowest = 0, highest = 0;
  check_cuda(cudaDeviceGetStreamPriorityRange(&lowest, &highest), "creating a stream");
  check_cuda(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, highest),
             "creating a stream");
  check_cuda(cudaEventCreateWithFlags(&computed_, cudaEventDisableTiming), "creating an event");
  check_nccl(ncclCommInitRank(&communicator_, group.size(), id, group.rank()),
             "connecting the GPUs");
  group.watch([this] { abort(); },
              [this]() -> std::string {
                if (is_aborted_) return {};
                ncclResult_t state = ncclSuccess;
                if (ncclCommGetAsyncError(communicator_, &state) != ncclSuccess) return {};
                if (state == ncclSuccess || state == ncclInProgress) return {};
                return fmt::format("exchanging tensors between GPUs: NCCL says {}",
                                   ncclGetErrorString(state));
              });
}

NcclCommunicator::~NcclCommunicator() {
  group_.watch({}, {});
  if (!is_aborted_.exchange(true)) {
    cudaStreamSynchronize(stream_);
    ncclCommDestroy(communicator_);
  }
  for (const auto& [ticket, event] : under_way_) cudaEventDestroy(event);
  for (cudaEvent_t event : free_events_) cudaEventDestroy(event);
  for (cudaEvent_t event : free_marks_) cudaEventDestroy(event);
  cudaEventDestroy(computed_);
  cudaStreamDestroy(stream_);
}

void NcclCommunicator::abort() {
  if (!is_aborted_.exchange(true)) ncclCommAbort(communicator_);
}

void NcclCommunicator::check_nccl(ncclResult_t result, const char* what) {
  if (result == ncclSuccess) return;
  group_.check();  // that another rank is gone is the better answer
  const char* detail = ncclGetLastError(nullptr);
  throw Error("{}: NCCL says {}{}{} (NCCL_DEBUG=WARN in the environment tells more)", what,
              ncclGetErrorString(result), detail && *detail ? "; " : "", detail ? detail : "");
}

template <typename Call>
Ticket NcclCommunicator::start(const char* what, Call call) {
  if (is_aborted_) {
    group_.check();
    throw Error("{}: the GPUs are no longer connected", what);
  }
  check_cuda(cudaEventRecord(computed_, compute_), what);
  check_cuda(cudaStreamWaitEvent(stream_, computed_, 0), what);
  const cudaEvent_t begin = mark(stream_);
  check_nccl(call(), what);
  if (begin) exchanging_.push_back({begin, mark(stream_)});
  cudaEvent_t exchanged = nullptr;
  if (free_events_.empty()) {
    check_cuda(cudaEventCreateWithFlags(&exchanged, cudaEventDisableTiming), what);
  } else {
    exchanged = free_events_.back();
    free_events_.pop_back();
  }
  check_cuda(cudaEventRecord(exchanged, stream_), what);
  under_way_.emplace_back(++started_, exchanged);
  return started_;
}

Ticket NcclCommunicator::all_reduce(const Tensor& x) {
  return start("all-reduce", [&] {
    return ncclAllReduce(x.data, x.data, static_cast<size_t>(x.numel()), type_of(x.dtype), ncclSum,
                         communicator_, stream_);
  });
}

Ticket NcclCommunicator::reduce_scatter(const Tensor& x) {
  const Tensor own = part_of(x, rank(), size());
  return start("reduce-scatter", [&] {
    return ncclReduceScatter(x.data, own.data, static_cast<size_t>(own.numel()), type_of(x.dtype),
                             ncclSum, communicator_, stream_);
  });
}

Ticket NcclCommunicator::all_gather(const Tensor& x) {
  const Tensor own = part_of(x, rank(), size());
  return start("all-gather", [&] {
    return ncclAllGather(own.data, x.data, static_cast<size_t>(own.numel()), type_of(x.dtype),
                         communicator_, stream_);
  });
}

Ticket NcclCommunicator::broadcast(const Tensor& x) {
  return start("broadcast", [&] {
    return ncclBroadcast(x.data, x.data, x.bytes(), ncclChar, 0, communicator_, stream_);
  });
}

void NcclCommunicator::wait(Ticket ticket) {
  // The stream is in order: an exchange that is over means that those before it are.
  cudaEvent_t last = nullptr;
  while (!under_way_.empty() && under_way_.front().first <= ticket) {
    last = under_way_.front().second;
    free_events_.push_back(last);
    under_way_.pop_front();
  }
  if (!last) return;
  const cudaEvent_t begin = mark(compute_);
  check_cuda(cudaStreamWaitEvent(compute_, last, 0), "waiting for an exchange");
  if (begin) waited_.push_back({begin, mark(compute_)});
}

cudaEvent_t NcclCommunicator::mark(cudaStream_t stream) {
  if (!is_measuring_) return nullptr;
  cudaEvent_t event = nullptr;
  if (free_marks_.empty()) {
    check_cuda(cudaEventCreate(&event), "creating an event");
  } else {
    event = free_marks_.back();
    free_marks_.pop_back();
  }
  check_cuda(cudaEventRecord(event, stream), "taking the time");
  return event;
}

double NcclCommunicator::take(std::vector<Interval>& intervals) {
  double seconds = 0.0;
  for (const auto& [begin, end] : intervals) {
    float milliseconds = 0.0f;
    check_cuda(cudaEventSynchronize(end), "taking the time");
    check_cuda(cudaEventElapsedTime(&milliseconds, begin, end), "taking the time");
    seconds += 1e-3 * milliseconds;
    free_marks_.insert(free_marks_.end(), {begin, end});
  }
  intervals.clear();
  return seconds;
}

void NcclCommunicator::measure() { is_measuring_ = true; }

ExchangeTimes NcclCommunicator::measured() {
  is_measuring_ = false;
  const double exchanging = take(exchanging_);
  return {exchanging, take(waited_)};
}

}  // namespace sigtrain
