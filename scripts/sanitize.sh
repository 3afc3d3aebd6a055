#!/usr/bin/env bash
# Runs compute-sanitizer's memcheck, racecheck and initcheck over the GPU tests of operations; fails on any finding. Needs a GPU.
# usage: scripts/sanitize.sh [GTEST_FILTER]     (default: every operation at its small and odd sizes, some minutes)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/common.sh
source scripts/common.sh

case "${1:-}" in
  -h | --help) sed -n '2,3s/^# //p' "$0"; exit 0 ;;
esac
# Left out: whole models and runs, large sizes, and the test whose allocation is meant to fail.
filter="${1:-GpuTest.*:Gpu*/Gpu*:Cases/*:Shapes/*:Counts/*:-GpuModels*:*/GpuModels*:GpuTraining*:*AllocationSaysWhatWasAskedFor:*UploadsKeepWhatTheHostHadAtTheCall}"

sanitizer=$(command -v compute-sanitizer || true)
for folder in "${CUDA_HOME:-/usr/local/cuda}/bin" "${CUDA_HOME:-/usr/local/cuda}/compute-sanitizer"; do
  [ -n "$sanitizer" ] || [ ! -x "$folder/compute-sanitizer" ] || sanitizer="$folder/compute-sanitizer"
done
[ -n "$sanitizer" ] || fail "compute-sanitizer was not found; it comes with the CUDA toolkit: put it on PATH or set CUDA_HOME"
nvidia-smi -L >/dev/null 2>&1 || fail "there is no GPU to run on"

[ -x build/test_gpu ] || build test_gpu
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# check TOOL OPTION...: both the tests and the tool must be content, and the tool must have looked at something.
check() {
  local tool=$1
  shift
  say "$tool"
  if ! "$sanitizer" --tool "$tool" --error-exitcode 99 "$@" build/test_gpu --gtest_brief=1 --gtest_filter="$filter" >"$log" 2>&1; then
    tail -n 200 "$log" >&2
    fail "$tool: findings, or failed tests; see above"
  fi
  grep -Eq '\[  PASSED  \] [1-9][0-9]* test' "$log" || fail "$tool: no test ran: $(tail -n 3 "$log")"
  grep -E '(ERROR|RACECHECK) SUMMARY' "$log"
  grep -Eq 'ERROR SUMMARY: 0 errors|RACECHECK SUMMARY: 0 hazards' "$log" || fail "$tool has findings"
  if grep -E '^\[  SKIPPED \] [1-9]' "$log"; then fail "$tool: tests were skipped"; fi
}

check memcheck
# The other two follow every access: cuBLASLt's kernels would take most of the time, and are not ours.
check racecheck --kernel-name kns=sigtrain
check initcheck --kernel-name kns=sigtrain
say "memcheck, racecheck and initcheck found nothing"
