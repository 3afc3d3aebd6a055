#!/usr/bin/env python3
"""Training speed of a language model on one GPU: ours beside PyTorch under torch.compile.

Ours with sigmoid attention and with softmax; PyTorch's is the softmax model (RoPE, QK-norm, RMSNorm,
SwiGLU, tied embeddings), for which it has flash attention, as its users train it: bf16 autocast over
fp32 weights, fused AdamW, clipping by the global norm. The same sizes, batch and random tokens, each
side in a process of its own, one after the other on the same card; medians of the steps behind the
first ones. Needs torch and PyYAML.

usage: tools/bench/gpu_lm.py [--build build] [--model lm_1b] [--batch 4 8] [--steps 20]
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "golden"))
WARM_UP_STEPS = 5  # in which algorithms are chosen and code is compiled


def time_trainer(args, kind, batch, recompute, folder):
    """Medians of a run of ours: a dictionary with tokens_per_second, tflops, mfu; and its memory."""
    run = folder / f"{kind}_{batch}"
    command = [str(args.build / "trainer"), "--config", str(ROOT / "configs" / f"{args.model}_{kind}.yaml"),
               "--device", "cuda", "--set", f"run.dir={run}", "data.source=synthetic", "data.train=[]",
               "data.validation=[]", "eval.every=0", f"train.steps={WARM_UP_STEPS + args.steps}",
               "schedule.warmup_steps=2", f"train.global_batch={batch}", f"train.micro_batch={batch}",
               f"train.recompute={recompute}", f"log.peak_tflops={args.peak_tflops}", "log.every=1",
               "log.diagnostics=false", "log.tensorboard=false", "checkpoint.every=0", *args.set]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{done.stdout[-3000:]}")
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    records = [r for r in records if r["split"] == "train" and r["step"] > WARM_UP_STEPS]
    found = {key: statistics.median(r[key] for r in records) for key in ("tokens_per_second", "tflops", "mfu")}
    memory = [line for line in done.stdout.splitlines() if "on the device in use" in line]
    found["memory"] = memory[-1].split("for this run, ")[1].split(" of ")[0] if memory else ""
    return found


def make_model(config):
    import torch
    import torch.nn as nn
    import torch.nn.functional as F

    sizes = config["model"]
    width, heads, seq_len, vocab = sizes["width"], sizes["heads"], sizes["seq_len"], sizes["vocab_size"]
    eps, head_dim = sizes["norm"]["eps"], width // heads
    hidden = sizes["mlp"]["hidden"] or 256 * -(-8 * width // (3 * 256))

    class RmsNorm(nn.Module):
        def __init__(self, size):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(size))

        def forward(self, x):
            return F.rms_norm(x, (x.size(-1),), self.weight.to(x.dtype), eps)

    def rotate(x, cos, sin):
        a, b = x.chunk(2, -1)
        return torch.cat((a * cos - b * sin, a * sin + b * cos), -1)

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention_norm, self.mlp_norm = RmsNorm(width), RmsNorm(width)
            self.q_norm, self.k_norm = RmsNorm(head_dim), RmsNorm(head_dim)
            self.qkv = nn.Linear(width, 3 * width, bias=False)
            self.out = nn.Linear(width, width, bias=False)
            self.up = nn.Linear(width, 2 * hidden, bias=False)
            self.down = nn.Linear(hidden, width, bias=False)

        def forward(self, x, cos, sin):
            batch = x.shape[0]
            q, k, v = self.qkv(self.attention_norm(x)).view(batch, seq_len, 3, heads, head_dim).unbind(2)
            q, k = self.q_norm(q).transpose(1, 2), self.k_norm(k).transpose(1, 2)
            y = F.scaled_dot_product_attention(rotate(q, cos, sin), rotate(k, cos, sin), v.transpose(1, 2),
                                               is_causal=True)
            x = x + self.out(y.transpose(1, 2).reshape(batch, seq_len, width))
            gate, up = self.up(self.mlp_norm(x)).chunk(2, -1)
            return x + self.down(F.silu(gate) * up)

    class LanguageModel(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(vocab, width)
            self.blocks = nn.ModuleList(Block() for _ in range(sizes["layers"]))
            self.final_norm = RmsNorm(width)
            frequencies = 10000.0 ** (-torch.arange(0, head_dim, 2) / head_dim)
            angles = torch.outer(torch.arange(seq_len), frequencies)
            self.register_buffer("cos", angles.cos().bfloat16())
            self.register_buffer("sin", angles.sin().bfloat16())
            nn.init.normal_(self.embedding.weight, std=0.02)

        def forward(self, tokens, targets):
            x = self.embedding(tokens).bfloat16()
            for block in self.blocks:
                x = block(x, self.cos, self.sin)
            logits = self.final_norm(x) @ self.embedding.weight.to(x.dtype).t()
            return F.cross_entropy(logits.float().view(-1, vocab), targets.view(-1))

    torch.set_float32_matmul_precision("high")
    return LanguageModel().cuda()


def pytorch_side(args):
    """Prints one JSON object; in a process of its own, so that its memory is given back."""
    import torch

    import reference_lm

    config = reference_lm.read_config(args.pytorch_side)
    batch, seq_len = args.batch[0], config["model"]["seq_len"]
    model = make_model(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), fused=True)
    loss_of = torch.compile(model)
    tokens = torch.randint(config["model"]["vocab_size"], (batch, seq_len + 1), device="cuda")
    inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
    seconds = []
    for _ in range(WARM_UP_STEPS + args.steps):
        torch.cuda.synchronize()
        start = time.perf_counter()
        with torch.autocast("cuda", torch.bfloat16):
            loss = loss_of(inputs, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    print(json.dumps({"tokens_per_second": batch * seq_len / statistics.median(seconds[WARM_UP_STEPS:]),
                      "parameters": sum(p.numel() for p in model.parameters()),
                      "memory": f"{torch.cuda.max_memory_allocated() / 2**30:.2f} GiB",
                      "gpu": torch.cuda.get_device_name(), "torch": torch.__version__}))


def time_pytorch(args, config, batch):
    """What pytorch_side() printed, or None where it does not fit the card's memory."""
    command = [sys.executable, __file__, "--pytorch-side", str(config), "--batch", str(batch), "--steps",
               str(args.steps)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if "OutOfMemoryError" in done.stderr:
        return None
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("--model", default="lm_1b", help="whose configs NAME_sigmoid and NAME_softmax are (default: %(default)s)")
    parser.add_argument("--batch", type=int, nargs="+", default=[4, 8], help="sequences a step, in one micro-batch")
    parser.add_argument("--recompute", nargs="+", default=["none", "norms_and_activations"],
                        help="train.recompute of ours for each --batch")
    parser.add_argument("--steps", type=int, default=20, help="timed, behind a few others (default: %(default)s)")
    parser.add_argument("--peak-tflops", type=float, default=989, help="that MFU is counted against (default: an H100's)")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="more settings for ours")
    parser.add_argument("--pytorch-side", type=pathlib.Path, metavar="CONFIG", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.pytorch_side:
        pytorch_side(args)
        return
    if len(args.recompute) != len(args.batch):
        parser.error("--recompute wants one value for each of --batch")
    print("| sequences | model | recompute | tokens/s | over PyTorch | TFLOP/s | MFU | memory |")
    print("|---:|---|---|---:|---:|---:|---:|---:|")
    machine = None
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for batch, recompute in zip(args.batch, args.recompute):
            ours = {kind: time_trainer(args, kind, batch, recompute, folder) for kind in ("sigmoid", "softmax")}
            theirs = time_pytorch(args, folder / f"softmax_{batch}" / "config.yaml", batch)
            for kind, found in ours.items():
                ratio = f"{found['tokens_per_second'] / theirs['tokens_per_second']:.2f}" if theirs else ""
                print(f"| {batch} | {kind} | {recompute} | {found['tokens_per_second']:.0f} | {ratio} | "
                      f"{found['tflops']:.0f} | {100 * found['mfu']:.1f}% | {found['memory']} |", flush=True)
            if theirs:
                machine = theirs
                print(f"| {batch} | softmax, PyTorch {theirs['torch']}, compiled | | "
                      f"{theirs['tokens_per_second']:.0f} | 1 | | | {theirs['memory']} |", flush=True)
            else:
                print(f"| {batch} | softmax, PyTorch, compiled | | out of memory | | | | |", flush=True)
    if machine:
        print(f"\n{machine['gpu']}, {time.strftime('%d %B %Y')}, {machine['parameters'] / 1e9:.3f}B parameters")


if __name__ == "__main__":
    main()
