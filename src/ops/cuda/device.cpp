// The GPU as a device: memory, transfers, conversions, faults.
#include <cstring>

#include "core/bytes_text.h"
#include "kernels/elementwise.h"
#include "ops/cuda/check.h"
#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/pointers.h"

namespace sigtrain {
namespace {

// Many steps' batches of tokens; a batch of images passes in parts.
constexpr size_t staging_bytes = size_t{64} << 20;

template <typename T>
uint64_t bits_of(T value) {
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(value));
  return bits;
}

uint64_t element_bits(DType dtype, double value) {
  switch (dtype) {
    case DType::f64:
      return bits_of(value);
    case DType::f32:
      return bits_of(static_cast<float>(value));
    case DType::bf16:
      return bits_of(__float2bfloat16(static_cast<float>(value)));
    case DType::i32:
      return bits_of(static_cast<int32_t>(value));
    case DType::i64:
      return bits_of(static_cast<int64_t>(value));
    case DType::u64:
      return static_cast<uint64_t>(value);
    case DType::u8:  // bytes are for images, which are uploaded
    case DType::none:
      break;
  }
  throw Error("cannot fill a tensor of {}", name_of(dtype));
}

}  // namespace

std::string CudaOps::unavailable_reason() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaErrorInsufficientDriver) {
    int driver = 0, runtime = 0;
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    if (driver == 0) return "no NVIDIA driver is installed";
    return fmt::format(
        "the NVIDIA driver supports CUDA {}.{}, and this build needs {}.{}: install a newer driver",
        driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
  }
  if (status == cudaErrorNoDevice || (status == cudaSuccess && count == 0))
    return "no NVIDIA GPU is visible (see nvidia-smi and CUDA_VISIBLE_DEVICES)";
  if (status != cudaSuccess) return cudaGetErrorString(status);
  int major = 0, minor = 0;
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0);
  cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0);
  if (major < 8) {
    return fmt::format(
        "the GPU has compute capability {}.{}; bfloat16 tensor cores came with 8.0 (Ampere)", major,
        minor);
  }
  return {};
}

int CudaOps::count() {
  int count = 0;
  check_cuda(cudaGetDeviceCount(&count), "counting the GPUs");
  return count;
}

CudaOps::CudaOps(int device) {
  if (const std::string reason = unavailable_reason(); !reason.empty())
    throw Error("cannot use CUDA: {}", reason);
  check_cuda(cudaSetDevice(device), "selecting the GPU");
  check_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "creating a stream");
  void *state = nullptr, *fault = nullptr;
  check_cuda(cudaMalloc(&state, sizeof(DeviceState)), "allocating GPU memory");
  check_cuda(cudaMallocHost(&fault, sizeof(kernels::Fault)), "allocating pinned host memory");
  state_ = static_cast<DeviceState*>(state);
  fault_on_host_ = static_cast<kernels::Fault*>(fault);
  check_cuda(cudaMemsetAsync(state_, 0, sizeof(DeviceState), stream_), "clearing GPU memory");
  staging_ = std::make_unique<Staging>(staging_bytes, stream_);
  matmul_ = std::make_unique<Matmul>(stream_, Matmul::default_choices());
}

CudaOps::~CudaOps() {
  cudaStreamSynchronize(stream_);
  matmul_.reset();
  staging_.reset();
  cudaFreeHost(fault_on_host_);
  cudaFree(state_);
  cudaStreamDestroy(stream_);
}

std::string_view CudaOps::name() const { return "cuda"; }
DType CudaOps::compute_dtype() const { return DType::bf16; }
DType CudaOps::accumulate_dtype() const { return DType::f32; }
bool CudaOps::is_synchronous() const { return false; }

DeviceMemory CudaOps::allocate(size_t bytes) {
  void* memory = nullptr;
  const cudaError_t status = cudaMalloc(&memory, std::max<size_t>(bytes, 1));
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // it is reported here and no later call's failure
    size_t available = 0, total = 0;
    check_cuda(cudaMemGetInfo(&available, &total), "asking for free GPU memory");
    throw Error(
        "out of GPU memory: {} asked for, {} of {} free; use a smaller micro-batch, sequence or "
        "model",
        bytes_text(bytes), bytes_text(available), bytes_text(total));
  }
  check_cuda(status, "allocating GPU memory");
  return DeviceMemory(memory, [](void* pointer) { cudaFree(pointer); });
}

