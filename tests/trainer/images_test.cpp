// Classification of images by the trainer, as a user sees it: training, resuming, judging a
// checkpoint, and what it says of bad data.
#include "small_image_run.h"

namespace sigtrain {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class ImageRun : public SmallRun {
 protected:
  ImageRun() { write_small_images(folder()); }
  std::string a_training_image() const { return (folder() / "images/train/class0/0.jpg").string(); }
};

TEST_F(ImageRun, TrainsJudgesAndRecordsWhatItDid) {
  train_well({});
  const auto lines = metrics("small", true);
  ASSERT_EQ(lines.size(), 14u);
  EXPECT_EQ(lines[0]["images"], 8);
  EXPECT_GT(lines[0]["images_per_second"], 0.0);
  EXPECT_TRUE(lines[0].contains("objective"));
  const auto& last = lines.back();
  EXPECT_EQ(last["split"], "validation");
  EXPECT_EQ(last["targets"], 6);
  EXPECT_EQ(last["top5"], 1.0);  // of three classes
  for (const char* key : {"loss", "accuracy", "loss_ema", "accuracy_ema", "top5_ema"})
    EXPECT_TRUE(last.contains(key)) << key;
  // The resolved config says what was left to the data, and runs again.
  const std::string resolved = slurp(runs("small") / "config.yaml");
  EXPECT_THAT(resolved, AllOf(HasSubstr("classes: 3"), HasSubstr("seq_len: 5")));
  const ProcessResult again =
      run("trainer", {"--config", "runs/small/config.yaml", "--set", "run.dir=runs/again"});
  EXPECT_EQ(again.exit_code, 0) << again.output();
  expect_same_run("small", "again", 12);

  const ProcessResult judged = train({"--eval-only"});
  EXPECT_EQ(judged.exit_code, 0) << judged.output();
  EXPECT_THAT(judged.output(), AllOf(HasSubstr("accuracy"), HasSubstr("top-5 1.0000"),
                                     HasSubstr("averaged weights"), Not(HasSubstr("perplexity"))));
}

TEST_F(ImageRun, TrainsOnSyntheticImages) {
  train_well({"--set", "data.source=synthetic", "data.train=[]", "data.validation=[]",
              "model.vision.classes=3", "eval.every=0", "train.steps=3"});
  EXPECT_EQ(metrics("small").back()["step"], 3);
}

TEST_F(ImageRun, GivesTheSameBitsForAnyNumberOfThreads) {
  train_well({});
  train_well({"--set", "run.dir=runs/more", "data.workers=5", "data.prefetch=1"}, 3);
  expect_same_run("small", "more", 12);
}

TEST_F(ImageRun, ResumesToTheSameBits) {
  train_well({"--set", "run.dir=runs/whole"});
  train_well({"--set", "train.steps=12"});
  fs::remove_all(checkpoint("small", 12));
  train_well({"--resume", "auto"});
  expect_same_run("whole", "small", 12);
}

TEST_F(ImageRun, LearnsWhatAClassIs) {
  train_well({"--set", "train.steps=150", "model.dropout=0", "model.stochastic_depth=0",
              "augment.mixup=0", "augment.cutmix=0", "augment.randaugment_ops=0",
              "augment.erasing=0", "eval.every=0"});
  EXPECT_EQ(metrics("small").back()["accuracy"], 1.0);
}

TEST_F(ImageRun, LeavesDamagedImagesOutAndSaysSo) {
  const std::string bytes = slurp(a_training_image());
  spill(a_training_image(), bytes.substr(0, bytes.size() / 2));
  const ProcessResult stopped = train({});
  EXPECT_EQ(stopped.exit_code, 1);
  EXPECT_THAT(stopped.output(),
              AllOf(HasSubstr("left out: images/train/class0/0.jpg: "),
                    HasSubstr("1 of 24 images are damaged"), HasSubstr("data.image.max_damaged")));
  const ProcessResult result = train_well({"--set", "data.image.max_damaged=0.1"});
  EXPECT_THAT(result.output(), HasSubstr("class0/0.jpg: "));
  // One of the test images: it does not count.
  flip_byte(folder() / "images/test/class0/9.png");
  const ProcessResult judged =
      train_well({"--set", "data.image.max_damaged=0.2", "run.dir=runs/judged"});
  EXPECT_THAT(judged.output(), HasSubstr("left out: images/test/class0/9.png: "));
  EXPECT_EQ(metrics("judged").back()["targets"], 5);
}

// 24 images at 8 a step: by step 4 all were seen, the damaged one too.
TEST_F(ImageRun, RemembersDamagedImagesWhenResumed) {
  const std::string bytes = slurp(a_training_image());
  spill(a_training_image(), bytes.substr(0, bytes.size() / 2));
  const ProcessResult first = train_well({"--set", "data.image.max_damaged=0.05", "train.steps=4"});
  EXPECT_THAT(first.output(), HasSubstr("1 of 24 images so far"));
  const ProcessResult second =
      train_well({"--set", "data.image.max_damaged=0.05", "--resume", "auto"});
  EXPECT_THAT(second.output(), Not(HasSubstr("left out")));
  // The first one counts still: a second is too many.
  const std::string another = (folder() / "images/train/class0/6.jpg").string();
  spill(another, slurp(another).substr(0, bytes.size() / 2));
  const ProcessResult third =
      train({"--set", "data.image.max_damaged=0.05", "train.steps=16", "--resume", "auto"});
  EXPECT_EQ(third.exit_code, 1);
  EXPECT_THAT(third.output(), HasSubstr("2 of 24 images are damaged"));
}

TEST_F(ImageRun, SaysWhatIsWrongWithTheData) {
  const auto error = [&](const std::vector<std::string>& settings) {
    const ProcessResult result = train(std::vector<std::string>{"--set"} + settings);
    EXPECT_NE(result.exit_code, 0);
    return result.output();
  };
  EXPECT_THAT(error({"model.vision.classes=10"}), HasSubstr("has 3 classes, the model 10"));
  EXPECT_THAT(error({"data.train=[images/none]"}),
              HasSubstr("data.train: images/none does not exist"));
  EXPECT_THAT(error({"augment.crop=none"}),
              AllOf(HasSubstr("images/train/class"), HasSubstr("the model takes 8 x 8")));
  EXPECT_THAT(error({"data.image.eval_resize=0"}),
              AllOf(HasSubstr("images/test/class"), HasSubstr("set data.image.eval_resize")));
  EXPECT_THAT(error({"data.source=cifar10"}), HasSubstr("images/train"));
  fs::create_directories(folder() / "images/test/class1b");
  EXPECT_THAT(error({"train.steps=12"}), HasSubstr("class1b: the class has no images"));
  spill(folder() / "images/test/class1b/x.png", png_of(smooth_image(12, 12, 3)));
  EXPECT_THAT(error({"model.vision.classes=0"}), HasSubstr("model 3"));
  fs::rename(folder() / "images/test/class1b/x.png", folder() / "images/test/x.png");
  fs::remove_all(folder() / "images/test/class1b");
  fs::rename(folder() / "images/test/class1", folder() / "images/test/class7");
  EXPECT_THAT(error({"train.steps=12"}),
              HasSubstr("data.validation has other classes than data.train"));
}

TEST_F(ImageRun, SaysThatAClassIsNeverSeen) {
  const std::string images = (folder() / "t-images-idx3-ubyte").string();
  spill(images, idx_of({16, 8, 8}, std::vector<uint8_t>(16 * 64, 9)));
  spill(folder() / "t-labels-idx1-ubyte",
        idx_of({16}, {0, 2, 0, 2, 0, 2, 0, 2, 0, 2, 0, 2, 0, 2, 0, 2}));
  const ProcessResult result =
      train({"--set", "data.source=idx", "data.train=[" + images + "]", "data.validation=[]",
             "eval.every=0", "model.vision.channels=1", "data.image.mean=[0.5]",
             "data.image.stddev=[0.5]", "augment.randaugment_ops=0"});
  EXPECT_NE(result.exit_code, 0);
  EXPECT_THAT(result.output(), HasSubstr("no image of 1 of its 3 classes, such as class 1"));
}

TEST_F(ImageRun, WarnsWhenARunGoesOnWithOtherImages) {
  train_well({"--set", "train.steps=4"});
  fs::remove(a_training_image());
  const ProcessResult result = train_well({"--resume", "auto"});
  EXPECT_THAT(result.output(), HasSubstr("it goes on at other samples"));
}

// Images are mixed within their micro-batch, so that another one makes other samples; unmixed ones
// are the same.
TEST_F(ImageRun, WarnsWhenARunGoesOnWithAnotherMicroBatch) {
  const std::vector<std::string> unmixed{"--set", "augment.mixup=0", "augment.cutmix=0"};
  for (const bool mixes : {true, false}) {
    std::vector<std::string> first{"--set", "train.steps=4"};
    std::vector<std::string> second{"--resume", "auto", "--set", "train.micro_batch=8"};
    if (!mixes) {
      first.insert(first.end(), unmixed.begin(), unmixed.end());
      second.insert(second.end(), unmixed.begin(), unmixed.end());
      fs::remove_all(runs("small"));
    }
    EXPECT_THAT(train_well(first).output(), Not(HasSubstr("other samples")));
    const std::string output = train_well(second).output();
    const std::string warning = "trained with micro_batch 4, this run has 8: it goes on at other";
    if (mixes) {
      EXPECT_THAT(output, HasSubstr(warning));
    } else {
      EXPECT_THAT(output, Not(HasSubstr("other samples")));
    }
  }
}

TEST_F(ImageRun, GenerateRefusesAClassifier) {
  train_well({"--set", "train.steps=4"});
  const ProcessResult result = run("generate", {"runs/small", "--prompt", "x"});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.output(), HasSubstr("no language model but one for image_classification"));
}

TEST_F(ImageRun, DryRunNeedsNoImages) {
  fs::remove_all(folder() / "images");
  const ProcessResult result = train({"--dry-run", "--set", "model.vision.classes=3"});
  EXPECT_EQ(result.exit_code, 0) << result.output();
  EXPECT_THAT(result.output(), AllOf(HasSubstr("patch_embedding.weight"), HasSubstr("class_token"),
                                     HasSubstr("FLOPs an image")));
}

}  // namespace
}  // namespace sigtrain
