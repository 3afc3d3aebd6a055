#include "config/derived.h"

#include <gtest/gtest.h>

#include <cmath>

namespace sigtrain {
namespace {

TEST(Derived, Heads) {
  ModelConfig model;
  model.width = 2048;
  model.heads = 32;
  EXPECT_EQ(kv_heads(model), 32);
  EXPECT_EQ(head_dim(model), 64);
  model.kv_heads = 8;
  model.head_dim = 192;
  EXPECT_EQ(kv_heads(model), 8);
  EXPECT_EQ(head_dim(model), 192);
}

TEST(Derived, MlpHidden) {
  ModelConfig model;
  const auto hidden = [&](MlpKind kind, int64_t width) {
    model.mlp.kind = kind;
    model.width = width;
    return mlp_hidden(model);
  };
  EXPECT_EQ(hidden(MlpKind::swiglu, 768), 2048);
  EXPECT_EQ(hidden(MlpKind::swiglu, 2048), 5632);
  EXPECT_EQ(hidden(MlpKind::swiglu, 4096), 11008);
  EXPECT_EQ(hidden(MlpKind::swiglu, 1), 256);
  EXPECT_EQ(hidden(MlpKind::swiglu, 97), 512);  // 258.67
  EXPECT_EQ(hidden(MlpKind::gelu, 768), 3072);
  EXPECT_EQ(hidden(MlpKind::relu2, 100), 512);
  model.mlp.hidden = 100;
  EXPECT_EQ(mlp_hidden(model), 100);
}

TEST(Derived, AttentionLogits) {
  ModelConfig model;
  model.seq_len = 4096;
  model.width = 1024;
  model.heads = 4;
  model.attention.bias.value = -3.5;
  EXPECT_EQ(attention_bias(model), -3.5);
  model.attention.bias.minus_log_seq_len = true;
  EXPECT_DOUBLE_EQ(attention_bias(model), -12.0 * std::log(2.0));
  EXPECT_EQ(attention_scale(model), 1.0 / 16.0);
  model.attention.scale = 0.3;
  EXPECT_EQ(attention_scale(model), 0.3);
}

TEST(Derived, RunDir) {
  EXPECT_EQ(run_dir({.name = "a", .dir = ""}), "runs/a");
  EXPECT_EQ(run_dir({.name = "a", .dir = "/b/c"}), "/b/c");
}

}  // namespace
}  // namespace sigtrain
