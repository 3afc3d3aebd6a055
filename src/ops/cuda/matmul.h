// Matrix products through cuBLASLt: bfloat16 in, fp32 sums, bfloat16 or fp32 out.
#pragma once

#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

namespace sigtrain {

/// C = op(A) op(B) [+ C] [+ bias], row-major: op(A) [m, k], op(B) [k, n], C [m, n]; leading
/// dimensions are elements between rows as stored.
struct MatmulCall {
  bool transpose_a = false, transpose_b = false;
  int64_t m = 0, n = 0, k = 0;
  const __nv_bfloat16* a = nullptr;
  int64_t lda = 0;
  const __nv_bfloat16* b = nullptr;
  int64_t ldb = 0;
  void* c = nullptr;
  int64_t ldc = 0;
  bool c_is_float = false;              // else bfloat16
  bool accumulate = false;              // adds to what C holds
  const __nv_bfloat16* bias = nullptr;  // optional [n]
};

/// Runs products on one stream. The first call of each shape times cuBLASLt's candidates and keeps
/// the fastest, also in a file for later runs and for others that run meanwhile: sums in another
/// order are other bits, and a run that is resumed or repeated must take the same ones.
class Matmul {
 public:
  /// `choices` is the file of algorithms chosen before on this GPU with this cuBLASLt; empty: none.
  Matmul(cudaStream_t stream, std::filesystem::path choices);
  ~Matmul();
  Matmul(const Matmul&) = delete;
  Matmul& operator=(const Matmul&) = delete;

  /// Throws Error if cuBLASLt has no algorithm for the shape, or if a shape is first seen while the
  /// stream is captured into a graph.
  void operator()(const MatmulCall& call);

  /// $SIGTRAIN_CACHE, $XDG_CACHE_HOME/sigtrain or ~/.cache/sigtrain, with a file name made of the
  /// GPU's name and cuBLASLt's version; empty if there is no such folder to be had.
  static std::filesystem::path default_choices();

 private:
  struct Plan;

  Plan& plan_for(const MatmulCall& call);
  /// Whether an algorithm was chosen before that is valid here; it becomes the plan's.
  bool take_choice(const std::string& key, Plan& plan);
  void choose_algorithm(const MatmulCall& call, const std::string& key, Plan& plan);
  cublasStatus_t launch(const MatmulCall& call, const Plan& plan,
                        const cublasLtMatmulAlgo_t& algorithm, size_t algorithm_workspace, void* c);
  /// Adds the plan's algorithm to the file, or takes the one that another process put there.
  void keep_choice(const std::string& key, Plan& plan);
  void read_choices();
  void write_choices() const;
  /// The file is read anew for each choice that is added: what is wrong in it is said once.
  void warn_once(const std::string& message);

  cudaStream_t stream_;
  cublasLtHandle_t handle_ = nullptr;
  void* workspace_ = nullptr;
  std::filesystem::path choices_path_;
  std::map<std::string, cublasLtMatmulAlgo_t> choices_;
  std::set<std::string> warnings_;
  std::map<std::vector<int64_t>, std::unique_ptr<Plan>> plans_;
};

}  // namespace sigtrain
