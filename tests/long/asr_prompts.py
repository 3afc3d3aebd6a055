#!/usr/bin/env python3
"""Trains the two models of configs/asr_prompts_*.yaml from scratch on the CPU, as a user does: both must
get less than 10% of the letters of their own training prompts wrong, trained in at most 10 minutes of
two cores together. Processor time is what counts: other work may be going on.

usage: tests/long/asr_prompts.py BUILD_FOLDER
"""

import os
import pathlib
import re
import resource
import subprocess
import sys
import tempfile
import time

SOURCE = pathlib.Path(__file__).resolve().parents[2]
RECORDINGS = pathlib.Path("/usr/share/asterisk/sounds/en_US_f_Allison")
TRANSCRIPTS = pathlib.Path("/usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz")
MOST_WRONG = 0.1
MOST_SECONDS = 1200  # of processor time to train both: ten minutes on two cores


def run(command, folder):
    environment = dict(os.environ, OMP_WAIT_POLICY="passive")
    done = subprocess.run([str(part) for part in command], cwd=folder, env=environment,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        print(done.stdout)
        sys.exit(f"{' '.join(map(str, command))}: exit code {done.returncode}")
    return done.stdout


def letter_error_rate(build, config, manifest, folder):
    shown = run([build / "trainer", "--config", config, "--device", "cpu", "--eval-only",
                 "--set", f"data.validation=[{manifest}]"], folder)
    return float(re.search(r"letter_error_rate ([0-9.]+)", shown).group(1))


def main(build):
    if not RECORDINGS.is_dir() or not TRANSCRIPTS.exists():
        print("SKIPPED: asterisk-core-sounds-en-wav and asterisk-core-sounds-en are not installed")
        return 77
    failures, total, total_user = 0, 0.0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        run([sys.executable, SOURCE / "scripts/make_manifest.py", RECORDINGS, "data/prompts",
             "--transcripts", TRANSCRIPTS], folder)
        for kind in ("sigmoid", "softmax"):
            name = f"asr_prompts_{kind}"
            before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
            run([build / "trainer", "--config", SOURCE / f"configs/{name}.yaml", "--device", "cpu"],
                folder)
            seconds = time.monotonic() - start
            user = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before.ru_utime
            config = f"runs/{name}/config.yaml"
            wrong = {split: letter_error_rate(build, config, f"data/prompts/{split}.tsv", folder)
                     for split in ("train", "test")}
            print(f"{name}: letter error rate {wrong['train']:.2%} of the training prompts, "
                  f"{wrong['test']:.1%} of the test prompts, {seconds:.0f} s, {user:.0f} s of "
                  "processor time", flush=True)
            failures += wrong["train"] >= MOST_WRONG
            total, total_user = total + seconds, total_user + user
    print(f"both: {total:.0f} s on {os.cpu_count()} processors, {total_user:.0f} s of processor time")
    if failures:
        print(f"not below {MOST_WRONG:.0%} of the training prompts' letters")
    if total_user > MOST_SECONDS:
        print(f"above {MOST_SECONDS} s of processor time")
    return 1 if failures or total_user > MOST_SECONDS else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__.strip().splitlines()[-1])
    sys.exit(main(pathlib.Path(sys.argv[1]).resolve()))
