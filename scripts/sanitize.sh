#!/usr/bin/env bash
# Runs compute-sanitizer's memcheck, racecheck and initcheck over the GPU tests of operations; fails on any finding. Needs a GPU.
# usage: scripts/sanitize.sh [--tool NAME]... [GTEST_FILTER]     (default: every operation at its small and odd sizes, some minutes)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/common.sh
source scripts/common.sh

tools=()
while [ $# -gt 0 ]; do
  case "$1" in
    -h | --help) sed -n '2,3s/^# //p' "$0"; exit 0 ;;
    --tool)
      case "${2:-}" in
        memcheck | initcheck | racecheck) tools+=("$2"); shift 2 ;;
        *) fail "--tool needs memcheck, initcheck or racecheck" ;;
      esac ;;
    *) break ;;
  esac
done
[ ${#tools[@]} -gt 0 ] || tools=(memcheck initcheck racecheck)
# Left out: whole models and runs, large sizes, and the test whose allocation is meant to fail.
filter="${1:-GpuTest.*:Gpu*/Gpu*:Cases/*:Shapes/*:Counts/*:-GpuModels*:*/GpuModels*:GpuTraining*:*AllocationSaysWhatWasAskedFor:*UploadsKeepWhatTheHostHadAtTheCall}"

sanitizer=$(command -v compute-sanitizer || true)
for folder in "${CUDA_HOME:-/usr/local/cuda}/bin" "${CUDA_HOME:-/usr/local/cuda}/compute-sanitizer"; do
  [ -n "$sanitizer" ] || [ ! -x "$folder/compute-sanitizer" ] || sanitizer="$folder/compute-sanitizer"
done
[ -n "$sanitizer" ] || fail "compute-sanitizer was not found; it comes with the CUDA toolkit: put it on PATH or set CUDA_HOME"
nvidia-smi -L >/dev/null 2>&1 || fail "there is no GPU to run on"

[ -x build/test_gpu ] || build test_gpu
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
# The tools use one core a process, and slow a test down by a hundred times: each shard of the tests is a process.
shards=${SHARDS:-$(($(nproc) < 8 ? $(nproc) : 8))}
# check TOOL: the tests must pass, the tool must have looked at something, and found nothing but in kernels named $allowed.
check() {
  local tool=$1 allowed="" shard log
  # cuBLASLt's kernels move data by means that these two do not see, and are not ours to mend. racecheck does not see either that all lanes
  # of a warp, behind __syncwarp, have read or written before one of them says so at an mbarrier: it reports the other 31. That is how the
  # statistics of the softmax backward pass on Hopper are given back, and how slopes pass between the warps of its wide heads.
  case "$tool" in
    initcheck) allowed="(void )?(nvjet|cublasLt::)" ;;
    racecheck) allowed="(void )?(nvjet|cublasLt::|sigtrain::kernels::attention_sm90_(backward_kernel<sigtrain::kernels::SoftmaxGradientSm90,|wide_keys_kernel<))" ;;
  esac
  say "$tool"
  for ((shard = 0; shard < shards; ++shard)); do
    GTEST_TOTAL_SHARDS=$shards GTEST_SHARD_INDEX=$shard "$sanitizer" --tool "$tool" --print-limit 100000 \
      build/test_gpu --gtest_filter="$filter" >"$logs/$tool.$shard" 2>&1 &
  done
  wait
  for log in "$logs/$tool".*; do
    grep -E '(ERROR|RACECHECK) SUMMARY' "$log" || fail "$tool did not finish: $(tail -n 3 "$log")"
    grep -Eq '\[  PASSED  \] [1-9][0-9]* test' "$log" || fail "$tool: no test ran: $(tail -n 3 "$log")"
    if grep -E '^\[  (FAILED|SKIPPED) ' "$log"; then fail "$tool: tests failed or were skipped"; fi
    [ -n "$allowed" ] || grep -q 'SUMMARY: 0 ' "$log" || fail "$tool has findings: $(grep -m 20 '^=========' "$log")"
    # A finding names its kernel on its own line (racecheck) or on the next one.
    local findings
    findings=$(grep -A 1 -E '^========= +(Error:|Warning:|Invalid|Uninitialized|Program hit)' "$log" \
      | grep -E ' at ' | grep -vE " at ${allowed:-no such kernel}" || true)
    [ -z "$findings" ] || fail "$tool has findings: $(head -n 20 <<<"$findings")"
  done
}

for tool in "${tools[@]}"; do check "$tool"; done
say "found nothing: ${tools[*]}"
