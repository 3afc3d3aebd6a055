# shellcheck shell=bash
# Sourced by the scripts that train a sigmoid model and its softmax twin on a GPU and compare them.

# train_pair CONFIGS RUNS COMPARISON ARGUMENT...: trains configs/CONFIGS_{sigmoid,softmax}.yaml with the KEY=VALUEs of the array `settings`
# as runs RUNS_{sigmoid,softmax}, then compares both into runs/COMPARISON. ARGUMENTs: the kinds, by default both, and --set KEY=VALUE.
train_pair() {
  local configs=$1 names=$2 comparison=$3 setting kind started
  local kinds=() arguments=()
  shift 3
  # shellcheck disable=SC2154  # the caller sets it
  for setting in "${settings[@]}"; do arguments+=(--set "$setting"); done
  while [ $# -gt 0 ]; do
    case "$1" in
      sigmoid | softmax) kinds+=("$1"); shift ;;
      --set)
        [ $# -ge 2 ] || { echo "error: --set needs KEY=VALUE" >&2; exit 2; }
        arguments+=(--set "$2"); shift 2 ;;
      -h | --help) sed -n '2,4s/^# //p' "scripts/${0##*/}"; exit 0 ;;
      *) echo "error: unknown argument '$1'; see --help" >&2; exit 2 ;;
    esac
  done
  [ ${#kinds[@]} -gt 0 ] || kinds=(sigmoid softmax)
  for kind in "${kinds[@]}"; do
    started=$SECONDS
    "${TRAINER:-build/trainer}" --config "configs/${configs}_$kind.yaml" --device cuda --set "run.name=${names}_$kind" "${arguments[@]}"
    echo "$kind: $((SECONDS - started)) s"
  done
  if [ ${#kinds[@]} -gt 1 ]; then
    /usr/bin/python3 tools/compare.py "runs/${names}_sigmoid" "runs/${names}_softmax" --output "runs/$comparison"
  fi
}
