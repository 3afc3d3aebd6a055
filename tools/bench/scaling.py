#!/usr/bin/env python3
"""Measures training on 1, 2, ... GPUs of one machine: speed, scaling efficiency, memory, how much of the
exchange of gradients is hidden; whether losses depend on the number of ranks; and what happens when one is
killed. Prints Markdown tables. Needs mpirun and a trainer built with MPI and NCCL.

    python3 tools/bench/scaling.py                                    # every GPU of this machine
    python3 tools/bench/scaling.py --device cpu --ranks 1,2 --tiny    # to try it out, anywhere
"""

import argparse
import glob
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Model:
    def __init__(self, name, per_gpu, micro_batch, extra=()):
        self.name, self.per_gpu, self.micro_batch, self.extra = name, per_gpu, micro_batch, list(extra)


MODELS = [Model("lm_85m_sigmoid", 32, 16), Model("lm_1b_sigmoid", 8, 4)]
TINY = [Model("lm_85m_sigmoid", 4, 2, ["model.layers=2", "model.width=64", "model.heads=2", "model.seq_len=64",
                                       "model.vocab_size=512", "train.bucket_bytes=65536"])]


class Run:
    """A trainer under mpirun, whose folder goes with it."""

    def __init__(self, args, ranks, model, settings, resume=None):
        self.folder = resume or tempfile.mkdtemp(prefix="scaling_", dir=args.scratch)
        settings = {"run.dir": self.folder, "data.source": "synthetic", "data.validation": "[]", "eval.every": 0,
                    "log.tensorboard": "false", "schedule.warmup_steps": 2, "train.micro_batch": model.micro_batch,
                    **settings}
        command = [args.mpirun, "-np", str(ranks), "--bind-to", "none", args.trainer, "--device", args.device,
                   "--config", os.path.join(ROOT, "configs", model.name + ".yaml")]
        if resume:
            command += ["--resume", "auto"]
        for setting in model.extra + ["%s=%s" % item for item in settings.items()]:
            command += ["--set", setting]
        threads = max(1, (os.cpu_count() or 1) // ranks)
        environment = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
                       "OMPI_MCA_rmaps_base_oversubscribe": "1", "OMP_NUM_THREADS": str(threads),
                       "OMP_WAIT_POLICY": "passive", **os.environ}
        self.log = os.path.join(self.folder, "output.log")
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)

    def output(self):
        with open(self.log, errors="replace") as file:
            return file.read()

    def records(self):
        try:
            with open(os.path.join(self.folder, "metrics.jsonl")) as file:
                lines = [line for line in file if line.endswith("\n")]
        except FileNotFoundError:
            return []
        return [record for record in map(json.loads, lines) if record["split"] == "train"]

    def wait_for_step(self, step, seconds):
        deadline = time.time() + seconds
        while time.time() < deadline and self.process.poll() is None:
            records = self.records()
            if records and records[-1]["step"] >= step:
                return True
            time.sleep(0.05)
        records = self.records()
        return bool(records) and records[-1]["step"] >= step

    def rank_process(self, rank):
        """The process id of a rank, told by its environment and its parents."""
        for path in glob.glob("/proc/[0-9]*/environ"):
            try:
                with open(path, "rb") as file:
                    environment = dict(item.partition(b"=")[::2] for item in file.read().split(b"\0"))
                with open(path.replace("environ", "cmdline"), "rb") as file:
                    words = file.read().split(b"\0")
            except OSError:
                continue
            is_ours = words[0] == os.fsencode(self.process.args[5]) and os.fsencode("run.dir=" + self.folder) in words
            if is_ours and int(environment.get(b"OMPI_COMM_WORLD_RANK", environment.get(b"PMI_RANK", b"-1"))) == rank:
                return int(path.split("/")[2])
        return None

    def end(self):
        """Without the checkpoint that a run writes at its end."""
        if self.process.poll() is None:
            for rank in range(64):
                process = self.rank_process(rank)
                if process is None:
                    break
                os.kill(process, signal.SIGKILL)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()

    def remove(self):
        self.end()
        shutil.rmtree(self.folder, ignore_errors=True)


def sequence_length(run):
    with open(os.path.join(run.folder, "config.yaml"), encoding="utf-8") as file:
        return int(re.search(r"^  seq_len: (\d+)", file.read(), re.MULTILINE).group(1))


