#include "ops/cuda/matmul.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <optional>
#include <sstream>
#include <utility>

#include "core/file_io.h"
#include "ops/cuda/check.h"

namespace sigtrain {
namespace {

// What NVIDIA recommends for Hopper; smaller ones lose the algorithms that split long sums.
constexpr size_t workspace_bytes = size_t{32} << 20;
constexpr int most_candidates = 12;
constexpr int timed_launches = 4;
// cuBLASLt's own favourite, the first candidate, is left only for a clear gain, which the noise of
// the timing does not decide.
constexpr float clear_gain = 0.98f;

/// The largest power of two up to 256 that divides the address.
uint32_t alignment_of(const void* pointer) {
  const auto address = reinterpret_cast<uintptr_t>(pointer) | 256;
  return static_cast<uint32_t>(address & (~address + 1));
}

template <typename T>
void set(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attribute, const T& value) {
  check_cublas(cublasLtMatmulDescSetAttribute(desc, attribute, &value, sizeof(value)),
               "describing a matrix product");
}

template <typename T>
void set(cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t attribute,
         const T& value) {
  check_cublas(cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof(value)),
               "asking for algorithms of a matrix product");
}

std::string describe(const MatmulCall& call) {
  return fmt::format("{}{}{} m{} n{} k{} ld{},{},{} {}{} align{},{},{}",
                     call.transpose_a ? 't' : 'n', call.transpose_b ? 't' : 'n',
                     call.accumulate ? '+' : '=', call.m, call.n, call.k, call.lda, call.ldb,
                     call.ldc, call.c_is_float ? "f32" : "bf16", call.bias ? " bias" : "",
                     alignment_of(call.a), alignment_of(call.b), alignment_of(call.c));
}

std::vector<int64_t> plan_key(const MatmulCall& call) {
  const int flags = call.transpose_a | call.transpose_b << 1 | call.c_is_float << 2 |
                    call.accumulate << 3 | (call.bias != nullptr) << 4;
  return {flags,
          call.m,
          call.n,
          call.k,
          call.lda,
          call.ldb,
          call.ldc,
          alignment_of(call.a),
          alignment_of(call.b),
          alignment_of(call.c)};
}

class Event {
 public:
  Event() { check_cuda(cudaEventCreate(&event_), "timing a matrix product"); }
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  void record(cudaStream_t stream) {
    check_cuda(cudaEventRecord(event_, stream), "timing a matrix product");
  }
  float milliseconds_since(const Event& start) {
    check_cuda(cudaEventSynchronize(event_), "timing a matrix product");
    float milliseconds = 0.0f;
    check_cuda(cudaEventElapsedTime(&milliseconds, start.event_, event_),
               "timing a matrix product");
    return milliseconds;
  }

 private:
  cudaEvent_t event_ = nullptr;
};

}  // namespace

