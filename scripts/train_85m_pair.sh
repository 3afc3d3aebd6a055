#!/usr/bin/env bash
# Trains lm_85m_sigmoid and lm_85m_softmax on 150M tokens of data/lm (scripts/prepare_english_and_code.sh), which takes about
# 6 minutes each on an H100, and compares them. What is set here is the same for both.
# usage: scripts/train_85m_pair.sh [sigmoid] [softmax] [--set KEY=VALUE]...     (default: both)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/train_pair.sh
source scripts/train_pair.sh

settings=(
  train.global_batch=32           # 131,072 tokens a step; at the configs' 1M there would be 150 steps
  train.steps=1150                # 150.7M tokens
  schedule.warmup_steps=115       # a tenth
  optimizer.learning_rate=0.0035  # the configs' 0.01 times the root of the ratio of the batches, as is usual for Adam
  train.cuda_graph=true
  eval.every=100
  eval.sequences=64               # 262,144 tokens, always the same
  checkpoint.every=0              # at the end alone
)
train_pair lm_85m lm_85m comparison_85m "$@"
