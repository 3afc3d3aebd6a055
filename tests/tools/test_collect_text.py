"""Tests scripts/collect_text.py on a package made up here."""
import gzip
import io
import os
import random
import subprocess
import sys
import tarfile
import tempfile
import unittest

SCRIPT = os.path.join(os.path.dirname(__file__), "..", "..", "scripts", "collect_text.py")
WORDS = "the of and to a in is that for it sailor harbour winter letter carries under quiet seven green stone".split()


def prose(seed, words=120):
    """Something that counts as English and that zlib does not take for a table."""
    return " ".join(random.Random(seed).choices(WORDS, k=words)) + "."


class CollectText(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.package = os.path.join(self.folder.name, "a-doc")

    def put(self, path, data):
        path = os.path.join(self.package, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data if isinstance(data, bytes) else data.encode())

    def collect(self, *more, output="out"):
        output = os.path.join(self.folder.name, output)
        result = subprocess.run([sys.executable, SCRIPT, "--output", output, *more, self.package],
                                capture_output=True, text=True)
        self.assertEqual(result.returncode, 0, result.stderr)
        documents = {}
        for root, _, names in os.walk(output):
            for name in names:
                path = os.path.join(root, name)
                with open(path, encoding="utf-8") as file:
                    documents[os.path.relpath(path, output)] = file.read()
        return documents, result.stdout

    def test_english(self):
        text = "\n\n".join(prose(number) for number in range(20))
        self.put("usr/share/doc/a/plain.txt", text)
        self.put("usr/share/doc/a/again.txt", text)
        self.put("usr/share/doc/a/latin1.txt", b"caf\xe9 " * 100)
        self.put("usr/share/doc/a/fremd.txt", "Es war die beste aller Zeiten und auch die schlechteste. " * 20)
        self.put("usr/share/doc/a/page.html",
                 f"<html><head><title>x</title></head><body><script>var a;</script><p>A &amp; B. {prose(20)}</p>"
                 "<pre>one\n  two</pre></body></html>")
        self.put("usr/share/doc/a/zipped.txt.gz", gzip.compress(prose(21).encode()))
        documents, said = self.collect()
        names = {os.path.basename(name) for name in documents}
        # again.txt holds nothing that plain.txt does not: whichever comes first keeps it.
        self.assertEqual(names, {"again.txt.txt", "page.html.txt", "zipped.txt.txt"})
        page = next(text for name, text in documents.items() if "page" in name)
        self.assertIn("A & B. " + prose(20), page)
        self.assertIn("one\n  two", page)
        self.assertNotIn("var a", page)
        self.assertIn("1 not UTF-8", said)
        self.assertIn("1 not English", said)

    def test_code(self):
        code = "\n".join(f"int f{i}(int x)\n{{\n\treturn x * {i * 7919 % 1000} + g{i * 31 % 17}(x);\n}}" for i in range(40))
        licence = "/*\n * Redistribution and use in source and binary forms, with or without\n * modification, are permitted.\n */\n"
        table = "\n".join("#define REGISTER_NUMBER_%04d 0x0000" % i for i in range(1000))
        files = {"a.c": licence + code, "b.c": code, "keep.c": "// What it does.\n" + code, "table.h": table,
                 "picture.png": code, "short.c": "int a;"}
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w:xz") as tar:
            for name, text in files.items():
                member = tarfile.TarInfo(f"linux-source-6.1/{name}")
                member.size = len(text)
                tar.addfile(member, io.BytesIO(text.encode()))
        self.put("usr/src/linux-source-6.1.tar.xz", archive.getvalue())
        documents, said = self.collect()
        self.assertEqual(set(documents), {"code/a.c.txt", "code/keep.c.txt"})
        self.assertEqual(documents["code/a.c.txt"], code + "\n")
        self.assertIn("1 identical to another, 1 tables, 1 too short", said)

    def test_a_larger_share_holds_a_smaller(self):
        for number in range(40):
            self.put(f"usr/share/doc/a/{number}.txt", prose(number))
        everything, _ = self.collect()
        half, _ = self.collect("--share", "0.5", output="half")
        third, _ = self.collect("--share", "0.3", output="third")
        self.assertEqual(len(everything), 40)
        self.assertTrue(0 < len(third) < len(half) < 40)
        self.assertTrue(third.items() <= half.items() <= everything.items())


if __name__ == "__main__":
    unittest.main()