// cuBLASLt is column-major: a row-major C is the column-major C^T = op(B)^T op(A)^T, so that B
// comes first and nothing is copied.
struct Matmul::Plan {
  explicit Plan(const MatmulCall& call) {
    constexpr const char* what = "describing a matrix product";
    check_cublas(cublasLtMatmulDescCreate(&desc, CUBLAS_COMPUTE_32F, CUDA_R_32F), what);
    set(desc, CUBLASLT_MATMUL_DESC_TRANSA, call.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(desc, CUBLASLT_MATMUL_DESC_TRANSB, call.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
    if (call.bias) {
      set(desc, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
      set(desc, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, CUDA_R_16BF);
      set(desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, call.bias);
    }
    const auto m = static_cast<uint64_t>(call.m), n = static_cast<uint64_t>(call.n),
               k = static_cast<uint64_t>(call.k);
    check_cublas(cublasLtMatrixLayoutCreate(&b, CUDA_R_16BF, call.transpose_b ? k : n,
                                            call.transpose_b ? n : k, call.ldb),
                 what);
    check_cublas(cublasLtMatrixLayoutCreate(&a, CUDA_R_16BF, call.transpose_a ? m : k,
                                            call.transpose_a ? k : m, call.lda),
                 what);
    check_cublas(
        cublasLtMatrixLayoutCreate(&c, call.c_is_float ? CUDA_R_32F : CUDA_R_16BF, n, m, call.ldc),
        what);
  }
  ~Plan() {
    if (c) cublasLtMatrixLayoutDestroy(c);
    if (a) cublasLtMatrixLayoutDestroy(a);
    if (b) cublasLtMatrixLayoutDestroy(b);
    if (desc) cublasLtMatmulDescDestroy(desc);
  }
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;

  cublasLtMatmulDesc_t desc = nullptr;
  cublasLtMatrixLayout_t a = nullptr, b = nullptr, c = nullptr;
  cublasLtMatmulAlgo_t algorithm{};
  size_t workspace = 0;
};

Matmul::Matmul(cudaStream_t stream, std::filesystem::path choices)
    : stream_(stream), choices_path_(std::move(choices)) {
  check_cublas(cublasLtCreate(&handle_), "starting cuBLASLt");
  check_cuda(cudaMalloc(&workspace_, workspace_bytes), "allocating the workspace of cuBLASLt");
  read_choices();
}

Matmul::~Matmul() {
  plans_.clear();
  cudaFree(workspace_);
  cublasLtDestroy(handle_);
}

void Matmul::operator()(const MatmulCall& call) {
  if (call.m <= 0 || call.n <= 0) return;
  const Plan& plan = plan_for(call);
  if (call.bias) set(plan.desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, call.bias);
  check_cublas(launch(call, plan, plan.algorithm, plan.workspace, call.c),
               "starting a matrix product");
}

cublasStatus_t Matmul::launch(const MatmulCall& call, const Plan& plan,
                              const cublasLtMatmulAlgo_t& algorithm, size_t algorithm_workspace,
                              void* c) {
  const float alpha = 1.0f, beta = call.accumulate ? 1.0f : 0.0f;
  return cublasLtMatmul(handle_, plan.desc, &alpha, call.b, plan.b, call.a, plan.a, &beta, c,
                        plan.c, c, plan.c, &algorithm, workspace_, algorithm_workspace, stream_);
}

bool Matmul::take_choice(const std::string& key, Plan& plan) {
  const auto chosen = choices_.find(key);
  if (chosen == choices_.end()) return false;
  cublasLtMatmulHeuristicResult_t result{};
  if (cublasLtMatmulAlgoCheck(handle_, plan.desc, plan.b, plan.a, plan.c, plan.c, &chosen->second,
                              &result) == CUBLAS_STATUS_SUCCESS &&
      result.workspaceSize <= workspace_bytes) {
    plan.algorithm = chosen->second;
    plan.workspace = result.workspaceSize;
    return true;
  }
  warn_once(fmt::format("{}: the algorithm for the product {} is not valid here; timing it again",
                        choices_path_.string(), key));
  choices_.erase(chosen);
  return false;
}

Matmul::Plan& Matmul::plan_for(const MatmulCall& call) {
  std::unique_ptr<Plan>& known = plans_[plan_key(call)];
  if (known) return *known;
  auto plan = std::make_unique<Plan>(call);
  const std::string key = describe(call);
  if (!take_choice(key, *plan)) choose_algorithm(call, key, *plan);
  known = std::move(plan);
  return *known;
}

void Matmul::choose_algorithm(const MatmulCall& call, const std::string& key, Plan& plan) {
  cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
  check_cuda(cudaStreamIsCapturing(stream_, &capture), "choosing a matrix product");
  if (capture != cudaStreamCaptureStatusNone) {
    throw Error("the matrix product {} was not run before its step was captured into a graph", key);
  }
  constexpr const char* what = "asking for algorithms of a matrix product";
  cublasLtMatmulPreference_t raw = nullptr;
  check_cublas(cublasLtMatmulPreferenceCreate(&raw), what);
  const std::unique_ptr<cublasLtMatmulPreferenceOpaque_t,
                        decltype(&cublasLtMatmulPreferenceDestroy)>
      preference(raw, cublasLtMatmulPreferenceDestroy);
  set(raw, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace_bytes);
  // Split sums are put together in fp32 and in order; the schemes that add in place or in the
  // output's type are left out.
  set(raw, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
      static_cast<uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
  set(raw, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment_of(call.b));
  set(raw, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment_of(call.a));
  set(raw, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment_of(call.c));
  set(raw, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment_of(call.c));
  cublasLtMatmulHeuristicResult_t candidates[most_candidates];
  int count = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
      handle_, plan.desc, plan.b, plan.a, plan.c, plan.c, raw, most_candidates, candidates, &count);
  if (status != CUBLAS_STATUS_SUCCESS || count == 0)
    throw Error("cuBLASLt has no algorithm for the matrix product {}", key);

  // A product that adds to C is timed on other memory, so that it is added once.
  void* c = call.c;
  std::unique_ptr<void, decltype(&cudaFree)> stand_in(nullptr, cudaFree);
  bool can_time = true;
  if (call.accumulate) {
    const size_t bytes = static_cast<size_t>((call.m - 1) * call.ldc + call.n) *
                         (call.c_is_float ? sizeof(float) : sizeof(__nv_bfloat16));
    if (cudaMalloc(&c, bytes) == cudaSuccess) {
      stand_in.reset(c);
      check_cuda(cudaMemsetAsync(c, 0, bytes, stream_), "timing a matrix product");
    } else {
      cudaGetLastError();
      can_time = false;
      spdlog::warn("no {} bytes are free to time the matrix product {}: taking cuBLASLt's choice",
                   bytes, key);
    }
  }

  int best = 0;
  std::optional<float> best_time;
  for (int i = 0; can_time && i < count; ++i) {
    if (candidates[i].state != CUBLAS_STATUS_SUCCESS) continue;
    const auto start_candidate = [&] {
      return launch(call, plan, candidates[i].algo, candidates[i].workspaceSize, c);
    };
    // What the heuristic proposes may still be refused: then it is no candidate.
    if (start_candidate() != CUBLAS_STATUS_SUCCESS) continue;
    Event start, stop;
    start.record(stream_);
    for (int j = 0; j < timed_launches; ++j)
      check_cublas(start_candidate(), "timing a matrix product");
    stop.record(stream_);
    const float time = stop.milliseconds_since(start);
    if (!best_time || time < *best_time * clear_gain) {
      best = i;
      best_time = time;
    }
  }
  check_cuda(cudaStreamSynchronize(stream_), "timing a matrix product");
  plan.algorithm = candidates[best].algo;
  plan.workspace = candidates[best].workspaceSize;
  if (!best_time) return;
  const double microseconds = 1e3 * *best_time / timed_launches;
  spdlog::debug(
      "matrix product {}: candidate {} of {}, {:.1f} us, {:.0f} TFLOP/s", key, best, count,
      microseconds,
      2e-6 * static_cast<double>(call.m * call.n) * static_cast<double>(call.k) / microseconds);
  keep_choice(key, plan);
}

// Processes that time the same product at the same time may find different algorithms the fastest.
// All take the one that reached the file first, as later runs will.
void Matmul::keep_choice(const std::string& key, Plan& plan) {
  const cublasLtMatmulAlgo_t own = plan.algorithm;
  if (choices_path_.empty()) {
    choices_[key] = own;
    return;
  }
  try {
    std::filesystem::create_directories(choices_path_.parent_path());
    const FileLock lock(choices_path_.string() + ".lock");
    read_choices();
    if (take_choice(key, plan)) return;
    choices_[key] = own;
    write_choices();
  } catch (const std::exception& error) {
    choices_[key] = own;
    spdlog::warn("the chosen matrix product algorithms are not kept: {}", error.what());
  }
}

void Matmul::warn_once(const std::string& message) {
  if (warnings_.insert(message).second) spdlog::warn("{}", message);
}

// A line a product: its description, a tab, the algorithm's words in hexadecimal.
void Matmul::read_choices() {
  std::error_code ignored;
  if (choices_path_.empty() || !std::filesystem::exists(choices_path_, ignored)) return;
  std::ifstream file(choices_path_);
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    const size_t tab = line.find('\t');
    std::istringstream words(tab == std::string::npos ? std::string() : line.substr(tab + 1));
    cublasLtMatmulAlgo_t algorithm{};
    bool complete = true;
    for (auto& word : algorithm.data) complete = complete && (words >> std::hex >> word);
    if (complete) {
      choices_[line.substr(0, tab)] = algorithm;
    } else {
      warn_once(fmt::format("{}:{}: not a choice of an algorithm; its product is timed again",
                            choices_path_.string(), number));
    }
  }
}

void Matmul::write_choices() const {
  std::string text;
  for (const auto& [key, algorithm] : choices_) {
    text += key + '\t';
    for (const auto word : algorithm.data) text += fmt::format("{:x} ", word);
    text += '\n';
  }
  write_file(choices_path_, text);
}

std::filesystem::path Matmul::default_choices() {
  std::filesystem::path folder;
  if (const char* own = std::getenv("SIGTRAIN_CACHE")) {
    folder = own;
  } else if (const char* cache = std::getenv("XDG_CACHE_HOME")) {
    folder = std::filesystem::path(cache) / "sigtrain";
  } else if (const char* home = std::getenv("HOME")) {
    folder = std::filesystem::path(home) / ".cache" / "sigtrain";
  }
  if (folder.empty()) return {};
  int device = 0;
  cudaDeviceProp properties{};
  check_cuda(cudaGetDevice(&device), "asking for the GPU");
  check_cuda(cudaGetDeviceProperties(&properties, device), "asking for the GPU");
  std::string name = fmt::format("matmul-{}-{}sm-cublaslt{}.txt", properties.name,
                                 properties.multiProcessorCount, cublasLtGetVersion());
  for (char& letter : name) {
    if (!std::isalnum(static_cast<unsigned char>(letter)) && letter != '.') letter = '-';
  }
  return folder / name;
}

}  // namespace sigtrain
