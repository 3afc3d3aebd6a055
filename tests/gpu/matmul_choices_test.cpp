// The file of algorithms that cuBLASLt's products were found fastest with.
#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <fstream>
#include <memory>
#include <optional>
#include <sstream>

#include "file_testing.h"
#include "gpu_testing.h"
#include "ops/cuda/matmul.h"

namespace sigtrain {
namespace {

/// What is warned of as long as it lives.
class Warnings {
 public:
  Warnings() {
    sink_->set_level(spdlog::level::warn);
    spdlog::default_logger()->sinks().push_back(sink_);
  }
  ~Warnings() { spdlog::default_logger()->sinks().pop_back(); }
  Warnings(const Warnings&) = delete;
  Warnings& operator=(const Warnings&) = delete;

  std::string text() const { return stream_.str(); }
  int64_t count() const { return std::ranges::count(text(), '\n'); }

 private:
  std::ostringstream stream_;
  std::shared_ptr<spdlog::sinks::ostream_sink_mt> sink_ =
      std::make_shared<spdlog::sinks::ostream_sink_mt>(stream_);
};

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

// Neither a line that is no choice nor one of an algorithm that there is not.
TEST_F(MatmulChoices, ThatAreNotValidAreTimedAgainAndNamedOnce) {
  const std::string no_algorithm =
      " ffffffff ffffffff ffffffff ffffffff ffffffff ffffffff ffffffff ffffffff";
  for (const std::string& choice : {std::string("no number"), no_algorithm}) {
    {
      Matmul one(nullptr, choices());
      one(product(128));
    }
    const std::string key = lines().at(0).substr(0, lines().at(0).find('\t'));
    std::ofstream(choices()) << key << '\t' << choice << '\n';
    const Warnings warnings;
    Matmul other(nullptr, choices());
    other(product(128));
    ASSERT_EQ(lines().size(), 1u);
    EXPECT_EQ(lines()[0].find(choice), std::string::npos);
    EXPECT_TRUE(lines()[0].starts_with(key + '\t'));
    EXPECT_EQ(warnings.count(), 1) << choice << ": " << warnings.text();
    EXPECT_NE(warnings.text().find(choices().string()), std::string::npos) << warnings.text();
  }
}

}  // namespace
}  // namespace sigtrain
