#!/usr/bin/env bash
# Makes a corpus for the 85M models from what apt brings: English from dictionaries, books and documentation, code from the
# Linux kernel. Writes data/lm (token shards and a vocabulary of 32,768); nothing is installed but bible-kjv.
# usage: scripts/prepare_english_and_code.sh [--share S]     (S: of the documents to keep, default 1, about 340M tokens)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/common.sh
source scripts/common.sh

share=1
while [ $# -gt 0 ]; do
  case "$1" in
    --share)
      [ $# -ge 2 ] || fail "--share needs a number"
      share=$2
      shift 2 ;;
    -h | --help) sed -n '2,4s/^# //p' scripts/prepare_english_and_code.sh; exit 0 ;;
    *) fail "unknown argument '$1'; usage: scripts/prepare_english_and_code.sh [--share S]" ;;
  esac
done

install_packages "${build_packages[@]}" python3 xz-utils bible-kjv
say "Building"
build tokenize

# Packages whose names carry a version are found through the one that depends on the newest.
english=(dict-gcide dict-wn dict-jargon dict-foldoc dict-devil anarchism debian-reference-en debian-policy
  developers-reference debian-handbook perl-doc git-doc sqlite3-doc apache2-doc vim-runtime python-django-doc
  exim4-doc-html postfix-doc gnome-user-docs)
newest_of() { apt-cache depends "$1" | sed -n "s/^ *Depends: \($2[0-9.-]*\(-doc\)\?\)$/\1/p" | head -n 1; }
packages=("${english[@]}" "$(newest_of python3-doc python3)" "$(newest_of postgresql-doc postgresql-doc)"
  "$(newest_of linux-source linux-source)")

work=data/english_and_code
mkdir -p "$work/debs" "$work/packages"
say "Downloading ${#packages[@]} packages"
for package in "${packages[@]}"; do
  [ -n "$package" ] || fail "apt knows no newest linux-source, python3-doc or postgresql-doc: run apt-get update"
  [ -d "$work/packages/$package" ] && continue
  rm -f "$work/debs/${package}"_*.deb
  (cd "$work/debs" && apt-get download -qq "$package" 2>/dev/null) || fail "apt-get could not download $package: run apt-get update"
  dpkg-deb -x "$work/debs/${package}"_*.deb "$work/packages/$package.part"
  mv "$work/packages/$package.part" "$work/packages/$package"
done
scripts/prepare_kjv.sh "$work/kjv.txt"

say "Collecting documents"
rm -rf "$work/text"
python3 scripts/collect_text.py --output "$work/text" --share "$share" "$work"/packages/* "$work/kjv.txt"

say "Tokenising"
build/tokenize "$work/text" --output data/lm --overwrite --train-bpe 32768 --bpe-bytes 16777216 --validation-fraction 0.01
