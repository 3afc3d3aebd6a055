// The hand-written backward of whole vision transformers, against central differences of their own
// loss, and what recomputation, targets and frozen parameters change.
#include "models/vision_transformer.h"

#include "config/enum_names.h"
#include "models/small_vit.h"

namespace sigtrain {
namespace {

constexpr int64_t batch = 3;

/// Every attention, pool and kind of position; the rest takes turns.
std::vector<ModelConfig> all_models() {
  std::vector<ModelConfig> models;
  for (const auto& kind : kEnumNames<AttentionKind>) {
    for (const auto& pool : kEnumNames<ImagePool>) {
      for (const PositionKind position :
           {PositionKind::none, PositionKind::learned, PositionKind::sincos}) {
        const size_t n = models.size();
        ModelConfig model;
        model.vision.image_size = 9;
        model.vision.channels = n % 2 == 0 ? 3 : 1;
        model.vision.patch_size = 3;
        model.vision.classes = 6;
        model.vision.pool = pool.value;
        model.layers = 2;
        model.width = 12;
        model.heads = 3;
        model.norm.kind = NormKind::layernorm;
        model.norm.structure = kEnumNames<NormStructure>[n % 3].value;
        model.position.kind = position;
        model.mlp = {MlpKind::gelu, 10};
        model.attention.kind = kind.value;
        model.attention.causal = false;
        model.attention.qk_norm = n % 3 != 0;
        if (kind.value == AttentionKind::sigmoid) model.attention.bias.minus_log_seq_len = true;
        model.linear_bias = n % 4 != 3;
        model.layer_scale = n % 2 == 0 ? 0.5 : 0.0;
        model.stochastic_depth = n % 3 == 1 ? 0.3 : 0.0;
        model.dropout = n % 5 == 2 ? 0.2 : 0.0;
        models.push_back(model);
      }
    }
  }
  return models;
}

ImageDataConfig normalisation(const ModelConfig& model) {
  ImageDataConfig image;
  image.mean.resize(static_cast<size_t>(model.vision.channels));
  image.stddev.resize(static_cast<size_t>(model.vision.channels));
  return image;
}

std::string describe(const ModelConfig& model) {
  return std::string(enum_name(model.attention.kind)) + "_" +
         std::string(enum_name(model.vision.pool)) + "_" +
         std::string(enum_name(model.position.kind)) + "_" +
         std::string(enum_name(model.norm.structure));
}

class VisionTransformers : public ::testing::TestWithParam<ModelConfig> {
 protected:
  ImageRows rows(bool targets) const {
    RandomValues random(5);
    return random_images(random, GetParam(), batch, targets);
  }
  SmallVit<double> make(Recompute recompute = Recompute::none) const {
    return {GetParam(), normalisation(GetParam()), batch, 1, recompute};
  }

  OneThread one_thread_;
};

TEST_P(VisionTransformers, GradientsAreTheSlopesOfTheLoss) {
  SmallVit<double> vit = make();
  RandomValues random(8);
  move_weights(vit, random);
  ImageRows images = rows(true);
  const auto loss = [&] { return vit.train(images)[class_sum_objective] / batch; };
  vit.zero_gradients();
  loss();
  const std::vector<double> gradients(vit.gradients().begin(), vit.gradients().end());
  for (ParameterId id = 0; id < vit.tensors(); ++id) {
    const Parameter& parameter = vit.table()[id];
    const Buffer<double> direction = random.normal<double>(parameter.shape);
    const std::span gradient = std::span(gradients).subspan(static_cast<size_t>(parameter.offset),
                                                            direction.values.size());
    const double norm = std::sqrt(dot(gradient, gradient));
    ASSERT_GT(norm, 0.0) << parameter.name;
    // Along a random direction, which no entry escapes.
    EXPECT_NEAR(slope_along(vit.weight(id), direction.values, loss),
                dot(gradient, direction.values), 1e-6 * norm)
        << parameter.name;
  }
}

TEST_P(VisionTransformers, RecomputationGivesTheSameBits) {
  ImageRows images = rows(true);
  SmallVit<double> vit = make();
  vit.zero_gradients();
  const std::vector<double> sums = vit.train(images);
  for (const Recompute recompute : {Recompute::norms_and_activations, Recompute::block}) {
    SmallVit<double> again = make(recompute);
    again.zero_gradients();
    EXPECT_EQ(again.train(images), sums);
    EXPECT_TRUE(
        std::equal(vit.gradients().begin(), vit.gradients().end(), again.gradients().begin()));
  }
}

TEST_P(VisionTransformers, EvaluateWithoutWhatTrainingAloneDoes) {
  ImageRows images = rows(false);
  SmallVit<double> vit = make();
  const Buffer<double> logits = vit.logits(images);
  const std::vector<double> sums = vit.evaluate(images);
  double nll = 0.0;
  for (int64_t row = 0; row < batch; ++row) {
    const double* x = &logits.values[static_cast<size_t>(row * 6)];
    double z = 0.0;
    for (int j = 0; j < 6; ++j) z += std::exp(x[j]);
    nll += std::log(z) - x[images.labels[row]];
  }
  EXPECT_NEAR(sums[class_sum_nll], nll, 1e-12 * nll);
  EXPECT_EQ(sums[class_sum_count], batch);
  if (GetParam().dropout == 0.0 && GetParam().stochastic_depth == 0.0) {
    EXPECT_NEAR(vit.train(images)[class_sum_nll], nll, 1e-12 * nll);
  }
}

INSTANTIATE_TEST_SUITE_P(, VisionTransformers, ::testing::ValuesIn(all_models()),
                         [](const auto& info) { return describe(info.param); });

TEST(VisionTransformer, LeavesAFrozenPatchEmbeddingAsItIs) {
  ModelConfig model = all_models()[1];
  model.vision.frozen_patch_embedding = true;
  SmallVit<double> vit(model, normalisation(model), batch);
  RandomValues random(9);
  ImageRows images = random_images(random, model, batch, false);
  const std::vector<double> before(vit.weight(0).begin(), vit.weight(0).end());
  ASSERT_EQ(vit.table()[0].name, "patch_embedding.weight");
  OptimizerConfig config;
  config.weight_decay = 0.5;
  Optimizer optimizer(vit.parameters(), vit.ops(), config, model.width);
  for (int step = 0; step < 3; ++step) {
    optimizer.zero_gradients(vit.ops());
    vit.train(images);
    optimizer.set_rate(vit.ops(), 1.0);
    optimizer.step(vit.ops());
  }
  EXPECT_TRUE(std::equal(before.begin(), before.end(), vit.weight(0).begin()));
  // All else moves.
  SmallVit<double> fresh(model, normalisation(model), batch);
  for (ParameterId id = 2; id < vit.tensors(); ++id) {
    EXPECT_FALSE(std::equal(vit.weight(id).begin(), vit.weight(id).end(), fresh.weight(id).begin()))
        << vit.table()[id].name;
  }
}

// A half that is dropped gets no gradient. The rate rises from 0 to model.stochastic_depth.
TEST(VisionTransformer, DropsDeeperBlocksMoreOften) {
  ModelConfig model = all_models()[1];
  model.layers = 3;
  model.stochastic_depth = 0.6;
  model.dropout = 0.0;
  const OneThread one_thread;  // tiny layers
  constexpr int draws = 200;
  std::vector<int> dropped(3);
  for (uint64_t seed = 1; seed <= draws; ++seed) {
    SmallVit<float> vit(model, normalisation(model), 1, seed);
    RandomValues random(11);
    ImageRows image = random_images(random, model, 1, false);
    vit.zero_gradients();
    vit.train(image);
    for (ParameterId id = 0; id < vit.tensors(); ++id) {
      const std::string& name = vit.table()[id].name;
      if (!name.ends_with(".mlp.down.weight")) continue;
      const std::vector<double> gradient = vit.gradient_values(id);
      dropped[static_cast<size_t>(name.at(std::string("layers.").size()) - '0')] +=
          std::all_of(gradient.begin(), gradient.end(), [](double x) { return x == 0.0; });
    }
  }
  EXPECT_EQ(dropped[0], 0);
  // Six standard deviations of as many coins.
  EXPECT_NEAR(dropped[1], 0.3 * draws, 6.0 * std::sqrt(0.3 * 0.7 * draws));
  EXPECT_NEAR(dropped[2], 0.6 * draws, 6.0 * std::sqrt(0.6 * 0.4 * draws));
}

// The gradient of a batch is the mean of its images': nothing couples them.
TEST(VisionTransformer, ImagesOfABatchAreIndependent) {
  ModelConfig model = all_models()[1];
  model.dropout = model.stochastic_depth = 0.0;
  SmallVit<double> whole(model, normalisation(model), batch),
      single(model, normalisation(model), 1);
  RandomValues random(10);
  ImageRows images = random_images(random, model, batch, true);
  whole.zero_gradients(), single.zero_gradients();
  whole.train(images);
  for (int64_t row = 0; row < batch; ++row) {
    ImageRows one = random_images(random, model, 1, true);
    const int64_t bytes = one.images.size(), classes = model.vision.classes;
    std::copy_n(&images.images[row * bytes], bytes, &one.images[0]);
    std::copy_n(&images.targets[row * classes], classes, &one.targets[0]);
    one.labels[0] = images.labels[row];
    single.train(one);
  }
  for (size_t i = 0; i < whole.gradients().size(); ++i)
    ASSERT_NEAR(single.gradients()[i] / batch, whole.gradients()[i], 1e-13);
}

}  // namespace
}  // namespace sigtrain
