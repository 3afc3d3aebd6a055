// Whole language models against PyTorch: loss, logits, every gradient and two optimizer steps.
#include "config/reader.h"
#include "models/golden.h"
#include "models/small_lm.h"

namespace sigtrain {
namespace {

constexpr int64_t batch = 2;

template <typename Real>
class GoldenLm {
 public:
  explicit GoldenLm(const std::string& name)
      : config_(read_config(golden_path(name + ".yaml"))),
        golden_(name + ".safetensors"),
        lm_(config_.model, batch, config_.loss) {
    rows_ = {golden_.integers("tokens"), golden_.integers("targets")};
    load_golden_weights<Real>(golden_, lm_);
  }

  void check_forward() {
    const std::vector<double> sums = lm_.evaluate(rows_, 0, batch);
    const Buffer<double> expected = golden_.read<double>("sums");
    for (int slot = 0; slot < loss_sum_slots; ++slot)
      EXPECT_NEAR(sums[slot], expected[slot], tolerance<Real>(forward) * expected[slot]) << slot;
    expect_golden(golden_, "logits", lm_.last_logits(rows_), forward);
  }

  void check_gradients() {
    lm_.zero_gradients();
    lm_.train(rows_, 0, batch, counted());
    expect_golden_parameters<Real>(golden_, "gradient", lm_, backward,
                                   [&](ParameterId id) { return lm_.gradient(id); });
  }

  void check_optimizer() {
    Optimizer optimizer(lm_.parameters(), lm_.ops(), config_.optimizer, config_.model.width);
    const Buffer<double> factors = golden_.read<double>("factors"),
                         norms = golden_.read<double>("grad_norms");
    for (int64_t step = 0; step < factors.size(); ++step) {
      optimizer.zero_gradients(lm_.ops());
      lm_.train(rows_, 0, batch, counted());
      optimizer.set_rate(lm_.ops(), factors[step]);
      optimizer.step(lm_.ops());
      EXPECT_NEAR(optimizer.report(lm_.ops()).grad_norm, norms[step],
                  tolerance<Real>(backward) * norms[step]);
    }
    expect_golden_parameters<Real>(golden_, "updated", lm_, backward,
                                   [&](ParameterId id) { return lm_.weight(id); });
  }

 private:
  // There are some 40 matrix products over 24 to 50 terms in a row, but errors of either sign
  // mostly cancel: what is seen is about 10 forward and 30 backward.
  static constexpr double forward = 100, backward = 300;

  double counted() const { return golden_.read<double>("sums")[loss_sum_count]; }

  Config config_;
  GoldenFile golden_;
  SmallLm<Real> lm_;
  TokenRows rows_;
};

class GoldenModels : public ::testing::TestWithParam<std::string> {};

TEST_P(GoldenModels, ForwardInFloat) { GoldenLm<float>(GetParam()).check_forward(); }
TEST_P(GoldenModels, ForwardInDouble) { GoldenLm<double>(GetParam()).check_forward(); }
TEST_P(GoldenModels, GradientsInFloat) { GoldenLm<float>(GetParam()).check_gradients(); }
TEST_P(GoldenModels, GradientsInDouble) { GoldenLm<double>(GetParam()).check_gradients(); }
TEST_P(GoldenModels, OptimizerInFloat) { GoldenLm<float>(GetParam()).check_optimizer(); }
TEST_P(GoldenModels, OptimizerInDouble) { GoldenLm<double>(GetParam()).check_optimizer(); }

INSTANTIATE_TEST_SUITE_P(, GoldenModels,
                         ::testing::Values("lm_sigmoid_hybrid", "lm_softmax_pre", "lm_softmax_post",
                                           "lm_sigmoid_layerscale"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace sigtrain
