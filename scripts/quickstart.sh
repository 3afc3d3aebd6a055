#!/usr/bin/env bash
# Trains a sigmoid and a softmax language model on real text on the CPU, and compares them.
# usage: scripts/quickstart.sh [--text FILE]     (any UTF-8 text; default: the King James Bible of Debian's bible-kjv)
set -euo pipefail
called_from=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/common.sh
source scripts/common.sh

text=""
while [ $# -gt 0 ]; do
  case "$1" in
    --text)
      [ $# -ge 2 ] || fail "--text needs a file"
      text=$(cd "$called_from" && realpath -e -- "$2" 2>/dev/null) || fail "--text $2: no such file"
      shift 2 ;;
    -h | --help) sed -n '2,3s/^# //p' scripts/quickstart.sh; exit 0 ;;
    *) fail "unknown argument '$1'; usage: scripts/quickstart.sh [--text FILE]" ;;
  esac
done

packages=("${build_packages[@]}" python3 python3-matplotlib python3-numpy python3-yaml)
[ -n "$text" ] || packages+=(bible-kjv)
install_packages "${packages[@]}"

say "Building"
build trainer tokenize generate

say "Preparing the text"
if [ -z "$text" ]; then
  text=data/tiny/kjv.txt
  scripts/prepare_kjv.sh "$text"
fi
# A byte-pair vocabulary needs some text to be learned from; less than this is taken byte by byte.
if [ "$(stat -c %s "$text")" -ge 500000 ]; then
  tokenizer=data/tiny/tokenizer.model
  tokenize=(--train-bpe 2048)
else
  tokenizer=bytes
  tokenize=(--tokenizer bytes)
fi
# The shards are made anew only when the text or the way to make them changed.
stamp="$(sha256sum <"$text" | cut -d' ' -f1) ${tokenize[*]}"
if [ "$(cat data/tiny/stamp 2>/dev/null)" != "$stamp" ]; then
  rm -f data/tiny/stamp
  build/tokenize "$text" --output data/tiny --overwrite --validation-fraction 0.05 "${tokenize[@]}"
  printf '%s\n' "$stamp" >data/tiny/stamp
fi

# Waiting threads that spin cost little on an idle machine and nearly everything on a busy one.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}
# The trainer ends in good order on Ctrl-C; without this the script would go on with the next step.
trap 'exit 130' INT
trap 'exit 143' TERM
for kind in sigmoid softmax; do
  say "Training with $kind attention"
  build/trainer --config "configs/lm_tiny_$kind.yaml" --device cpu --set data.tokenizer="$tokenizer"
done

say "What each has learned"
for kind in sigmoid softmax; do
  printf '\n%s attention: validation loss %s nats a token. It goes on from a prompt:\n\n' "$kind" \
    "$(sed -n 's/.*"split":"validation","loss":\([0-9.]*\).*/\1/p' "runs/lm_tiny_$kind/metrics.jsonl" | tail -n 1 | cut -c1-6)"
  build/generate "runs/lm_tiny_$kind" --prompt "And it came to pass" --tokens 120 --seed 7
done
printf '\n'
say "The two runs compared"
# The system's own python3: it is the one that apt gave matplotlib.
/usr/bin/python3 tools/compare.py runs/lm_tiny_sigmoid runs/lm_tiny_softmax --output runs/comparison
