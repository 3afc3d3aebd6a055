#!/usr/bin/env bash
# Trains asr_prompts_sigmoid and asr_prompts_softmax on a GPU until they recognise the test prompts best (data/prompts:
# scripts/prepare_prompts.sh), and compares them. What is set here is the same for both.
# usage: scripts/train_prompts_pair.sh [sigmoid] [softmax] [--set KEY=VALUE]...     (default: both)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/train_pair.sh
source scripts/train_pair.sh

settings=(
  # 22 minutes of speech are heard some 200 times: no two times the same.
  train.steps=14000
  model.dropout=0.2
  model.layer_drop=0.1
  augment.speech.speed=0.1
  augment.speech.frequency_masks=2
  augment.speech.frequency_width=8   # of 40
  augment.speech.time_masks=4
  augment.speech.time_width=30
  augment.speech.time_share=0.1
  optimizer.ema_decay=0.999
  schedule.warmup_steps=1000
  eval.every=500
  log.every=100
  checkpoint.every=0                 # at the end alone
)
train_pair asr_prompts asr_prompts_gpu comparison_prompts "$@"
