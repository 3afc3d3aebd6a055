#!/usr/bin/env python3
"""Our attention beside PyTorch's, all shapes in one run: TFLOP/s, and ratios to the peers.

    python3 tools/bench/attention_table.py --build build --python python3-with-torch

Prints a Markdown table; --json keeps the measurements. A shape's rows are measured one after the
other, ours and the peers', so that all of them see the same temperature and clocks.
"""

import argparse
import datetime
import json
import math
import pathlib
import subprocess
import sys

TOKENS, WIDTH = 16384, 2048
KINDS = ("softmax", "sigmoid")


def shapes(quick):
    """[batch, heads, kv_heads, head_dim, seq_len, causal]: 16,384 tokens of width 2048, then what
    speech and vision models have, with a batch that fills the card."""
    lengths = (4096,) if quick else (512, 2048, 4096, 16384)
    result = [[TOKENS // length, WIDTH // dim, WIDTH // dim, dim, length, causal]
              for dim in (64, 128) for causal in (False, True) for length in lengths]
    if not quick:
        result += [[32, 4, 4, 192, 1024, False], [256, 12, 12, 64, 197, False]]
    return result


class Peers:
    """attention_peers.py, kept running: it imports PyTorch once."""

    def __init__(self, arguments):
        self.names = [name for name in arguments.peers.split(",") if name]
        self.process = None
        if self.names:
            script = pathlib.Path(__file__).with_name("attention_peers.py")
            self.process = subprocess.Popen(
                [arguments.python, str(script), "--peers", ",".join(self.names), "--iters",
                 str(arguments.iters)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def measure(self, shape):
        rows = []
        if self.process:
            try:
                print(json.dumps(shape), file=self.process.stdin, flush=True)
            except BrokenPipeError:
                sys.exit(1)  # it has said why
            for _ in self.names:
                line = self.process.stdout.readline()
                if not line:
                    sys.exit(1)
                rows.append(json.loads(line))
        return rows


def ours(program, shape, kind, arguments):
    batch, heads, kv_heads, head_dim, seq_len, causal = shape
    command = [program, "--json", "--impl", arguments.impl, "--kind", kind, "--batch", batch,
               "--heads", heads, "--kv-heads", kv_heads, "--head-dim", head_dim, "--seq-len",
               seq_len, "--iters", arguments.iters] + ["--causal"] * causal
    command += ["--deterministic"] * arguments.deterministic
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stderr.strip()}")
    return json.loads(done.stdout)


def cell(value, digits=0):
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def table(rows):
    """Markdown: for each shape and direction TFLOP/s of all, then ours over each peer."""
    peers = [name for name in ("fa2", "cudnn") if any(row["impl"] == name for row in rows)]
    by_shape = {}
    for row in rows:
        key = (row["head_dim"], row["causal"], row["seq_len"])
        name = row["impl"] if row["impl"] in peers else row["kind"]
        by_shape.setdefault(key, {})[name] = row
    heads = ["D", "mask", "T", "pass"] + list(KINDS) + peers
    heads += [f"{kind} / {peer}" for kind in KINDS for peer in peers]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---:|" * len(heads)]
    for (head_dim, causal, seq_len), measured in by_shape.items():
        for direction in ("fwd", "bwd"):
            speed = {name: measured[name][direction + "_tflops"]
                     for name in list(KINDS) + peers if name in measured}
            cells = [str(head_dim), "causal" if causal else "full", str(seq_len), direction]
            cells += [cell(speed.get(name)) for name in list(KINDS) + peers]
            cells += [cell(speed[kind] / speed[peer] if peer in speed else None, 2)
                      for kind in KINDS for peer in peers]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", default="build", help="folder with bench_attention")
    parser.add_argument("--python", default=sys.executable, help="a Python that has PyTorch")
    parser.add_argument("--impl", default="auto", help="of bench_attention")
    parser.add_argument("--deterministic", action="store_true",
                        help="gradients of the same bits every time")
    parser.add_argument("--peers", default="fa2,cudnn", help="empty for ours alone")
    parser.add_argument("--iters", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="only T = 4096")
    parser.add_argument("--json", type=pathlib.Path, help="file for the measurements")
    arguments = parser.parse_args()
    program = pathlib.Path(arguments.build) / "bench_attention"
    if not program.exists():
        sys.exit(f"{program} is not there: build with -DSIGTRAIN_CUDA=ON, or name the folder "
                 "with --build")
    peers = Peers(arguments)
    rows = []
    for shape in shapes(arguments.quick):
        rows += peers.measure(shape)
        rows += [ours(program, shape, kind, arguments) for kind in KINDS]
        print(f"measured {shape}", file=sys.stderr, flush=True)
    if arguments.json:
        arguments.json.write_text("".join(json.dumps(row) + "\n" for row in rows))
    versions = next((f", PyTorch {row['torch']}, cuDNN {row['cudnn_version']}" for row in rows
                     if "torch" in row), "")
    print(f"{datetime.date.today()}, {rows[-1]['gpu']}{versions}, median of {arguments.iters} "
          "calls, TFLOP/s\n")
    print(table(rows))
    for row in rows:
        if "error" in row:
            print(f"{row['impl']} at D {row['head_dim']}, T {row['seq_len']}: {row['error']}")


if __name__ == "__main__":
    main()
