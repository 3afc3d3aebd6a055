#!/usr/bin/env bash
# Trains asr_prompts_sigmoid and asr_prompts_softmax on a GPU until they recognise the test prompts best (data/prompts:
# scripts/prepare_prompts.sh), and compares them. What is set here is the same for both.
# usage: scripts/train_prompts_pair.sh [sigmoid] [softmax] [--set KEY=VALUE]...     (default: both)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

kinds=() more=()
while [ $# -gt 0 ]; do
  case "$1" in
    sigmoid | softmax) kinds+=("$1"); shift ;;
    --set)
      [ $# -ge 2 ] || { echo "error: --set needs KEY=VALUE" >&2; exit 2; }
      more+=(--set "$2"); shift 2 ;;
    -h | --help) sed -n '2,4s/^# //p' scripts/train_prompts_pair.sh; exit 0 ;;
    *) echo "error: unknown argument '$1'; see --help" >&2; exit 2 ;;
  esac
done
[ ${#kinds[@]} -gt 0 ] || kinds=(sigmoid softmax)

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
set_settings=()
for setting in "${settings[@]}"; do set_settings+=(--set "$setting"); done
for kind in "${kinds[@]}"; do
  started=$SECONDS
  "${TRAINER:-build/trainer}" --config "configs/asr_prompts_$kind.yaml" --device cuda --set "run.name=asr_prompts_gpu_$kind" \
    "${set_settings[@]}" "${more[@]}"
  echo "$kind: $((SECONDS - started)) s"
done
if [ ${#kinds[@]} -gt 1 ]; then
  /usr/bin/python3 tools/compare.py runs/asr_prompts_gpu_sigmoid runs/asr_prompts_gpu_softmax --output runs/comparison_prompts
fi
