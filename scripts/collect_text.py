#!/usr/bin/env python3
"""Collects documents to train a language model on from unpacked Debian packages.

Each argument is the folder of one unpacked package (dpkg-deb -x) or a text file. English comes from plain text,
reStructuredText, POD, HTML and dictionaries below usr/share, code and its documentation from usr/src/linux-source-*.tar.xz.
Writes OUTPUT/english/... and OUTPUT/code/..., UTF-8, one document a file, every name ending in .txt, and says what was
left out: documents that are not UTF-8 or not English, identical ones, and tables (what zlib makes less than a seventh of,
such as the register lists of a driver). Licence texts at the head of source files and paragraphs that were seen before are
cut out; long texts are cut into several documents. The same packages give the same documents.
"""
import argparse
import collections
import gzip
import hashlib
import html
import os
import re
import sys
import tarfile
import zlib

CODE = (".c", ".h", ".S", ".rs", ".py", ".pl", ".sh", ".rst", ".txt")
MARKUP = (".html", ".htm", ".xhtml", ".page")
PLAIN = (".txt", ".rst", ".md", ".pod", ".dict")
LEAST_BYTES = 256
PART_BYTES = 64 << 10
TABLE_RATIO = 1 / 7  # of compressed size; ordinary C is near 1/4
LEAST_PARAGRAPH = 40  # characters; shorter ones may repeat
ENGLISH_WORDS = frozenset("the of and to a in is that for it be as with are by on this or you can".split())
LEAST_ENGLISH = 0.12  # of a text's words; prose has a third, other languages next to nothing
SOURCE_TAG = re.compile(rb"\s*\[(?:1913 Webster|PJC|WordNet [\d.]+)(?: \+PJC)?\]")  # behind every sense in GCIDE
LICENCE = re.compile(r"General Public License|Redistribution and use|hereby granted|WITHOUT (?:ANY )?WARRANT")
COMMENT = re.compile(r"\s*(?:/\*.*?\*/|(?://[^\n]*\n)+|(?:#(?!!)[^\n]*\n)+)", re.S)
BLOCK = r"(?:p|div|h[1-6]|li|ul|ol|dl|dt|dd|tr|td|th|table|br|hr|section|title|blockquote|note|item|example|page)"


def text_of_markup(markup):
    """The text of HTML (or GNOME's Mallard), a block a line; line ends stay in <pre> alone."""
    markup = re.sub(r"<(script|style|head|nav|footer|info)\b.*?</\1\s*>|<!--.*?-->", " ", markup, flags=re.S | re.I)
    parts = []
    for part in re.split(r"(<pre\b.*?</pre\s*>)", markup, flags=re.S | re.I):
        if not part.lower().startswith("<pre"):
            part = re.sub(r"\s+", " ", part)
            part = re.sub(rf"</?{BLOCK}\b[^>]*>", "\n\n", part, flags=re.I)
        parts.append(re.sub(r"<[^>]*>", "", part))
    lines = (line.rstrip() for line in html.unescape("".join(parts)).split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(line if line.startswith("  ") else line.strip() for line in lines))


def without_licence(code):
    """Without the comment at the head of a source file, if that is a licence."""
    comment = COMMENT.match(code)
    while comment and comment.end() > 0:
        if LICENCE.search(comment.group()):
            return code[: comment.start()] + code[comment.end():].lstrip("\n")
        comment = COMMENT.match(code, comment.end())
    return code


def is_utf8(data):
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def is_english(text):
    words = re.findall(r"[^\W\d_]+", text.lower())
    return len(words) > 20 and sum(word in ENGLISH_WORDS for word in words) >= LEAST_ENGLISH * len(words)


def parts_of(text):
    """Pieces of about PART_BYTES that end between paragraphs."""
    begin = 0
    while len(text) - begin > 2 * PART_BYTES:
        end = text.find("\n\n", begin + PART_BYTES)
        if end < 0:
            break
        yield text[begin: end + 1]
        begin = end + 2
    yield text[begin:]