void CudaOps::upload(const Tensor& destination, const void* host) {
  staging_->upload(destination.data, host, destination.bytes());
}

void CudaOps::download(void* host, const Tensor& source) {
  if (source.bytes()) {
    check_cuda(cudaMemcpyAsync(host, source.data, source.bytes(), cudaMemcpyDeviceToHost, stream_),
               "downloading");
  }
  wait();
}

void CudaOps::synchronize() { wait(); }

void CudaOps::wait() {
  check_cuda(cudaMemcpyAsync(fault_on_host_, &state_->fault, sizeof(kernels::Fault),
                             cudaMemcpyDeviceToHost, stream_),
             "waiting for the GPU");
  check_cuda(cudaStreamSynchronize(stream_), "waiting for the GPU");
  const kernels::Fault fault = *fault_on_host_;
  if (fault.kind == static_cast<int32_t>(kernels::FaultKind::none)) return;
  // Reported once, so that the caller may go on with other data.
  check_cuda(cudaMemsetAsync(&state_->fault, 0, sizeof(kernels::Fault), stream_),
             "clearing GPU memory");
  if (fault.kind == static_cast<int32_t>(kernels::FaultKind::token_id)) {
    throw Error(
        "token id {} in row {} of a batch is outside the vocabulary [0, {}): the data was "
        "tokenised with another vocabulary",
        fault.value, fault.row, fault.vocab_size);
  }
  if (fault.kind == static_cast<int32_t>(kernels::FaultKind::label)) {
    throw Error(
        "classification_loss: the label of row {} is {}, but the model has {} classes: the data "
        "and "
        "model.vision.classes do not belong together",
        fault.row, fault.value, fault.vocab_size);
  }
  if (fault.kind == static_cast<int32_t>(kernels::FaultKind::ctc_target)) {
    throw Error(
        "ctc: a target of sequence {} is {}, which is the blank or not in the vocabulary [0, {}): "
        "the data and the model's vocab_size do not belong together",
        fault.row, fault.value, fault.vocab_size);
  }
  throw Error(
      "cross-entropy: the target of row {} is {}, which is neither in the vocabulary [0, {}) nor "
      "to be ignored: the data and the model's vocab_size do not belong together",
      fault.row, fault.value, fault.vocab_size);
}

void CudaOps::fill(const Tensor& x, double value) {
  const uint64_t bits = element_bits(x.dtype, value);
  if (bits == 0) {
    check_cuda(cudaMemsetAsync(x.data, 0, x.bytes(), stream_), "fill");
    return;
  }
  kernels::fill(x.data, x.numel(), static_cast<int>(size_of(x.dtype)), bits, stream_);
  check_launch("fill");
}

void CudaOps::copy(const Tensor& source, const Tensor& destination) {
  if (source.numel() != destination.numel()) {
    throw Error("cannot copy {} to {}: they differ in size", source.shape.to_string(),
                destination.shape.to_string());
  }
  if (source.dtype == destination.dtype) {
    check_cuda(cudaMemcpyAsync(destination.data, source.data, source.bytes(),
                               cudaMemcpyDeviceToDevice, stream_),
               "copy");
  } else if (source.dtype == DType::f32 && destination.dtype == DType::bf16) {
    kernels::convert(source.as<float>(), bf16_pointer(destination), source.numel(), stream_);
  } else if (source.dtype == DType::bf16 && destination.dtype == DType::f32) {
    kernels::convert(bf16_pointer(source), destination.as<float>(), source.numel(), stream_);
  } else {
    throw Error("cannot copy {} to {} on the GPU", name_of(source.dtype),
                name_of(destination.dtype));
  }
  check_launch("copy");
}

void CudaOps::add(const Tensor& x, const Tensor& y) {
  kernels::add(bf16_pointer(x), bf16_pointer(y), x.numel(), stream_);
  check_launch("add");
}

void CudaOps::set_random_step(uint64_t step) {
  kernels::set_random_step(&state_->random_step, step, stream_);
  check_launch("set_random_step");
}

void CudaOps::next_random_step() {
  kernels::next_random_step(&state_->random_step, stream_);
  check_launch("next_random_step");
}

std::optional<MemoryUse> CudaOps::memory_use() const {
  size_t available = 0, total = 0;
  check_cuda(cudaMemGetInfo(&available, &total), "asking for free GPU memory");
  return MemoryUse{total - available, total};
}

}  // namespace sigtrain
