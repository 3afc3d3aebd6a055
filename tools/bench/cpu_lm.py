#!/usr/bin/env python3
"""Training speed on the CPU: this trainer beside PyTorch, eager and compiled.

    python3 -m venv venv && venv/bin/pip install torch pyyaml
    venv/bin/python tools/bench/cpu_lm.py

Both sides train the model of one config on the same number of synthetic tokens a step, in float32
on the same number of threads: forward, loss, backward, clipping by the global norm, AdamW. The
PyTorch side is tests/golden/reference_lm.py, which computes the same function, with fused AdamW;
its ALiBi slopes, bias and mask are one tensor made beforehand. It is told the sizes by the resolved
config that the trainer writes, and the parameters' names and shapes are compared.

The sides take turns. In each turn they warm up and then time some intervals of several steps; the
median interval counts for the turn, and the median turn for the side. torch.compile needs g++.
"""

import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "golden"))

import torch  # noqa: E402

import reference_lm as lm  # noqa: E402

WARM_UP_INTERVALS = 2


class Trainer:
    """This project's trainer, started anew for each turn."""

    name = "sigtrain"

    def __init__(self, args, folder):
        self.args, self.folder, self.turns = args, folder, 0

    def run_folder(self):
        return self.folder / f"turn{self.turns}"

    def turn(self):
        """Tokens a second of each interval behind the warm-up."""
        args = self.args
        self.turns += 1
        settings = {
            "run.name": "bench", "run.dir": self.run_folder(), "data.source": "synthetic",
            "model.vocab_size": args.vocab_size, "log.every": args.interval,
            "train.steps": args.interval * (WARM_UP_INTERVALS + args.intervals),
            "schedule.warmup_steps": 1, "log.diagnostics": "false", "log.tensorboard": "false",
            "eval.every": 0, "checkpoint.every": 0, "checkpoint.keep": 1,
        }
        command = [args.trainer, "--config", args.config, "--device", "cpu"]
        for key, value in settings.items():
            command += ["--set", f"{key}={value}"]
        result = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": str(args.threads)},
                                capture_output=True, text=True)
        if result.returncode != 0:
            sys.exit(f"{' '.join(map(str, command))}\nended with {result.returncode}:\n"
                     f"{result.stderr or result.stdout}")
        records = map(json.loads, open(self.run_folder() / "metrics.jsonl", encoding="utf-8"))
        return [record["tokens_per_second"] for record in records
                if record["step"] > args.interval * WARM_UP_INTERVALS]

    def config(self):
        return lm.read_config(self.run_folder() / "config.yaml")

    def parameter_shapes(self):
        """From the header of the checkpoint's safetensors file."""
        path, = self.run_folder().glob("checkpoints/step_*/model.safetensors")
        with open(path, "rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        return {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}


class PyTorch:
    """The reference model under a plain PyTorch training loop, in this process."""

    def __init__(self, args, config, compiled):
        self.args, self.config = args, config
        self.name = "PyTorch compiled" if compiled else "PyTorch eager"
        optimizer = config["optimizer"]
        if optimizer["decay_mode"] != "coupled" or optimizer["rate_scale"] != "none":
            sys.exit("torch.optim.AdamW has coupled decay and no rate scales: the config must too")
        torch.manual_seed(1)
        self.model = lm.DecoderLm(config["model"])
        self.compute_loss = torch.compile(self.loss) if compiled else self.loss
        self.optimizer = torch.optim.AdamW(
            lm.parameter_groups(self.model, optimizer["weight_decay"]), fused=True,
            lr=optimizer["learning_rate"], betas=(optimizer["beta1"], optimizer["beta2"]),
            eps=optimizer["eps"])
        self.batches = [self.random_batch() for _ in range(4)]

    def random_batch(self):
        shape = (self.config["train"]["global_batch"], self.config["model"]["seq_len"])
        return [torch.randint(self.config["model"]["vocab_size"], shape) for _ in range(2)]

    def loss(self, tokens, targets):
        settings = self.config["loss"]
        return lm.language_model_loss(self.model(tokens), targets, settings["label_smoothing"],
                                      settings["z_loss"])

    def step(self, tokens, targets):
        self.optimizer.zero_grad(set_to_none=True)
        self.compute_loss(tokens, targets).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(),
                                       self.config["optimizer"]["clip_norm"], foreach=True)
        self.optimizer.step()

    def turn(self):
        tokens = self.args.interval * self.batches[0][0].numel()
        rates = []
        for _ in range(WARM_UP_INTERVALS + self.args.intervals):
            start = time.perf_counter()
            for i in range(self.args.interval):
                self.step(*self.batches[i % len(self.batches)])
            rates.append(tokens / (time.perf_counter() - start))
        return rates[WARM_UP_INTERVALS:]

    def parameter_shapes(self):
        return {name: list(p.shape) for name, p in self.model.named_parameters()}


