// The file of algorithms that cuBLASLt's products were found fastest with.
#include <fstream>
#include <optional>

#include "file_testing.h"
#include "gpu_testing.h"
#include "ops/cuda/matmul.h"

namespace sigtrain {
namespace {

class MatmulChoices : public NeedsGpu {
 protected:
  void SetUp() override {
    NeedsGpu::SetUp();
    if (IsSkipped()) return;
    memory_ = gpu_.emplace().allocate(size_t{3} << 20);
  }

  /// C = A B of this many rows, 64 columns and 64 terms.
  MatmulCall product(int64_t rows) const {
    auto* const bytes = static_cast<std::byte*>(memory_.get());
    MatmulCall call;
    call.m = rows, call.n = call.k = 64;
    call.a = reinterpret_cast<const __nv_bfloat16*>(bytes);
    call.b = reinterpret_cast<const __nv_bfloat16*>(bytes + (size_t{1} << 20));
    call.c = bytes + (size_t{2} << 20);
    call.lda = call.ldb = call.ldc = 64;
    return call;
  }
  std::vector<std::string> lines() const {
    std::ifstream file(choices());
    std::vector<std::string> result;
    for (std::string line; std::getline(file, line);) result.push_back(line);
    return result;
  }
  std::filesystem::path choices() const { return folder_ / "kept/choices.txt"; }

 private:
  std::optional<CudaOps> gpu_;
  DeviceMemory memory_;
  TemporaryFolder folder_;
};

TEST_F(MatmulChoices, OfProcessesThatRunTogetherAreAllKept) {
  Matmul one(nullptr, choices()), other(nullptr, choices());
  one(product(128));
  const std::vector<std::string> first = lines();
  ASSERT_EQ(first.size(), 1u);
  other(product(256));
  EXPECT_EQ(lines().size(), 2u);
  // The other one has not timed this product; it takes what is in the file.
  other(product(128));
  EXPECT_EQ(lines().size(), 2u);
  const std::vector<std::string> both = lines();
  EXPECT_NE(std::ranges::find(both, first[0]), both.end());
}

TEST_F(MatmulChoices, ThatCannotBeReadAreTimedAgain) {
  {
    Matmul one(nullptr, choices());
    one(product(128));
  }
  const std::string key = lines().at(0).substr(0, lines().at(0).find('\t'));
  std::ofstream(choices()) << key << "\tno number\n";
  Matmul other(nullptr, choices());
  other(product(128));
  ASSERT_EQ(lines().size(), 1u);
  EXPECT_EQ(lines()[0].find("no number"), std::string::npos);
  EXPECT_TRUE(lines()[0].starts_with(key + '\t'));
}

}  // namespace
}  // namespace sigtrain
