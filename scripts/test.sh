#!/usr/bin/env bash
# Installs what is missing, builds everything, and runs every test that this machine can run.
# usage: scripts/test.sh [--long]     (with whole experiments, minutes each)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/common.sh
source scripts/common.sh

left_out=long
case "${1:-}" in
  "") ;;
  --long) left_out="" ;;
  -h | --help) sed -n '2,3s/^# //p' scripts/test.sh; exit 0 ;;
  *) fail "unknown argument '$1'; usage: scripts/test.sh [--long]" ;;
esac

install_packages "${build_packages[@]}" libgtest-dev libgmock-dev clang-format-14 git python3 python3-numpy python3-matplotlib python3-yaml python3-sklearn shellcheck \
  asterisk-core-sounds-en-wav asterisk-core-sounds-en

say "Checking the format"
# Releases of clang-format differ in what they write: this one is packaged for Debian 12 and Ubuntu 24.04 alike.
git -c safe.directory='*' ls-files '*.h' '*.cpp' '*.cu' '*.cuh' | xargs clang-format-14 --dry-run --Werror || fail "unformatted code: run clang-format-14 -i on the files above"
shellcheck --severity=warning --external-sources scripts/*.sh scripts/*.sbatch .ci/run || fail "shellcheck found problems in the scripts above"

say "Building"
build

say "Testing"
if ! { command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1; }; then
  say "No GPU was found: the tests labelled gpu are skipped"
  left_out+="${left_out:+|}gpu"
fi
ctest --test-dir build --output-on-failure --parallel "$(nproc)" ${left_out:+--label-exclude "^($left_out)$"}
