#!/usr/bin/env bash
# Installs Debian's recorded telephone prompts (25 minutes of speech, CC-BY-SA-3.0) and writes manifests of them.
# usage: scripts/prepare_prompts.sh [FOLDER]     (default: data/prompts; writes train.tsv and test.tsv there)
set -euo pipefail
called_from=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/common.sh
source scripts/common.sh
case "${1:-}" in
  -h | --help) sed -n '2,3s/^# //p' "$0"; exit 0 ;;
esac
folder=data/prompts
[ $# -eq 0 ] || folder=$(cd "$called_from" && realpath -m -- "$1")
install_packages asterisk-core-sounds-en-wav asterisk-core-sounds-en python3
/usr/bin/python3 scripts/make_manifest.py /usr/share/asterisk/sounds/en_US_f_Allison "$folder" \
  --transcripts /usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz
