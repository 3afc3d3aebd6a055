#!/usr/bin/env python3
"""Training speed of the 255M speech encoder on one GPU: ours beside PyTorch's under torch.compile.

The same encoder on both sides (36 layers of width 768, 4 heads, QK-norm, LayerScale, CTC on
letters; dropout and layer drop off), bf16, AdamW, the same batches of full utterances, one after
the other on the same card. Both are timed over 5 steps between two waits for the GPU, the median
over such groups. Ours with sigmoid and with softmax attention and ALiBi; PyTorch's with
softmax and sinusoids, so that its scaled_dot_product_attention has no mask and may take
FlashAttention-2 or cuDNN, whichever is named. Needs torch.

usage: tools/bench/speech_encoder.py [--build build] [--batch 8] [--seconds 15 30] [--steps 30]
                                    [--modes default reduce-overhead] [--regional]
"""

import argparse
import itertools
import json
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
GROUP = 5  # steps between two waits for the GPU: ours waits to log
# What PyTorch's side does not do.
PLAIN = ["model.dropout=0", "model.layer_drop=0", "optimizer.clip_norm=0", "augment.speech.speed=0"]


def median(values):
    ordered = sorted(values)
    return ordered[len(ordered) // 2]


def time_trainer(build, kind, batch, seconds, steps, folder):
    """Median seconds of audio a second of the logged steps of a run, the first ones left out."""
    run = pathlib.Path(folder) / "run"
    config = ROOT / "configs" / f"asr_255m_librispeech_{kind}.yaml"
    command = [str(build / "trainer"), "--config", str(config), "--device", "cuda", "--set",
               f"run.dir={run}", "data.source=synthetic", f"train.steps={steps}",
               "train.global_batch=1", f"data.speech.bucket_seconds=[{seconds}]",
               f"data.speech.batch_seconds={batch * seconds}", "schedule.warmup_steps=1",
               f"log.every={GROUP}", "log.diagnostics=false", "log.tensorboard=false",
               f"checkpoint.every={10 * steps}", *PLAIN]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{done.stdout[-3000:]}")
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    speeds = [json.loads(line)["audio_seconds_per_second"] for line in lines
              if '"split":"train"' in line]
    return median(speeds[2:])


def make_encoder():
    import torch
    import torch.nn as nn
    import torch.nn.functional as F

    width, heads, hidden, layers, letters, bins = 768, 4, 3072, 36, 29, 80

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.q_norm, self.k_norm = nn.RMSNorm(width // heads), nn.RMSNorm(width // heads)
            self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
            self.attention_scale = nn.Parameter(torch.full((width,), 0.1))
            self.mlp_scale = nn.Parameter(torch.full((width,), 0.1))

        def forward(self, x):
            q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2)
                       for part in self.qkv(self.attention_norm(x)).chunk(3, dim=-1))
            q, k = self.q_norm(q).to(v.dtype), self.k_norm(k).to(v.dtype)
            out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
            x = x + self.attention_scale.to(x.dtype) * self.out(out)
            mlp = self.down(F.gelu(self.up(self.mlp_norm(x))))
            return x + self.mlp_scale.to(x.dtype) * mlp

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution = nn.Conv1d(bins, 2 * width, 7, stride=3, padding=3)
            self.layers = nn.ModuleList(Block() for _ in range(layers))
            self.final_norm, self.head = nn.LayerNorm(width), nn.Linear(width, letters)

        def forward(self, features, positions):
            x = F.glu(self.convolution(features.transpose(1, 2)), dim=1).transpose(1, 2)
            x = x + positions.to(x.dtype)
            for layer in self.layers:
                x = layer(x)
            return self.head(self.final_norm(x))

    return Encoder()


def time_pytorch(batch, seconds, steps, backend, mode, regional):
    """Median seconds of audio a second of the encoder under torch.compile, the first half left out."""
    import torch
    import torch.nn.functional as F
    from torch.nn.attention import SDPBackend, sdpa_kernel

    torch._dynamo.reset()  # else a second size would be compiled as one of many
    torch.manual_seed(1)
    torch.set_float32_matmul_precision("high")
    model = make_encoder().cuda()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4, fused=True)
    if regional:
        for layer in model.layers:
            layer.compile(mode=mode)
    compiled = model if regional else torch.compile(model, mode=mode)
    feature_frames = 100 * seconds - 2
    frames = (feature_frames + 2) // 3
    features = torch.randn(batch, feature_frames, 80, device="cuda")
    positions = torch.randn(frames, 768, device="cuda")
    targets = 1 + torch.arange(frames // 2, device="cuda").repeat(batch, 1) % 28
    frame_lengths = torch.full((batch,), frames, device="cuda")
    target_lengths = torch.full((batch,), frames // 2, device="cuda")
    chosen = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}[backend]
    times = []
    with sdpa_kernel(chosen):
        for _ in range(steps // GROUP):
            torch.cuda.synchronize()
            start = time.perf_counter()
            for _ in range(GROUP):
                with torch.autocast("cuda", torch.bfloat16):
                    logits = compiled(features, positions)
                loss = F.ctc_loss(logits.float().log_softmax(-1).transpose(0, 1), targets,
                                  frame_lengths, target_lengths, reduction="sum")
                (loss / targets.numel()).backward()
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            torch.cuda.synchronize()
            times.append((time.perf_counter() - start) / GROUP)
    return batch * seconds / median(times[len(times) // 2:])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seconds", type=int, nargs="+", default=[15, 30])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--backends", nargs="+", default=["flash", "cudnn"])
    parser.add_argument("--modes", nargs="+", default=["default"], help="of torch.compile, such "
                        "as reduce-overhead, which replays CUDA graphs (default: %(default)s)")
    parser.add_argument("--regional", action="store_true",
                        help="compile one block for all: minutes less, but the host then takes longer than the GPU")
    arguments = parser.parse_args()
    if arguments.steps < 3 * GROUP:
        parser.error(f"--steps must be at least {3 * GROUP}: the first groups of {GROUP} are left out")
    for seconds in arguments.seconds:
        results = {}
        with tempfile.TemporaryDirectory() as folder:
            for kind in ("sigmoid", "softmax"):
                results[kind] = time_trainer(arguments.build, kind, arguments.batch, seconds,
                                             arguments.steps, f"{folder}/{kind}")
        peers = {}
        for backend, mode in itertools.product(arguments.backends, arguments.modes):
            name = f"PyTorch, {mode}, {backend}"
            try:
                peers[name] = time_pytorch(arguments.batch, seconds, arguments.steps, backend, mode,
                                           arguments.regional)
            except RuntimeError as error:
                print(f"{name}: {str(error).splitlines()[0]}")
        best = max(peers.values(), default=None)
        for name, speed in (results | peers).items():
            ratio = f"{speed / best:.2f} of PyTorch's best" if best else ""
            print(f"{arguments.batch} x {seconds} s: {name:32} {speed:8.0f} s of audio/s  {ratio}",
                  flush=True)


if __name__ == "__main__":
    main()