def measure(args, ranks, model, sharded):
    """Medians over the steps after the first few; None where the run failed."""
    # At a logged step the host waits for the GPU, which then stands still a little; the steps between are as in a
    # real run. The steps up to the first choose algorithms and warm up.
    every = first = 4
    run = Run(args, ranks, model, {"train.steps": 1000000, "train.global_batch": model.per_gpu * ranks,
                                   "optimizer.shard": "true" if sharded else "false", "log.every": every,
                                   "log.diagnostics": "false", "checkpoint.every": 0})
    try:
        reached = run.wait_for_step(first + args.steps, args.limit)
        records = [r for r in run.records() if r["step"] > first]
        if not reached or not records:
            print("%s on %d ranks%s failed:\n%s" % (model.name, ranks, ", sharded" if sharded else "",
                                                   run.output()[-1500:]), file=sys.stderr)
            return None
        used = re.findall(r"memory: (\S+ \S+) planned for this run, (\S+ \S+) of", run.output())
        median = lambda key: statistics.median(r[key] for r in records) if key in records[0] else None
        exchange, waited = median("exchange_seconds"), median("exchange_waited_seconds")
        tokens = median("tokens_per_second")
        return {"tokens": tokens, "tflops": median("tflops"),
                "step": model.per_gpu * ranks * sequence_length(run) / tokens,
                "memory": used[0][1] if used else "", "exchange": exchange,
                "waited": waited, "hidden": 1 - waited / exchange if exchange else None}
    finally:
        run.remove()


