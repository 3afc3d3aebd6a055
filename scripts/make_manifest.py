#!/usr/bin/env python3
"""Makes manifests (TSV: path, start, duration, transcript) of a folder of recordings.

usage: scripts/make_manifest.py RECORDINGS OUTPUT [--transcripts FILE] [--test-share 0.1]

The transcripts are lines "NAME: what is said" of FILE (which may be gzipped), NAME being a
recording's path below RECORDINGS without its extension; without --transcripts, NAME.txt beside each
recording. They are written in lower case, numbers as words, punctuation left out; what stands in
brackets is no speech, and a recording whose transcript has nothing else is left out. A hash of NAME,
the same on every machine, decides which recordings OUTPUT/test.tsv has; the others are in
OUTPUT/train.tsv.
"""

import argparse
import gzip
import pathlib
import re
import sys
import zlib

EXTENSIONS = (".wav", ".flac", ".sph", ".ogg")
ONES = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen
fifteen sixteen seventeen eighteen nineteen""".split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
# With thousands set off by commas or without, and with what is behind a point, or points as versions
# have.
NUMBER = re.compile(r"(?:(?<![\d,.])[1-9]\d{0,2}(?:,\d{3})+(?![\d,])|\d+)(?:\.\d+)*", re.ASCII)


def cardinal(number):
    """The words of a number below a thousand million."""
    words = []
    for size, name in ((1000000, "million"), (1000, "thousand"), (100, "hundred")):
        if number >= size:
            words += [cardinal(number // size), name]
            number %= size
    if number >= 20:
        words.append(TENS[number // 10 - 2])
        number %= 10
    if number or not words:
        words.append(ONES[number])
    return " ".join(words)


def one_by_one(digits):
    return " ".join(ONES[int(digit)] for digit in digits)


def spoken_integer(digits):
    """As people say it: "forty two", "five hundred", "eighty five hundred", "twenty thousand"; one
    that is longer and not round, as an extension or a year, or that begins with 0, by its digits."""
    number = int(digits)
    if digits != str(number) or number >= 1000**3:
        return one_by_one(digits)
    if 1000 < number < 10000 and number % 1000 and number % 100 == 0:
        return cardinal(number // 100) + " hundred"
    is_round = number % (100 if number < 1000 else 1000) == 0
    return cardinal(number) if number < 100 or is_round else one_by_one(digits)


def spoken_number(match):
    """Of NUMBER's match; what stands behind a point is read by its digits."""
    whole, *fractions = match.group().split(".")
    groups = whole.replace(",", "")
    words = [cardinal(int(groups)) if "," in whole and int(groups) < 1000**3
             else spoken_integer(groups)]
    for fraction in fractions:
        words += ["point", one_by_one(fraction)]
    return f" {' '.join(words)} "


def normalized(text):
    """The transcript in the letters a-z, apostrophes and single spaces, or None: it is no speech."""
    text = re.sub(r"\[[^\]]*\]|\([^)]*\)|<[^>]*>", " ", text)
    text = text.lower().replace("\u2019", "'")
    for sign, words in {"&": "and", "%": "percent", "*": "star", "#": "pound"}.items():
        text = text.replace(sign, f" {words} ")
    text = NUMBER.sub(spoken_number, text)
    text = re.sub(r"[.,!?;:\"\-/]", " ", text)
    text = re.sub(r"(?<![a-z])'|'(?![a-z])", " ", text)  # quotes, not apostrophes
    return " ".join(text.split()) or None


def read_transcripts(path):
    opener = gzip.open if path.suffix == ".gz" else open
    transcripts = {}
    with opener(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            line = line.strip()
            if not line or line.startswith(";"):
                continue
            name, colon, text = line.partition(":")
            if not colon:
                sys.exit(f"error: {path}:{number}: not 'NAME: what is said'")
            transcripts[name.strip()] = text.strip()
    return transcripts


def is_test(name, share):
    return zlib.crc32(name.encode()) / 2**32 < share


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("recordings", type=pathlib.Path)
    parser.add_argument("output", type=pathlib.Path)
    parser.add_argument("--transcripts", type=pathlib.Path)
    parser.add_argument("--test-share", type=float, default=0.1)
    arguments = parser.parse_args()

    recordings = arguments.recordings.resolve()
    files = sorted(p for p in recordings.rglob("*") if p.suffix.lower() in EXTENSIONS)
    if not files:
        sys.exit(f"error: {recordings}: no recordings ({', '.join(EXTENSIONS)}) in it")
    transcripts = read_transcripts(arguments.transcripts) if arguments.transcripts else None
    lines = {"train": [], "test": []}
    untranscribed = no_speech = 0
    for file in files:
        name = file.relative_to(recordings).with_suffix("").as_posix()
        if transcripts is None:
            beside = file.with_suffix(".txt")
            text = beside.read_text(encoding="utf-8") if beside.exists() else None
        else:
            text = transcripts.get(name)
        if text is None:
            untranscribed += 1
            continue
        text = normalized(text)
        if text is None:
            no_speech += 1
            continue
        split = "test" if is_test(name, arguments.test_share) else "train"
        lines[split].append(f"{file}\t0\t0\t{text}\n")
    arguments.output.mkdir(parents=True, exist_ok=True)
    for split, rows in lines.items():
        path = arguments.output / f"{split}.tsv"
        part = path.with_suffix(".part")
        part.write_text("path\tstart\tduration\ttranscript\n" + "".join(rows), encoding="utf-8")
        part.replace(path)
    print(f"{len(lines['train'])} recordings to train with and {len(lines['test'])} to test; left out: "
          f"{no_speech} without speech, {untranscribed} without a transcript")


if __name__ == "__main__":
    main()
