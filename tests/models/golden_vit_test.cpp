// Whole vision transformers against PyTorch: logits, loss and every gradient.
#include "config/reader.h"
#include "models/golden.h"
#include "models/small_vit.h"

namespace sigtrain {
namespace {

template <typename Real>
class GoldenVit {
 public:
  explicit GoldenVit(const std::string& name)
      : config_(read_config(golden_path(name + ".yaml"))),
        golden_(name + ".safetensors"),
        vit_(config_.model, config_.data.image, 3) {
    rows_.images = golden_.bytes("images");
    rows_.labels = golden_.integers("labels");
    rows_.targets = golden_.template read<double>("targets");
    load_golden_weights<Real>(golden_, vit_);
  }

  void check_forward() {
    expect_golden(golden_, "logits", vit_.logits(rows_), forward);
    const std::vector<double> sums = vit_.evaluate(rows_);
    const Buffer<double> expected = golden_.template read<double>("sums");
    for (const int slot :
         {class_sum_nll, class_sum_count, class_sum_correct, class_sum_correct_of_5})
      EXPECT_NEAR(sums[slot], expected[slot], tolerance<Real>(forward) * expected[slot]) << slot;
  }

  void check_gradients() {
    vit_.zero_gradients();
    const std::vector<double> sums = vit_.train(rows_);
    const Buffer<double> expected = golden_.template read<double>("sums");
    EXPECT_NEAR(sums[class_sum_objective], expected[class_sum_objective],
                tolerance<Real>(forward) * expected[class_sum_objective]);
    expect_golden_parameters<Real>(golden_, "gradient", vit_, backward,
                                   [&](ParameterId id) { return vit_.gradient(id); });
  }

 private:
  // As for the language models (golden_lm_test.cpp): some 20 products over 16 to 48 terms in a row,
  // whose errors mostly cancel.
  static constexpr double forward = 100, backward = 300;

  Config config_;
  GoldenFile golden_;
  SmallVit<Real> vit_;
  ImageRows rows_;
};

class GoldenVits : public ::testing::TestWithParam<std::string> {};

TEST_P(GoldenVits, ForwardInFloat) { GoldenVit<float>(GetParam()).check_forward(); }
TEST_P(GoldenVits, ForwardInDouble) { GoldenVit<double>(GetParam()).check_forward(); }
TEST_P(GoldenVits, GradientsInFloat) { GoldenVit<float>(GetParam()).check_gradients(); }
TEST_P(GoldenVits, GradientsInDouble) { GoldenVit<double>(GetParam()).check_gradients(); }

INSTANTIATE_TEST_SUITE_P(, GoldenVits, ::testing::Values("vit_sigmoid", "vit_softmax"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace sigtrain
