// Whole speech encoders over utterances of unequal lengths against PyTorch: logits, losses and
// every gradient.
#include "config/reader.h"
#include "models/golden.h"
#include "models/small_speech.h"

namespace sigtrain {
namespace {

template <typename Real>
class GoldenSpeech {
 public:
  explicit GoldenSpeech(const std::string& name)
      : golden_(name + ".safetensors"), rows_(read_rows()), model_(read_model(name)) {
    speech_.emplace(model_, rows_);
    load_golden_weights<Real>(golden_, *speech_);
  }

  void check_forward() {
    const std::vector<double> sums = speech_->evaluate(rows_);
    const Buffer<double> expected = golden_.template read<double>("logits");
    Buffer<double> actual(expected.shape);
    ASSERT_EQ(speech_->logits().size(), actual.values.size());
    actual.values = speech_->logits();
    // Rows of padding are nobody's: frames that PyTorch's zeros stand for too are the same.
    EXPECT_LE(relative_error(actual, expected), tolerance<Real>(forward));
    const Buffer<double> losses = golden_.template read<double>("losses");
    double total = 0.0;
    for (int64_t row = 0; row < losses.size(); ++row) {
      EXPECT_NEAR(speech_->losses()[static_cast<size_t>(row)], losses[row],
                  tolerance<Real>(forward) * losses[row]);
      total += losses[row];
    }
    EXPECT_NEAR(sums[ctc_sum_nll], total, tolerance<Real>(forward) * total);
    EXPECT_EQ(sums[ctc_sum_sequences], 3.0);
    EXPECT_EQ(sums[ctc_sum_targets], rows_.letters());
    EXPECT_EQ(sums[ctc_sum_infeasible], 0.0);
  }

  void check_gradients() {
    speech_->zero_gradients();
    speech_->train(rows_);
    expect_golden_parameters<Real>(golden_, "gradient", *speech_, backward,
                                   [&](ParameterId id) { return speech_->gradient(id); });
  }

 private:
  // As for the other models (golden_lm_test.cpp): some 20 products over 16 to 48 terms in a row,
  // whose errors mostly cancel, and CTC's sums over a dozen frames.
  static constexpr double forward = 100, backward = 300;

  SpokenRows read_rows() const {
    SpokenRows rows;
    rows.features = golden_.template read<float>("features");
    rows.feature_lengths = golden_.integers("feature_lengths");
    rows.positions = golden_.template read<float>("positions");
    rows.targets = golden_.integers("targets");
    rows.target_lengths = golden_.integers("target_lengths");
    rows.frame_lengths = Buffer<int32_t>(rows.feature_lengths.shape);
    for (int64_t row = 0; row < rows.rows(); ++row)
      rows.frame_lengths[row] = (rows.feature_lengths[row] + 2) / 3;
    return rows;
  }

  static ModelConfig read_model(const std::string& name) {
    ModelConfig model = read_config(golden_path(name + ".yaml")).model;
    model.vocab_size = 5;
    return model;
  }

  GoldenFile golden_;
  SpokenRows rows_;
  ModelConfig model_;
  std::optional<SmallSpeech<Real>> speech_;
};

class GoldenSpeeches : public ::testing::TestWithParam<std::string> {};

TEST_P(GoldenSpeeches, ForwardInFloat) { GoldenSpeech<float>(GetParam()).check_forward(); }
TEST_P(GoldenSpeeches, ForwardInDouble) { GoldenSpeech<double>(GetParam()).check_forward(); }
TEST_P(GoldenSpeeches, GradientsInFloat) { GoldenSpeech<float>(GetParam()).check_gradients(); }
TEST_P(GoldenSpeeches, GradientsInDouble) { GoldenSpeech<double>(GetParam()).check_gradients(); }

INSTANTIATE_TEST_SUITE_P(, GoldenSpeeches, ::testing::Values("asr_sigmoid", "asr_softmax"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace sigtrain
