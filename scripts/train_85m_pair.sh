#!/usr/bin/env bash
# Trains lm_85m_sigmoid and lm_85m_softmax on 150M tokens of data/lm (scripts/prepare_english_and_code.sh), which takes about
# 6 minutes each on an H100, and compares them. What is set here is the same for both.
# usage: scripts/train_85m_pair.sh [sigmoid] [softmax] [--set KEY=VALUE]...     (default: both)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

kinds=() more=()
while [ $# -gt 0 ]; do
  case "$1" in
    sigmoid | softmax) kinds+=("$1"); shift ;;
    --set)
      [ $# -ge 2 ] || { echo "error: --set needs KEY=VALUE" >&2; exit 2; }
      more+=(--set "$2"); shift 2 ;;
    -h | --help) sed -n '2,4s/^# //p' scripts/train_85m_pair.sh; exit 0 ;;
    *) echo "error: unknown argument '$1'; see --help" >&2; exit 2 ;;
  esac
done
[ ${#kinds[@]} -gt 0 ] || kinds=(sigmoid softmax)

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
set_settings=()
for setting in "${settings[@]}"; do set_settings+=(--set "$setting"); done
for kind in "${kinds[@]}"; do
  started=$SECONDS
  "${TRAINER:-build/trainer}" --config "configs/lm_85m_$kind.yaml" --device cuda "${set_settings[@]}" "${more[@]}"
  echo "$kind: $((SECONDS - started)) s"
done
if [ ${#kinds[@]} -gt 1 ]; then
  /usr/bin/python3 tools/compare.py runs/lm_85m_sigmoid runs/lm_85m_softmax --output runs/comparison_85m
fi
