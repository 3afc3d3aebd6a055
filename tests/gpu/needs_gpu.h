// Skips a test, with the reason, where there is no GPU.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "ops/cuda/cuda_ops.h"

namespace sigtrain {

class NeedsGpu : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const std::string reason = CudaOps::unavailable_reason(); !reason.empty())
      GTEST_SKIP() << "NOT TESTED, no GPU: " << reason;
    // The choices that a test run times are its own.
    setenv("SIGTRAIN_CACHE", SIGTRAIN_BINARY_DIR "/gpu_test_cache", 1);
  }
};

}  // namespace sigtrain