def table(args, models):
    print("| model, sequences a rank | ranks | sharded | tokens/s | efficiency | step | longer by | TFLOP/s a rank "
          "| memory of rank 0 | exchange | waited for | hidden |")
    print("|---|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    median = statistics.median
    for model in models:
        kinds = [(ranks, sharded) for ranks in args.ranks for sharded in ([False, True] if ranks > 1 else [False])]
        found = {kind: [] for kind in kinds}
        for _ in range(args.repeats):  # in turns, so that a card that slows down does so for all
            for kind in kinds:
                found[kind].append(measure(args, kind[0], model, kind[1]))
        alone = found.get((1, False), [])
        for (ranks, sharded), runs in found.items():
            pairs = [(run, one) for run, one in zip(runs, alone or runs) if run and one]
            if not pairs:
                continue
            middle = {key: median(run[key] for run, _ in pairs) if pairs[0][0][key] is not None else None
                      for key in ("tokens", "tflops", "step", "exchange", "waited", "hidden")}
            efficiency = longer = ""
            if alone:
                shares = [100 * run["tokens"] / (ranks * one["tokens"]) for run, one in pairs]
                efficiency = "%.1f%%" % median(shares)
                if ranks > 1 and len(shares) > 1:
                    efficiency += " (%.1f to %.1f)" % (min(shares), max(shares))
                if ranks > 1:
                    longer = "%.1f ms" % (1000 * median(run["step"] - one["step"] for run, one in pairs))
            exchange = ["%.1f ms" % (1000 * middle["exchange"]), "%.1f ms" % (1000 * middle["waited"]),
                        "%.0f%%" % (100 * middle["hidden"])] if middle["exchange"] else ["", "", ""]
            print("| `%s`, %d | %d | %s | %.0f | %s | %.1f ms | %s | %.0f | %s | %s |" % (
                model.name, model.per_gpu, ranks, "yes" if sharded else "no", middle["tokens"], efficiency,
                1000 * middle["step"], longer, middle["tflops"], pairs[0][0]["memory"], " | ".join(exchange)),
                flush=True)


def losses(args, model):
    """Runs of one global batch on any number of ranks have the same losses and gradients, but for rounding."""
    most = max(args.ranks)
    batch = model.micro_batch * most
    curves = {}
    for ranks in args.ranks:
        for sharded in ([False, True] if ranks > 1 else [False]):
            run = Run(args, ranks, model, {"train.steps": 1000000, "train.global_batch": batch, "log.every": 1,
                                           "checkpoint.every": 0, "optimizer.learning_rate": 1e-3,
                                           "optimizer.shard": "true" if sharded else "false"})
            try:
                run.wait_for_step(args.loss_steps, args.limit)
                curves[ranks, sharded] = {r["step"]: r for r in run.records()}
            finally:
                run.remove()
    alone = curves.get((1, False), {})
    print("\n`%s`, %d sequences a step\n" % (model.name, batch))
    print("| ranks | sharded | loss at step 1 | at step %d | largest difference from one rank | of the gradient's norm |" % args.loss_steps)
    print("|---:|---|---:|---:|---:|---:|")
    for (ranks, sharded), curve in curves.items():
        steps = [s for s in range(1, args.loss_steps + 1) if s in curve and s in alone]
        if len(steps) < args.loss_steps:
            print("| %d | %s | the run failed | | | |" % (ranks, "yes" if sharded else "no"), flush=True)
            continue
        print("| %d | %s | %.5f | %.5f | %.2e | %.2g%% |" % (
            ranks, "yes" if sharded else "no", curve[1]["loss"], curve[args.loss_steps]["loss"],
            max(abs(curve[s]["loss"] - alone[s]["loss"]) for s in steps),
            100 * max(abs(curve[s]["grad_norm"] / alone[s]["grad_norm"] - 1) for s in steps)), flush=True)


def killed(args, model):
    """One rank is killed in the middle of a step; the run goes on with fewer."""
    ranks = max(args.ranks)
    if ranks < 2:
        return
    settings = {"train.global_batch": model.micro_batch * ranks, "log.every": 1, "log.diagnostics": "false",
                "optimizer.shard": "true", "checkpoint.every": 10, "checkpoint.keep": 1}
    run = Run(args, ranks, model, {"train.steps": 1000000, **settings})
    resumed = None
    try:
        if not run.wait_for_step(25, args.limit):
            print("\nThe run with a rank to be killed failed:\n" + run.output()[-1500:])
            return
        victim = run.rank_process(ranks - 1)
        begin = time.time()
        os.kill(victim, signal.SIGKILL)
        try:
            run.process.wait(60)
        except subprocess.TimeoutExpired:
            print("\nRank %d of %d was killed: 60 s later the others had not ended.\n%s" % (
                ranks - 1, ranks, run.output()[-1500:]))
            return
        took = time.time() - begin
        named = [line for line in run.output().splitlines() if "error: rank %d" % (ranks - 1) in line]
        print("\nRank %d of %d was killed at step %d: the others had ended %.1f s later. They said:\n" % (
            ranks - 1, ranks, run.records()[-1]["step"], took))
        for line in named:
            print("    " + line)
        resumed = Run(args, ranks // 2, model, {"train.steps": 1000000, **settings}, resume=run.folder)
        resumed.wait_for_step(run.records()[-1]["step"] + 3, args.limit)
        going = [line for line in resumed.output().splitlines() if "resuming" in line]
        print("\nOn %d ranks: %s; it reached step %d." % (
            ranks // 2, going[-1].split("] ")[-1] if going else "it did not resume", resumed.records()[-1]["step"]),
            flush=True)
    finally:
        if resumed:
            resumed.end()
        run.remove()


def gpus():
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return []
    return re.findall(r"^GPU \d+: (.*?) \(", listed, re.MULTILINE)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", help="numbers of ranks, with commas (default: 1, 2, 4, ... and all GPUs)")
    parser.add_argument("--parts", default="table,losses,killed", help="what to do (default: %(default)s)")
    parser.add_argument("--models", help="of the table, with commas (default: all)")
    parser.add_argument("--repeats", type=int, default=1, help="of the table's runs, in turns (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=16, help="measured steps of a run (default: %(default)s)")
    parser.add_argument("--loss-steps", type=int, default=50)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--trainer", default=os.path.join(ROOT, "build", "trainer"))
    parser.add_argument("--mpirun", default="mpirun")
    parser.add_argument("--scratch", help="where runs may write (default: the system's temporary folder)")
    parser.add_argument("--limit", type=float, default=150, help="seconds a run may take (default: %(default)s)")
    parser.add_argument("--tiny", action="store_true", help="a model that takes no time")
    args = parser.parse_args()
    args.trainer = os.path.abspath(args.trainer)
    cards = gpus()
    if args.ranks:
        args.ranks = [int(n) for n in args.ranks.split(",")]
    else:
        most = max(1, len(cards))
        args.ranks = sorted({2 ** k for k in range(10) if 2 ** k <= most} | {most})
    models = TINY if args.tiny else MODELS
    if args.models:
        models = [model for model in models if model.name in args.models.split(",")]
    small = TINY[0] if args.tiny else MODELS[0]
    print("%s, %s\n" % (", ".join("%d x %s" % (cards.count(c), c) for c in sorted(set(cards))) or "no GPU",
                        time.strftime("%d %B %Y")), flush=True)
    parts = args.parts.split(",")
    if "table" in parts:
        table(args, models)
    if "losses" in parts:
        losses(args, Model(small.name, 0, max(1, small.micro_batch // 4), small.extra))
    if "killed" in parts:
        killed(args, Model(small.name, 0, max(1, small.micro_batch // 4), small.extra))


if __name__ == "__main__":
    main()