def check_same_model(trainer, reference):
    ours, theirs = trainer.parameter_shapes(), reference.parameter_shapes()
    if ours != theirs:
        different = sorted(n for n in ours.keys() | theirs.keys() if ours.get(n) != theirs.get(n))
        sys.exit("the models differ in " + ", ".join(
            f"{n} ({ours.get(n, 'absent')} and {theirs.get(n, 'absent')})" for n in different))


def processor():
    for line in open("/proc/cpuinfo", encoding="utf-8"):
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default=ROOT / "configs" / "lm_tiny_sigmoid.yaml")
    parser.add_argument("--trainer", default=ROOT / "build" / "trainer")
    parser.add_argument("--vocab-size", type=int, default=2048, help="%(default)s")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)),
                        help="all of this process's processors: %(default)s")
    parser.add_argument("--turns", type=int, default=5, help="of each side: %(default)s")
    parser.add_argument("--intervals", type=int, default=5, help="timed in a turn: %(default)s")
    parser.add_argument("--interval", type=int, default=4, help="steps in one: %(default)s")
    parser.add_argument("--json", metavar="FILE", help="write the numbers there, too")
    return parser.parse_args()


def main():
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    rates = {}
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(args, pathlib.Path(folder))
        trainer.turn()  # to have its config; not counted
        config = trainer.config()
        sides = [trainer] + [PyTorch(args, config, compiled) for compiled in (False, True)]
        check_same_model(trainer, sides[1])
        for turn in range(args.turns):
            for side in sides:
                rates.setdefault(side.name, []).append(statistics.median(side.turn()))
                print(f"turn {turn + 1}/{args.turns}  {side.name:<18}"
                      f"{rates[side.name][-1]:10.0f} tokens/s", file=sys.stderr)

    weights = sum(p.numel() for p in sides[1].model.parameters())
    batch, seq_len = config["train"]["global_batch"], config["model"]["seq_len"]
    print(f"\n{pathlib.Path(args.config).stem}: {weights / 1e6:.2f}M parameters, batch {batch} x "
          f"{seq_len}, float32, {args.threads} threads of {processor()}, PyTorch "
          f"{torch.__version__}\n")
    ours = statistics.median(rates[trainer.name])
    print(f"{'':<18}{'tokens/s':>10}{'lowest':>10}{'highest':>10}{'ours over it':>14}")
    for name, values in rates.items():
        median = statistics.median(values)
        print(f"{name:<18}{median:>10.0f}{min(values):>10.0f}{max(values):>10.0f}"
              f"{ours / median:>14.2f}")
    report = {"config": pathlib.Path(args.config).stem, "parameters": weights, "batch": batch,
              "seq_len": seq_len, "threads": args.threads, "processor": processor(),
              "torch": torch.__version__, "tokens_per_second": rates,
              "ratio": {name: ours / statistics.median(values) for name, values in rates.items()}}
    print("\n" + json.dumps(report))
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
