#!/usr/bin/env bash
# Trains a sigmoid and a softmax language model on real text on the CPU, and compares them.
# usage: scripts/quickstart.sh [--text FILE]     (any UTF-8 text; default: the King James Bible of Debian's bible-kjv)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/common.sh
source scripts/common.sh

text=""
while [ $# -gt 0 ]; do
  case "$1" in
    --text)
      [ $# -ge 2 ] || fail "--text needs a file"
      text=$(realpath -e -- "$2" 2>/dev/null) || fail "--text $2: no such file"
      shift 2 ;;
    -h | --help) sed -n '2,3s/^# //p' "$0"; exit 0 ;;
    *) fail "unknown argument '$1'; usage: scripts/quickstart.sh [--text FILE]" ;;
  esac
done

packages=("${build_packages[@]}" python3 python3-matplotlib python3-numpy)
[ -n "$text" ] || packages+=(bible-kjv)
install_packages "${packages[@]}"

say "Building"
build trainer tokenize generate

say "Preparing the text"
if [ -z "$text" ]; then
  text=data/tiny/kjv.txt
  scripts/prepare_kjv.sh "$text"
fi
# The shards are made anew only when the text or the tokenizer's size changed.
stamp="$(sha256sum <"$text" | cut -d' ' -f1) bpe2048 v1"
if [ "$(cat data/tiny/stamp 2>/dev/null)" != "$stamp" ]; then
  rm -rf data/tiny/train data/tiny/validation data/tiny/stamp
  build/tokenize "$text" --output data/tiny --train-bpe 2048 --validation-fraction 0.05
  printf '%s\n' "$stamp" >data/tiny/stamp
fi

for kind in sigmoid softmax; do
  say "Training with $kind attention"
  build/trainer --config "configs/lm_tiny_$kind.yaml" --device cpu
done

say "Two models after the same $(sed -n 's/^ *steps: *//p' runs/lm_tiny_sigmoid/config.yaml) steps"
for kind in sigmoid softmax; do
  printf '\n%s attention: validation loss %s\n' "$kind" "$(python3 tools/compare.py --final-loss "runs/lm_tiny_$kind")"
  build/generate "runs/lm_tiny_$kind" --prompt "And it came to pass" --tokens 120 --seed 7
done
printf '\n'
python3 tools/compare.py runs/lm_tiny_sigmoid runs/lm_tiny_softmax --output runs/comparison
