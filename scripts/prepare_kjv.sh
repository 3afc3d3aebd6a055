#!/usr/bin/env bash
# Writes the King James Bible of Debian's package bible-kjv as plain text: a line a verse, verse labels stripped, an empty line
# before each chapter. usage: scripts/prepare_kjv.sh FILE
set -euo pipefail
[ $# -eq 1 ] || { echo "usage: $0 FILE" >&2; exit 2; }
command -v bible >/dev/null || { echo "error: the program 'bible' is missing: apt-get install bible-kjv" >&2; exit 1; }
mkdir -p "$(dirname "$1")"
bible -f "Gen1:1-Rev22:21" | awk '
  !match($0, /^[0-9A-Za-z]+:[0-9]+ /) { print "error: a verse without its label: " $0 > "/dev/stderr"; failed = 1; exit 1 }
  { verse = substr($0, 1, RLENGTH - 1); sub(/.*:/, "", verse)
    if (verse == 1 && NR > 1) print ""
    print substr($0, RLENGTH + 1) }
  END { if (!failed && NR < 31000) { print "error: only " NR " verses" > "/dev/stderr"; exit 1 } }' >"$1.part"
mv "$1.part" "$1"
