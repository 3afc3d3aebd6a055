"""Tests of tools/compare.py: python3 -m unittest tests/tools/test_compare.py"""

import contextlib
import html.parser
import importlib.util
import io
import json
import math
import os
import sys
import tempfile
import unittest

try:
    import matplotlib  # noqa: F401
    import numpy as np
except ImportError as missing:
    print(f"SKIPPED: {missing}; compare.py needs python3-matplotlib", file=sys.stderr)
    sys.exit(77)

SOURCE = os.path.join(os.path.dirname(__file__), "..", "..", "tools", "compare.py")
spec = importlib.util.spec_from_file_location("compare", SOURCE)
compare = importlib.util.module_from_spec(spec)
sys.modules["compare"] = compare
spec.loader.exec_module(compare)


def train(step, loss, **more):
    return {"step": step, "split": "train", "loss": loss, "tokens": step * 100,
            "seconds": step * 0.5, **more}


def validation(step, loss):
    return {"step": step, "split": "validation", "loss": loss, "tokens": step * 100,
            "seconds": step * 0.5}


class CompareTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def run_folder(self, name, records, tail="", config=None):
        path = os.path.join(self.folder, name)
        os.makedirs(path)
        with open(os.path.join(path, "metrics.jsonl"), "w", encoding="utf-8") as file:
            file.write("".join(json.dumps(record) + "\n" for record in records) + tail)
        if config is not None:
            with open(os.path.join(path, "config.yaml"), "w", encoding="utf-8") as file:
                file.write(config)
        return path

    def main(self, *arguments):
        """(exit code, stdout, stderr, the page or None)"""
        output = os.path.join(self.folder, "out")
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = compare.main([*arguments, "--output", output])
            except SystemExit as stop:
                code = stop.code
        page = None
        if code == 0:
            with open(os.path.join(output, "compare.png"), "rb") as file:
                self.assertEqual(file.read(8), b"\x89PNG\r\n\x1a\n")
            with open(os.path.join(output, "compare.html"), encoding="utf-8") as file:
                page = file.read()
        return code, out.getvalue(), err.getvalue(), page

    def test_counts_images_and_shows_the_accuracy_of_classifiers(self):
        records = [{"step": s, "split": "train", "loss": 2.0, "images": s * 64, "seconds": s * 0.1,
                    "images_per_second": 640.0} for s in range(1, 11)]
        records += [{"step": s, "split": "validation", "loss": 1.0, "accuracy": a, "top5": 0.99,
                     "accuracy_ema": a + 0.01} for s, a in ((5, 0.5), (10, 0.9125))]
        code, out, err, page = self.main(self.run_folder("vit", records))
        self.assertEqual((code, err), (0, ""))
        for text in ("images/s", "640", "91.25%", "92.25%", "averaged weights"):
            self.assertIn(text, out)
        self.assertNotIn("tokens", out)

    def test_counts_audio_and_shows_the_best_error_rates_of_speech(self):
        records = [{"step": s, "split": "train", "loss": 2.0, "audio_seconds": s * 20,
                    "seconds": s * 0.1, "audio_seconds_per_second": 200.0} for s in range(1, 11)]
        records += [{"step": s, "split": "validation", "loss": 1.0, "letter_error_rate": e,
                     "word_error_rate": 2 * e} for s, e in ((5, 0.125), (10, 0.25))]
        code, out, err, page = self.main(self.run_folder("asr", records))
        self.assertEqual((code, err), (0, ""))
        for text in ("audio_seconds/s", "200", "12.50%", "25.00%", "best letter error rate"):
            self.assertIn(text, out)
        self.assertNotIn("tokens", out)
        self.assertNotIn("averaged weights", out)
        for record in records[10:]:
            record["letter_error_rate_ema"] = record["letter_error_rate"] - 0.0625
        _, out, _, _ = self.main(self.run_folder("averaged", records))
        self.assertIn("best letter error rate, averaged weights", out)
        self.assertIn("6.25%", out)
        self.assertNotIn("best word error rate, averaged weights", out)

    def test_draws_and_tabulates_two_runs(self):
        layers = {"attention_out_rms": [0.1, 0.2], "attention_row_sum": [1.0, None],
                  "grad_norm": 0.5, "tokens_per_second": 200.0}
        a = self.run_folder("a", [train(s, 5 - s / 100, **layers) for s in range(1, 101)] +
                            [validation(50, 4.5), validation(100, 4.0)])
        b = self.run_folder("b<i>", [train(s, 5.0) for s in range(1, 61)] + [validation(50, 4.75)])
        code, out, err, page = self.main(a, b)
        self.assertEqual((code, err), (0, ""))
        self.assertIn("+0.2500 validation, step 50", out)
        self.assertIn("4.0000 at 100", out)
        self.assertIn("b&lt;i&gt;", page)
        self.assertNotIn("<i>", page)

    def test_the_page_is_self_contained_and_well_formed(self):
        a = self.run_folder("a", [train(1, 2.0), train(2, 1.5)])
        page = self.main(a)[3]
        test = self
        open_tags = []

        class Checker(html.parser.HTMLParser):
            def handle_starttag(self, tag, attributes):
                for key, value in attributes:
                    if key in ("src", "href"):
                        test.assertTrue(value.startswith("data:image/png;base64,"))
                if tag not in ("meta", "img"):
                    open_tags.append(tag)

            def handle_endtag(self, tag):
                test.assertEqual(open_tags.pop(), tag)

        Checker().feed(page)
        self.assertEqual(open_tags, [])
        self.assertNotIn("http", page.split("base64,")[0])

    def test_a_truncated_last_line_and_bad_lines_are_counted_and_said(self):
        a = self.run_folder("a", [train(1, 2.0)],
                            tail='nonsense\n[1]\n\n{"split":"train"}\n{"step":3,"split":"test"}\n' +
                            json.dumps(train(2, None)) + '\n{"step":3,"spl')
        run = compare.read_run(a)
        self.assertEqual(len(run.records["train"]), 2)
        self.assertEqual(run.notes, ["the last line is truncated and was skipped",
                                     "3 unreadable lines skipped",
                                     "1 record of an unknown split 'test' skipped",
                                     "1 train record with a loss that is not finite"])
        code, _, err, page = self.main(a)
        self.assertEqual(code, 0)
        for note in run.notes:
            self.assertIn(note, err)
            self.assertIn(note.replace("'", "&#x27;"), page)

    def test_missing_keys_and_empty_runs(self):
        bare = self.run_folder("bare", [{"step": 1, "split": "train"}, {"step": 2, "split": "train",
                                        "loss": "high", "attention_out_rms": 3}])
        empty = self.run_folder("empty", [])
        full = self.run_folder("full", [train(1, 2.0), validation(1, 2.0)])
        code, out, err, _ = self.main(empty, bare, full)
        self.assertEqual(code, 0)
        self.assertIn("empty: no records", err)
        self.assertEqual(len(out.strip().splitlines()), 2 + 3 + 2)
        code, _, err, _ = self.main(empty)
        self.assertEqual(code, 1)
        self.assertIn("nothing to draw", err)

    def test_files_that_are_not_there(self):
        code, _, err, _ = self.main(os.path.join(self.folder, "none"))
        self.assertEqual(code, 2)
        self.assertIn("none: No such file", err)

    def test_runs_of_the_same_name_are_told_apart_and_styles_do_not_repeat(self):
        paths = [self.run_folder(f"{i}/same", [train(1, 2.0)]) for i in range(9)]
        runs = compare.read_runs(paths)
        self.assertEqual(len({run.name for run in runs}), 9)
        self.assertEqual(len({(run.colour, str(run.style)) for run in runs}), 9)
        self.assertEqual(self.main(*paths)[0], 0)

    def test_difference_falls_back_to_the_training_loss(self):
        a = compare.read_run(self.run_folder("a", [train(s, 2.0) for s in range(1, 11)]))
        b = compare.read_run(self.run_folder("b", [train(s, 2.5) for s in range(5, 21)]))
        steps, values, split = compare.difference(b, a, 1)
        self.assertEqual((split, steps[0], steps[-1]), ("train", 5, 10))
        np.testing.assert_allclose(values, 0.5)
        c = compare.read_run(self.run_folder("c", [train(s, 2.5) for s in range(50, 60)]))
        self.assertEqual(len(compare.difference(c, a, 1)[0]), 0)

    def test_smoothing(self):
        np.testing.assert_allclose(compare.smooth(np.array([3.0] * 50), 10), 3.0)
        np.testing.assert_allclose(compare.smooth(np.array([1.0, 5.0, 2.0]), 1), [1.0, 5.0, 2.0])
        got = compare.smooth(np.array([math.nan, 2.0, math.nan, 4.0]), 10)
        self.assertTrue(math.isnan(got[0]))
        self.assertEqual(got[2], 2.0)
        self.assertTrue(2.0 < got[3] <= 4.0)
        noise = np.tile([0.0, 1.0], 500)
        self.assertLess(np.ptp(compare.smooth(noise, 100)[500:]), 0.05)

    def test_differing_settings(self):
        if importlib.util.find_spec("yaml") is None:
            self.skipTest("python3-yaml is not installed")
        a = self.run_folder("a", [train(1, 2.0)], config="model: {layers: 2, kind: sigmoid}\n")
        b = self.run_folder("b", [train(1, 2.0)], config="model: {layers: 2, kind: softmax}\nx: 1\n")
        page = self.main(a, b)[3]
        settings = page.split("Settings that differ")[1]
        for text in ("model.kind", "sigmoid", "softmax", "<code>x</code>"):
            self.assertIn(text, settings)
        self.assertNotIn("layers", settings)
        broken = self.run_folder("c", [train(1, 2.0)], config="a: [\n")
        code, _, err, _ = self.main(broken)
        self.assertEqual(code, 0)
        self.assertIn("config.yaml not shown", err)

    def test_runs_of_two_tasks_are_refused(self):
        def records(unit):
            return [{"step": s, "split": "train", "loss": 2.0, f"{unit}_per_second": 9.0}
                    for s in (1, 2)]
        lm, vit = (self.run_folder(unit, records(unit)) for unit in ("tokens", "images"))
        unknown = self.run_folder("unknown", [train(1, 2.0)])
        code, out, err, _ = self.main(unknown, lm, vit)
        self.assertEqual((code, out), (2, ""))
        self.assertIn("tokens is a run of language_modeling, images of image_classification", err)
        self.assertIn("name runs of one task", err)
        self.assertEqual(self.main(lm, unknown)[0], 0)
        if importlib.util.find_spec("yaml") is None:
            self.skipTest("python3-yaml is not installed")
        asr = self.run_folder("asr", [train(1, 2.0)], config="task: speech_recognition\n")
        code, _, err, _ = self.main(lm, asr)
        self.assertEqual(code, 2)
        self.assertIn("asr of speech_recognition", err)

    def test_other_data_than_the_first_runs_are_said(self):
        def evaluated(name, targets, config=None):
            return self.run_folder(name, [train(1, 2.0), {**validation(1, 2.0), "targets": targets}],
                                   config=config)
        a, b, c = (evaluated(name, n) for name, n in (("a", 1000), ("b", 1000), ("c", 2500)))
        code, _, err, page = self.main(a, b, c)
        note = "c: evaluated on 2,500 targets, a on 1,000: validation losses are of different data"
        self.assertEqual((code, err), (0, note + "\n"))
        self.assertIn(note, page)
        if importlib.util.find_spec("yaml") is None:
            self.skipTest("python3-yaml is not installed")
        config = "data: {{train: [{}], validation: [v], tokenizer: {}}}\nmodel: {{width: {}}}\n"
        d, e, f = (evaluated(name, 1000, config.format(*values)) for name, values in (
            ("d", ("x", "bytes", 8)), ("e", ("x", "bytes", 16)), ("f", ("y", "''", 8))))
        self.assertEqual(self.main(d, e)[2], "")
        code, _, err, _ = self.main(d, f)
        self.assertEqual(code, 0)
        self.assertIn("f: data.train is [y], not [x] as of d: training losses are of different", err)
        self.assertIn("f: data.tokenizer is unset, not bytes as of d: a token is not", err)
        self.assertNotIn("data.validation", err)

    def test_texts(self):
        self.assertEqual([compare.count_text(v) for v in (math.nan, 0, 950, 52900, 1.31e9)],
                         ["–", "0", "950", "52.9k", "1.31B"])
        self.assertEqual([compare.duration_text(v) for v in (math.nan, 12.34, 90, 7500)],
                         ["–", "12.3s", "2m", "2h 05m"])


if __name__ == "__main__":
    unittest.main()
