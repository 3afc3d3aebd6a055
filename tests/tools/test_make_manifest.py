#!/usr/bin/env python3
"""scripts/make_manifest.py: what it makes of transcripts, and where recordings go."""

import contextlib
import importlib.util
import io
import os
import pathlib
import sys
import tempfile
import unittest

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "make_manifest.py"
spec = importlib.util.spec_from_file_location("make_manifest", SCRIPT)
make_manifest = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_manifest)


class Normalized(unittest.TestCase):
    def test_is_of_lower_case_letters(self):
        for text, expected in {
                "Agent Logged off.": "agent logged off",
                "Waldo's  premier-products!": "waldo's premier products",
                "'quoted' it's": "quoted it's",
                "press 1, 20 or 42": "press one twenty or forty two",
                "at 007 & 2008 %": "at zero zero seven and two zero zero eight percent",
                "press * or #": "press star or pound",
                "don\u2019t": "don't",
                "at [@]": "at",
                "IAX (note: does not say \"2\")": "iax"}.items():
            self.assertEqual(make_manifest.normalized(text), expected)

    def test_reads_numbers_as_people_do(self):
        for text, expected in {
                "0": "zero", "10": "ten", "19": "nineteen", "90": "ninety", "99": "ninety nine",
                "100": "one hundred", "500": "five hundred", "162": "one six two",
                "1000": "one thousand", "1001": "one zero zero one", "1234": "one two three four",
                "1100": "eleven hundred", "8500": "eighty five hundred", "9000": "nine thousand",
                "10000": "ten thousand", "10500": "one zero five zero zero",
                "500000": "five hundred thousand", "2000000": "two million",
                "999999000": "nine hundred ninety nine million nine hundred ninety nine thousand",
                "1000000000": "one zero zero zero zero zero zero zero zero zero",
                "0500": "zero five zero zero", "00": "zero zero",
                "1,234": "one thousand two hundred thirty four",
                "12,500": "twelve thousand five hundred", "1,000,000": "one million",
                "1,2,3": "one two three", "1,23": "one twenty three",
                "1,000,00": "one zero zero zero zero zero",
                "28.8 kilobit": "twenty eight point eight kilobit",
                "3.14": "three point one four", "0.05": "zero point zero five",
                "1.4.20": "one point four point two zero", "1,000.5": "one thousand point five",
                "500.5": "five hundred point five",
                "dial 2. or 500. now": "dial two or five hundred now", "3D": "three d"}.items():
            self.assertEqual(make_manifest.normalized(text), expected, text)

    def test_is_nothing_without_speech(self):
        for text in ("[ascending tones]", "(2 seconds of silence)", "<beep>", "...", ""):
            self.assertIsNone(make_manifest.normalized(text))


class Main(unittest.TestCase):
    def run_script(self, *arguments):
        out, sys.argv = io.StringIO(), ["make_manifest.py", *map(str, arguments)]
        with contextlib.redirect_stdout(out):
            make_manifest.main()
        return out.getvalue()

    def test_splits_by_name(self):
        with tempfile.TemporaryDirectory() as folder:
            sounds, output = pathlib.Path(folder, "sounds"), pathlib.Path(folder, "out")
            (sounds / "digits").mkdir(parents=True)
            names = [f"s{i}" for i in range(60)] + ["digits/1", "beep", "unknown"]
            for name in names:
                (sounds / f"{name}.wav").touch()
            lines = [f"{name}: word {name[1:].strip('igts/') or 'x'}" for name in names[:61]]
            pathlib.Path(folder, "t.txt").write_text(
                "; a comment\n\n" + "\n".join(lines) + "\nbeep: [beep]\n", encoding="utf-8")
            said = self.run_script(sounds, output, "--transcripts", os.path.join(folder, "t.txt"))
            self.assertIn("left out: 1 without speech, 1 without a transcript", said)
            rows = {}
            for split in ("train", "test"):
                header, *rest = (output / f"{split}.tsv").read_text(encoding="utf-8").splitlines()
                self.assertEqual(header, "path\tstart\tduration\ttranscript")
                rows[split] = [row.split("\t") for row in rest]
            self.assertEqual(len(rows["train"]) + len(rows["test"]), 61)
            self.assertTrue(0 < len(rows["test"]) < 20)
            for split, of_split in rows.items():
                for path, start, duration, _ in of_split:
                    self.assertEqual((start, duration), ("0", "0"))
                    name = pathlib.Path(path).relative_to(sounds.resolve()).with_suffix("")
                    self.assertEqual(make_manifest.is_test(name.as_posix(), 0.1), split == "test")

    def test_takes_transcripts_beside_the_recordings(self):
        with tempfile.TemporaryDirectory() as folder:
            sounds = pathlib.Path(folder, "sounds")
            sounds.mkdir()
            (sounds / "a.flac").touch()
            (sounds / "a.txt").write_text("Hello!", encoding="utf-8")
            self.run_script(sounds, folder, "--test-share", "0")
            text = pathlib.Path(folder, "train.tsv").read_text(encoding="utf-8")
            self.assertTrue(text.endswith("/a.flac\t0\t0\thello\n"))

    def test_says_what_is_wrong(self):
        with tempfile.TemporaryDirectory() as folder:
            with self.assertRaises(SystemExit) as raised:
                self.run_script(folder, folder)
            self.assertIn("no recordings", str(raised.exception))


if __name__ == "__main__":
    unittest.main()
