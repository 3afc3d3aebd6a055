#include "dist/nccl_communicator.h"

#include <chrono>
#include <cstring>
#include <thread>

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

// How long abort() waits for a call of NCCL to return. One that does not (it connects to a rank
// that is gone) ends with the process, when the group's patience does.
constexpr auto kCallPatience = std::chrono::seconds(2);
// How long an error of NCCL waits for the news of a rank that is gone.
constexpr auto kNewsPatience = std::chrono::seconds(1);

/// The name of this process's GPU that no other has, as nvidia-smi -L prints it. A PCI address is
/// not one: machines in containers may share a host name.
std::string gpu_uuid() {
  int device = 0;
  cudaDeviceProp properties{};
  check_cuda(cudaGetDevice(&device), "asking for the GPU");
  check_cuda(cudaGetDeviceProperties(&properties, device), "asking for the GPU's name");
  std::string text = "GPU";
  for (size_t i = 0; i < sizeof(properties.uuid.bytes); ++i) {
    const bool begins_part = i == 0 || i == 4 || i == 6 || i == 8 || i == 10;
    text += fmt::format("{}{:02x}", begins_part ? "-" : "",
                        static_cast<unsigned char>(properties.uuid.bytes[i]));
  }
  return text;
}

void refuse_shared_gpus(ProcessGroup& group) {
  const std::vector<std::string> uuids = group.gather(gpu_uuid());
  for (size_t a = 0; a < uuids.size(); ++a) {
    for (size_t b = a + 1; b < uuids.size(); ++b) {
      if (uuids[a] != uuids[b]) continue;
      throw AgreedFailure(
          fmt::format(
              "ranks {} and {} have the same GPU, {}: start no more ranks on a machine than "
              "it has GPUs, and let each see all of them or one of its own in "
              "CUDA_VISIBLE_DEVICES",
              a, b, uuids[a]),
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
  group.watch([this] { abort(); }, [this] { return asynchronous_error(); });
}

NcclCommunicator::~NcclCommunicator() {
  group_.watch({}, {});
  if (!is_aborted_) {
    cudaStreamSynchronize(stream_);
    ncclCommDestroy(communicator_);
  }
  for (const auto& [ticket, interval] : under_way_) release(interval);
  for (const Interval& interval : exchanging_) release(interval);
  for (const Interval& interval : waited_) release(interval);
  for (cudaEvent_t event : free_events_) cudaEventDestroy(event);
  cudaEventDestroy(computed_);
  cudaStreamDestroy(stream_);
}

void NcclCommunicator::abort() {
  const std::unique_lock lock(using_communicator_, kCallPatience);
  if (!lock || is_aborted_) return;
  is_aborted_ = true;
  ncclCommAbort(communicator_);
}

std::string NcclCommunicator::asynchronous_error() {
  const std::unique_lock lock(using_communicator_, std::try_to_lock);
  if (!lock || is_aborted_) return {};
  ncclResult_t state = ncclSuccess;
  if (ncclCommGetAsyncError(communicator_, &state) != ncclSuccess) return {};
  if (state == ncclSuccess || state == ncclInProgress) return {};
  return fmt::format("exchanging tensors between GPUs: NCCL says {}", ncclGetErrorString(state));
}

void NcclCommunicator::check_nccl(ncclResult_t result, const char* what) {
  if (result == ncclSuccess) return;
  // That another rank is gone is the better answer, and the group may learn it a moment later.
  const auto deadline = std::chrono::steady_clock::now() + kNewsPatience;
  do {
    group_.check();
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  } while (std::chrono::steady_clock::now() < deadline);
  const char* detail = ncclGetLastError(nullptr);
  throw Error("{}: NCCL says {}{}{} (NCCL_DEBUG=WARN in the environment tells more)", what,
              ncclGetErrorString(result), detail && *detail ? "; " : "", detail ? detail : "");
}

template <typename Call>
Ticket NcclCommunicator::start(const char* what, Call call) {
  const std::lock_guard lock(using_communicator_);
  if (is_aborted_) {
    group_.check();
    throw Error("{}: the GPUs are no longer connected", what);
  }
  check_cuda(cudaEventRecord(computed_, compute_), what);
  check_cuda(cudaStreamWaitEvent(stream_, computed_, 0), what);
  const cudaEvent_t begin = mark(stream_);
  check_nccl(call(), what);
  under_way_.push_back({++started_, {begin, mark(stream_)}});
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
  std::vector<Interval> over;
  while (!under_way_.empty() && under_way_.front().first <= ticket) {
    over.push_back(under_way_.front().second);
    under_way_.pop_front();
  }
  if (over.empty()) return;
  const cudaEvent_t begin = is_measuring_ ? mark(compute_) : nullptr;
  check_cuda(cudaStreamWaitEvent(compute_, over.back().end, 0), "waiting for an exchange");
  if (is_measuring_) {
    waited_.push_back({begin, mark(compute_)});
    exchanging_.insert(exchanging_.end(), over.begin(), over.end());
  } else {
    for (const Interval& interval : over) release(interval);
  }
}

cudaEvent_t NcclCommunicator::mark(cudaStream_t stream) {
  cudaEvent_t event = nullptr;
  if (free_events_.empty()) {
    check_cuda(cudaEventCreate(&event), "creating an event");
  } else {
    event = free_events_.back();
    free_events_.pop_back();
  }
  check_cuda(cudaEventRecord(event, stream), "marking an exchange");
  return event;
}

void NcclCommunicator::release(const Interval& interval) {
  free_events_.insert(free_events_.end(), {interval.begin, interval.end});
}

double NcclCommunicator::take(std::vector<Interval>& intervals) {
  double seconds = 0.0;
  for (const auto& [begin, end] : intervals) {
    float milliseconds = 0.0f;
    check_cuda(cudaEventSynchronize(end), "taking the time");
    check_cuda(cudaEventElapsedTime(&milliseconds, begin, end), "taking the time");
    seconds += 1e-3 * milliseconds;
    release({begin, end});
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