class Collector:
    def __init__(self, output, share):
        self.output = output
        self.share = share
        self.seen = set()
        self.seen_paragraphs = set()
        self.counts = collections.Counter()
        self.bytes = collections.Counter()

    def write(self, key, text):
        data = (text.strip("\n") + "\n").encode()
        digest = hashlib.blake2b(data, digest_size=16).digest()
        is_new = digest not in self.seen
        self.seen.add(digest)  # whatever its share, so that a larger share holds all of a smaller one
        if len(data) < LEAST_BYTES:
            self.counts["too short"] += 1
        elif not is_new:
            self.counts["identical to another"] += 1
        elif len(zlib.compress(data, 1)) < TABLE_RATIO * len(data):
            self.counts["tables"] += 1
        elif zlib.crc32(key.encode()) >= self.share * 2**32:
            self.counts["beyond --share"] += 1
        else:
            path = os.path.join(self.output, key + ".txt")
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(data)
            kind = key.split("/")[0]
            self.counts[kind] += 1
            self.bytes[kind] += len(data)

    def decode(self, data):
        if is_utf8(data) and b"\0" not in data:
            return data.decode().replace("\r\n", "\n")
        self.counts["not UTF-8"] += 1
        return None

    def add_english(self, key, data, markup, is_dictionary):
        if is_dictionary:  # one bad entry is not worth the others
            entries = data.split(b"\n\n")
            good = [entry for entry in entries if is_utf8(entry)]
            self.counts["dictionary entries not UTF-8"] += len(entries) - len(good)
            data = SOURCE_TAG.sub(b"", b"\n\n".join(good))
        text = self.decode(data)
        if text is None:
            return
        if markup:
            text = text_of_markup(text)
        if not is_dictionary and not is_english(text):
            self.counts["not English"] += 1
            return
        kept = []
        for paragraph in re.split(r"\n\s*\n", text):
            digest = hashlib.blake2b(paragraph.strip().encode(), digest_size=8).digest()
            if len(paragraph) >= LEAST_PARAGRAPH and digest in self.seen_paragraphs:
                continue
            self.seen_paragraphs.add(digest)
            kept.append(paragraph)
        parts = list(parts_of("\n\n".join(kept)))
        for number, part in enumerate(parts):
            self.write(f"english/{key}" + (f".{number:04}" if len(parts) > 1 else ""), part)

    def add_kernel(self, path):
        with tarfile.open(path, "r|xz") as archive:
            for member in archive:
                name = member.name.split("/", 1)[-1]
                if member.isreg() and name.endswith(CODE):
                    text = self.decode(archive.extractfile(member).read())
                    if text is not None:
                        self.write(f"code/{name}", without_licence(text))

    def add_package(self, folder):
        package = os.path.basename(os.path.normpath(folder))
        paths = sorted(os.path.join(root, name) for root, _, names in os.walk(folder) for name in names)
        plain = {os.path.basename(path).split(".")[0] for path in paths if re.search(r"\.(txt|rst|md)(\.gz)?$", path)}
        has_sources = any("/_sources/" in path for path in paths)
        for path in paths:
            if os.path.islink(path):
                continue
            relative = os.path.relpath(path, folder)
            if re.fullmatch(r"usr/src/linux-source-[\d.]+\.tar\.xz", relative):
                self.add_kernel(path)
            if not relative.startswith("usr/share/") or re.search(r"/(changelog|copyright|locale|lintian|man)\b", relative):
                continue
            stem = re.sub(r"\.(gz|dz)$", "", path)
            markup = stem.endswith(MARKUP)
            if not (markup or stem.endswith(PLAIN)):
                continue
            # Often the text that a page was made of is there too.
            if markup and (has_sources or os.path.basename(path).split(".")[0] in plain):
                continue
            # A folder or ending named after a language, but for English and GNOME's C.
            language = re.search(r"/(?:html/)?([a-z]{2}(?:[-_@][A-Za-z]+)?)/", relative.removeprefix("usr/share"))
            if "/help/" in relative and "/help/C/" not in relative:
                continue
            if language and not language.group(1).startswith(("en", "do")) and markup:
                self.counts["in another language's folder"] += 1
                continue
            with (gzip.open if stem != path else open)(path, "rb") as file:
                data = file.read()
            self.add_english(f"{package}/{os.path.relpath(stem, folder)}", data, markup, stem.endswith(".dict"))

    def report(self):
        for kind in ("english", "code"):
            print(f"{kind}: {self.counts.pop(kind, 0)} documents, {self.bytes[kind]} bytes")
        print("left out:", ", ".join(f"{count} {reason}" for reason, count in sorted(self.counts.items())) or "nothing")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", nargs="+", metavar="PACKAGE_FOLDER_OR_TEXT")
    parser.add_argument("--output", required=True, help="folder to write to; must not exist")
    parser.add_argument("--share", type=float, default=1.0, help="of the documents to keep, chosen by their names (default: 1)")
    options = parser.parse_args()
    if os.path.exists(options.output):
        sys.exit(f"{options.output} exists: remove it, or name another --output")
    if not 0 < options.share <= 1:
        sys.exit(f"--share {options.share:g}: give a number above 0 and up to 1")
    collector = Collector(options.output, options.share)
    for name in options.inputs:
        if os.path.isdir(name):
            collector.add_package(name)
        else:
            with open(name, "rb") as file:
                collector.add_english(os.path.basename(name).removesuffix(".txt"), file.read(), False, True)
    collector.report()


if __name__ == "__main__":
    main()
