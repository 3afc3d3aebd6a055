// --dry-run of every config: what it counts, and that it costs next to nothing.
#include <map>
#include <regex>

#include "config/derived.h"
#include "config/reader.h"
#include "small_run.h"

namespace sigtrain {
namespace {

constexpr const char* kConfigs = SIGTRAIN_SOURCE_DIR "/configs";

// SwiGLU, QK-norm, RMSNorm and no biases, tied embedding: what all the language models have. A
// hybrid block has four norms, a pre-norm block two.
struct Sizes {
  int64_t layers, width, heads, hidden, norms, vocab, seq_len;

  int64_t matrices() const { return layers * (4 * width * width + 3 * width * hidden); }
  int64_t parameters() const {
    return vocab * width + matrices() + layers * (norms * width + 2 * (width / heads)) + width;
  }
  // 6 for each weight that multiplies a token, the vocabulary's included; attention has two
  // products in forward and four in backward over (seq_len + 1) / 2 keys on average, of two FLOPs
  // for each of their `width` channels.
  double flops_a_token() const {
    return 6.0 * static_cast<double>(matrices() + vocab * width) +
           6.0 * static_cast<double>(layers * width * (seq_len + 1));
  }
};

struct Published {
  Sizes sizes;
  int64_t parameters;
};

const std::map<std::string, Published> kPublished = {
    {"lm_85m_sigmoid", {{12, 768, 12, 2048, 4, 32768, 4096}, 110'139'648}},
    {"lm_85m_softmax", {{12, 768, 12, 2048, 2, 32768, 4096}, 110'121'216}},
    {"lm_1b_sigmoid", {{24, 2048, 32, 5632, 4, 32768, 4096}, 1'300'435'968}},
    {"lm_1b_softmax", {{24, 2048, 32, 5632, 2, 32768, 4096}, 1'300'337'664}},
    {"lm_1b_softmax_alibi_hybridnorm", {{24, 2048, 32, 5632, 4, 32768, 4096}, 1'300'435'968}},
    {"lm_7b_sigmoid", {{32, 4096, 32, 11008, 4, 32768, 4096}, 6'610'759'680}},
    {"lm_7b_softmax", {{32, 4096, 32, 11008, 2, 32768, 4096}, 6'610'497'536}},
};

class DryRun : public SmallRun {
 protected:
  // A run of `config` that says what it must and leaves nothing behind.
  std::string dry_run(const fs::path& config, const std::vector<std::string>& more = {}) {
    const auto before = files();
    const ProcessResult result = run(
        "trainer", std::vector<std::string>{"--config", config.string(), "--dry-run"} + more, 2);
    EXPECT_EQ(result.exit_code, 0) << result.output();
    EXPECT_LT(result.cpu_seconds, 2.0);
    EXPECT_LT(result.peak_kib, 512 * 1024);  // the libraries alone take 220 MiB with cuBLASLt
    EXPECT_EQ(files(), before);
    for (const char* purpose : {"weights", "gradients", "optimizer moments", "workspace", "batches",
                                "activations kept for backward"}) {
      EXPECT_THAT(result.out, testing::HasSubstr(purpose));
    }
    return result.out;
  }

  static void expect_counts(const std::string& text, int64_t parameters, double flops) {
    std::smatch match;
    ASSERT_TRUE(std::regex_search(text, match, std::regex("\n  total +(\\d+)  \\("))) << text;
    EXPECT_EQ(std::stoll(match[1]), parameters);
    ASSERT_TRUE(std::regex_search(text, match, std::regex("FLOPs a token +([0-9.e+]+)"))) << text;
    EXPECT_NEAR(std::stod(match[1]), flops, 1e-3 * flops);
  }
};

TEST_F(DryRun, CountsThePublishedModels) {
  for (const auto& [name, published] : kPublished) {
    SCOPED_TRACE(name);
    EXPECT_EQ(published.sizes.parameters(), published.parameters);
    const std::string text = dry_run(fs::path(kConfigs) / (name + ".yaml"));
    expect_counts(text, published.parameters, published.sizes.flops_a_token());
  }
}

TEST_F(DryRun, CountsTheSmallModels) {
  for (const std::string name : {"lm_tiny_sigmoid", "lm_tiny_softmax"}) {
    SCOPED_TRACE(name);
    const fs::path path = fs::path(kConfigs) / (name + ".yaml");
    const ModelConfig model = read_config(path, {"model.vocab_size=8000"}).model;
    const Sizes sizes{model.layers,
                      model.width,
                      model.heads,
                      mlp_hidden(model),
                      model.norm.structure == NormStructure::hybrid ? 4 : 2,
                      8000,
                      model.seq_len};
    expect_counts(dry_run(path, {"--set", "model.vocab_size=8000"}), sizes.parameters(),
                  sizes.flops_a_token());
  }
}

TEST_F(DryRun, LeavesOutNoConfig) {
  for (const auto& entry : fs::directory_iterator(kConfigs)) {
    const std::string name = entry.path().stem();
    if (name.starts_with("lm_") && !name.starts_with("lm_tiny_")) {
      EXPECT_TRUE(kPublished.contains(name)) << name << " is in no test of this file";
    }
  }
}

// Weights, gradients, moments and batches are the same on both; activations are bf16 on the GPU,
// half of the CPU's fp32.
TEST_F(DryRun, PlansForTheDeviceThatIsAskedFor) {
  const fs::path config = fs::path(kConfigs) / "lm_85m_sigmoid.yaml";
  const std::string cpu = dry_run(config, {"--device", "cpu"});
  EXPECT_THAT(cpu, testing::StartsWith("device\n  cpu, f32\n"));
  const std::string cuda = dry_run(config, {"--device", "cuda"});
  EXPECT_THAT(cuda, testing::StartsWith("device\n  cuda, bf16"));
  const auto line = [](const std::string& text, const std::string& purpose) {
    std::smatch match;
    EXPECT_TRUE(std::regex_search(text, match, std::regex("\n  " + purpose + " +(.*)\n"))) << text;
    return match[1].str();
  };
  const auto gib = [&](const std::string& text, const std::string& purpose) {
    const std::string value = line(text, purpose);
    EXPECT_THAT(value, testing::EndsWith(" GiB"));
    return std::stod(value);
  };
  for (const char* same : {"weights", "gradients", "optimizer moments", "batches"})
    EXPECT_EQ(line(cuda, same), line(cpu, same));
  EXPECT_THAT(cuda, testing::HasSubstr("weights in compute precision"));
  EXPECT_NEAR(
      gib(cuda, "activations kept for backward") / gib(cpu, "activations kept for backward"), 0.5,
      0.01);
  if (fs::exists("/dev/nvidiactl")) return;
  EXPECT_THAT(cuda, testing::HasSubstr("cuda, bf16, which is not here"));
  EXPECT_EQ(line(cuda, "workspace"),
            "left out  (its size goes by the device; the total is without it)");
}

TEST_F(DryRun, TakesTheVocabularyOfTheShards) {
  const std::string text = dry_run("small.yaml");
  EXPECT_THAT(text, testing::HasSubstr("[257, 32]"));
  EXPECT_THAT(text, testing::HasSubstr("averaged weights"));
}

// Untied, grouped heads, biases and LayerNorm, counted by hand: 50 * 24 for each of embedding and
// head; a block has qkv 24 * (24 + 2 * 8) + 40, out 24 * 24 + 24, MLP 24 * 40 + 40 + 40 * 24 + 24,
// two norms of 48; the last norm 48; learned positions 16 * 24; a learned bias for each of 6 heads.
TEST_F(DryRun, CountsEveryOtherKindOfParameter) {
  spill(folder() / "other.yaml", R"(run: {name: other}
model:
  seq_len: 16
  vocab_size: 50
  layers: 3
  width: 24
  heads: 6
  kv_heads: 2
  attention: {kind: sigmoid, learned_bias: true, window: 5}
  norm: {kind: layernorm}
  position: {kind: learned}
  mlp: {kind: gelu, hidden: 40}
  linear_bias: true
  tied_embedding: false
data: {source: synthetic}
)");
  const int64_t block = 24 * 40 + 40 + 24 * 24 + 24 + 24 * 40 + 40 + 40 * 24 + 24 + 2 * 48 + 6;
  // A query sees up to 5 keys: 1 + 2 + 3 + 4 + 12 * 5 pairs of 16 queries.
  const double flops = 6.0 * (50 * 24 + 3 * (24 * 40 + 24 * 24 + 2 * 24 * 40)) +
                       12.0 * 3 * 24 * (1 + 2 + 3 + 4 + 12 * 5) / 16.0;
  expect_counts(dry_run("other.yaml"), 2 * 50 * 24 + 16 * 24 + 3 * block + 48, flops);
}

}  // namespace
}  // namespace sigtrain
