#!/usr/bin/env python3
"""Training speed of ViT-B/16 at 224^2 on one GPU: ours beside timm's under torch.compile.

The same model on both sides (LayerScale, QK-norm, no stochastic depth, softmax; and sigmoid on ours),
bf16, AdamW, the same batch, one after the other on the same card. Ours is timed on synthetic images
and, through the loader with the config's whole augmentation, on JPEGs of about ImageNet's size that
this script makes; the loader alone is timed too, on 1, 2, 4 ... threads. Needs torch and timm, and
Pillow for the JPEGs.

usage: tools/bench/vit_images.py [--build build] [--batch 256] [--steps 60] [--jpegs 2048]
"""

import argparse
import concurrent.futures
import json
import math
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Both sides wait for the device after as many steps, and are timed from one wait to the next.
LOG_EVERY = 5
CLASSES = 1000
# Steps that the loader is ahead at most. A full queue hides for long that the loader is slower than
# the model: the steps that it feeds do not count, and those that do are many times as many.
PREFETCH = 4
JPEG_STEPS = 300
# What timm's side does not do.
PLAIN = ["model.stochastic_depth=0", "optimizer.ema_decay=0", "optimizer.clip_norm=0"]


def median(values):
    ordered = sorted(values)
    return ordered[len(ordered) // 2]


def time_trainer(build, config, batch, steps, folder, settings):
    """Images/s between the logged steps of a run, without those that a full queue fed."""
    run = pathlib.Path(folder) / "run"
    command = [str(build / "trainer"), "--config", str(ROOT / "configs" / f"{config}.yaml"),
               "--device", "cuda", "--set", f"run.dir={run}", f"train.steps={steps}",
               "schedule.warmup_steps=1", f"train.global_batch={batch}",
               f"train.micro_batch={batch}", f"log.every={LOG_EVERY}", "log.diagnostics=false",
               "log.tensorboard=false", "eval.every=0", "data.validation=[]",
               f"checkpoint.every={10 * steps}", f"data.prefetch={PREFETCH}", *PLAIN, *settings]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{done.stdout[-3000:]}")
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    speeds = [json.loads(line)["images_per_second"] for line in lines
              if '"split":"train"' in line]
    return speeds[max(math.ceil(2 * PREFETCH / LOG_EVERY), len(speeds) // 10):]


def overall(speeds):
    """Images/s over the whole time: each speed is of as many images."""
    return len(speeds) / sum(1 / speed for speed in speeds)


def time_timm(batch, steps):
    """Median images/s of timm's model under torch.compile, as its users train it."""
    import timm
    import torch
    import torch.nn.functional as F

    model = timm.create_model("vit_base_patch16_224", num_classes=CLASSES, init_values=1e-4,
                              qk_norm=True).cuda()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    compiled = torch.compile(model)
    images = torch.randn(batch, 3, 224, 224, device="cuda")
    labels = torch.randint(CLASSES, (batch,), device="cuda")
    seconds = []
    for _ in range(steps // LOG_EVERY):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(LOG_EVERY):
            with torch.autocast("cuda", torch.bfloat16):
                loss = F.cross_entropy(compiled(images), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        seconds.append((time.perf_counter() - start) / LOG_EVERY)
    return batch / median(seconds[len(seconds) // 2:])


def make_jpegs(folder, count):
    """Smooth colours under noise, 500 x 375 pixels at quality 90: some 70 kB, like ImageNet's."""
    import numpy
    from PIL import Image

    def make(i):
        random = numpy.random.default_rng(i)
        path = pathlib.Path(folder) / f"class{i % CLASSES:03}" / f"{i:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=numpy.uint8))
        smooth = numpy.asarray(coarse.resize((500, 375), Image.Resampling.BICUBIC), dtype=numpy.int16)
        noise = random.integers(-12, 13, (375, 500, 1), dtype=numpy.int16)
        Image.fromarray((smooth + noise).clip(0, 255).astype(numpy.uint8)).save(path, quality=90)

    with concurrent.futures.ThreadPoolExecutor() as threads:
        list(threads.map(make, range(count)))


def time_loader(build, batch, settings):
    """Images/s of the loader alone on all its threads; prints those on fewer too."""
    done = subprocess.run(
        [str(build / "bench_images"), "--config",
         str(ROOT / "configs/vit_b16_imagenet_sigmoid.yaml"), "--set", f"train.global_batch={batch}",
         f"train.micro_batch={batch}", "data.validation=[]", "eval.every=0", *settings],
        stdout=subprocess.PIPE, text=True, check=True)
    print(done.stdout, end="", flush=True)
    return float(done.stdout.splitlines()[-1].split()[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--jpegs", type=int, default=2048,
                        help=f"{CLASSES} or more; 0: synthetic images alone")
    parser.add_argument("--without-timm", action="store_true")
    arguments = parser.parse_args()
    batch, steps = arguments.batch, arguments.steps
    if 0 < arguments.jpegs < CLASSES:
        parser.error(f"--jpegs: 0, or at least {CLASSES}: one a class")
    results = {}
    synthetic = ["data.source=synthetic", "data.train=[]", "augment.repeats=1"]
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("sigmoid", "softmax"):
            results[f"{kind}, synthetic"] = median(time_trainer(
                arguments.build, f"vit_b16_imagenet_{kind}", batch, steps, f"{folder}/{kind}",
                synthetic))
        if not arguments.without_timm:
            results["timm, compiled"] = time_timm(batch, steps)
        if arguments.jpegs:
            images = f"{folder}/jpegs"
            make_jpegs(images, arguments.jpegs)
            files = ["data.source=image_folder", f"data.train=[{images}]", "augment.repeats=1"]
            results["sigmoid, JPEGs"] = overall(time_trainer(
                arguments.build, "vit_b16_imagenet_sigmoid", batch, max(steps, JPEG_STEPS),
                f"{folder}/files", files))
            loader = time_loader(arguments.build, batch, files)
            print(f"loader alone {loader:.0f} images/s, model alone "
                  f"{results['sigmoid, synthetic']:.0f}, together {results['sigmoid, JPEGs']:.0f}")
    for name, speed in results.items():
        ratio = speed / results.get("timm, compiled", speed)
        print(f"ViT-B/16, batch {batch}: {name:20} {speed:8.0f} images/s  {ratio:.2f} of timm's")


if __name__ == "__main__":
    main()
