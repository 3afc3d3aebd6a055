#!/usr/bin/env python3
"""Writes the golden values of images: vision transformers and augmentation.

    venv/bin/pip install torch torchvision pillow numpy safetensors pyyaml
    venv/bin/python tests/golden/make_golden_vision.py

vit_*.safetensors: for the model of the YAML file of the same name, in float64,
    weight.NAME            the weights
    images                 bytes [B, H, W, channels]
    labels                 i32 [B]
    targets                [B, classes]
    logits                 [B, classes]
    sums                   objective, cross-entropy of the label, count, correct, correct among five
    gradient.NAME          of the mean objective; matrices as products (see make_golden.py)
augmentations.safetensors: bytes [H, W, channels]: `image`, what Pillow's resize makes of it
(resize.*), what torchvision's RandAugment makes of it (rand_augment.OPERATION.MAGNITUDE, with minus
where the direction is the other one) and what torchvision's functions of images of bytes make of
it (all else); batch.images and .labels, and mixup.* and cutmix.* that torchvision makes of them.
"""

import re
from unittest import mock

import numpy
import torch
import torch.nn.functional as F
import torchvision.transforms.functional as T
from PIL import Image
from torchvision.transforms import InterpolationMode, RandAugment, v2
from torchvision.transforms.autoaugment import _apply_op

import reference_lm as lm
import reference_vit as vit
from make_golden import FOLDER, Golden


def vision_transformer(name, seed):
    golden = Golden(seed)
    config = lm.read_config(FOLDER / f"{name}.yaml")
    vision, batch = config["model"]["vision"], 3
    model = vit.VisionTransformer(config["model"], config["data"]["image"])
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.dim() > 1:
                value = golden.normal(*parameter.shape, scale=parameter[0].numel() ** -0.5)
            else:  # around the initial value
                value = golden.normal(*parameter.shape, scale=0.2)
                value = (parameter + value).to(torch.bfloat16).to(torch.float64)
            parameter.copy_(value)
            golden.put_input(f"weight.{key}", parameter.flatten(1) if parameter.dim() == 4
                             else parameter)
    size = vision["image_size"]
    images = golden.integers(0, 256, batch, size, size, vision["channels"])
    labels = golden.integers(0, vision["classes"], batch)
    targets = torch.softmax(golden.normal(batch, vision["classes"]), dim=-1)
    golden.tensors["images"] = images.to(torch.uint8)
    golden.put_input("labels", labels)
    golden.put("targets", targets)
    logits = model(images)
    objective = F.cross_entropy(logits, targets)
    objective.backward()
    golden.put("logits", logits)
    ranks = (logits > logits.gather(1, labels[:, None])).sum(dim=1)
    golden.put("sums", torch.stack([objective.detach() * batch,
                                    F.cross_entropy(logits, labels, reduction="sum"),
                                    torch.tensor(batch), (ranks < 1).sum(), (ranks < 5).sum()]))
    for key, parameter in model.named_parameters():
        gradient = parameter.grad
        golden.put_products(f"gradient.{key}",
                            gradient.flatten(1) if gradient.dim() == 4 else gradient)
    golden.save(FOLDER / f"{name}.safetensors")


def picture(golden, height, width):
    """Smooth colours with some noise, and no channel that reaches both ends."""
    y, x = torch.meshgrid(torch.linspace(0, 3, height), torch.linspace(0, 4, width),
                          indexing="ij")
    waves = torch.stack([torch.sin(x + y), torch.cos(2 * x - y), torch.sin(3 * y)], dim=-1)
    noise = golden.normal(height, width, 3, scale=12)
    return (120 + 80 * waves + noise).clamp(3, 250).to(torch.uint8)


def augmentations():
    golden = Golden(20)
    image = picture(golden, 22, 27)
    golden.tensors["image"] = image
    chw = image.permute(2, 0, 1).contiguous()

    def put(name, result):
        golden.tensors[name] = result.permute(1, 2, 0).contiguous()

    pil = Image.fromarray(image.numpy())
    for name, out, box in (("resize.smaller", (9, 7), None), ("resize.larger", (40, 31), None),
                           ("resize.part", (16, 16), (3, 5, 21, 18)),
                           ("resize.inner", (12, 12), (2.25, 1.5, 20.75, 19.0))):
        # A box within the picture; whatever is cut out first has no neighbours.
        source, inner = pil, box
        if box is not None:
            left, top = int(box[0]), int(box[1])
            right, bottom = int(numpy.ceil(box[2])), int(numpy.ceil(box[3]))
            source = pil.crop((left, top, right, bottom))
            inner = (box[0] - left, box[1] - top, box[2] - left, box[3] - top)
        resized = source.resize((out[1], out[0]), Image.Resampling.BILINEAR, box=inner)
        golden.tensors[name] = torch.from_numpy(numpy.array(resized))
    put("resized_crop", T.resized_crop(chw, 4, 6, 15, 11, [8, 8], antialias=True))
    put("eval_view", T.center_crop(T.resize(chw, [16], antialias=True), [14, 14]))
    put("pad_crop", T.crop(T.pad(chw, [4]), 1, 7, 22, 27))
    put("flip", T.hflip(chw))
    put("brightness.low", T.adjust_brightness(chw, 0.37))
    put("brightness.high", T.adjust_brightness(chw, 1.63))
    put("saturation.low", T.adjust_saturation(chw, 0.25))
    put("saturation.high", T.adjust_saturation(chw, 1.75))
    put("contrast.low", T.adjust_contrast(chw, 0.25))
    put("contrast.high", T.adjust_contrast(chw, 1.75))
    put("sharpness.low", T.adjust_sharpness(chw, 0.25))
    put("sharpness.high", T.adjust_sharpness(chw, 1.75))
    put("hue.minus", T.adjust_hue(chw, -0.2))
    put("hue.plus", T.adjust_hue(chw, 0.4))
    put("posterize", T.posterize(chw, 5))
    put("solarize", T.solarize(chw, 101.5))
    put("autocontrast", T.autocontrast(chw))
    put("equalize", T.equalize(chw))
    put("rotate", T.rotate(chw, 17.3, InterpolationMode.NEAREST))

    def affine(translate, shear):
        return T.affine(chw, angle=0.0, translate=translate, scale=1.0, shear=shear,
                        interpolation=InterpolationMode.NEAREST, center=[0, 0])

    put("shear_x", affine([0, 0], [float(numpy.degrees(numpy.arctan(0.23))), 0.0]))
    put("shear_y", affine([0, 0], [0.0, float(numpy.degrees(numpy.arctan(-0.17)))]))
    put("translate", affine([5, -3], [0.0, 0.0]))
    rand_augment(chw, put)
    mixing(golden)
    golden.save(FOLDER / "augmentations.safetensors")


def mixing(golden):
    """MixUp and CutMix of a batch of three, with given instead of random numbers."""
    batch = torch.stack([picture(golden, 22, 27) for _ in range(3)])
    labels = torch.tensor([2, 0, 3])
    golden.tensors["batch.images"] = batch
    golden.tensors["batch.labels"] = labels.to(torch.int32)

    def put(name, transform, share):
        transform._dist.sample = lambda _: torch.tensor(share, dtype=torch.float64)
        images, targets = transform(batch.permute(0, 3, 1, 2).to(torch.float32), labels)
        # Ours are bytes.
        golden.tensors[f"{name}.images"] = (images.permute(0, 2, 3, 1) + 0.5).to(
            torch.uint8).contiguous()
        golden.put(f"{name}.targets", targets)

    put("mixup", v2.MixUp(num_classes=4), 0.7)
    # In the middle, and cut off at a corner.
    for name, share, middle in (("cutmix", 0.6, (13, 11)), ("cutmix.corner", 0.3, (25, 2))):
        numbers = iter(middle)
        with mock.patch("torch.randint", lambda *_, **__: torch.tensor([next(numbers)])):
            put(name, v2.CutMix(num_classes=4), share)


def rand_augment(chw, put):
    """Every operation as torchvision's RandAugment applies it, at its own table of strengths."""
    bins, height, width = 31, chw.shape[1], chw.shape[2]
    table = RandAugment(num_magnitude_bins=bins)._augmentation_space(bins, (height, width))
    for name, (strengths, is_signed) in table.items():
        # TranslateX becomes translate_x.
        own = re.sub("(?<=[a-z])(?=[A-Z])", "_", name).lower().replace("auto_contrast", "autocontrast")
        for magnitude in (9, 14, 30):
            strength = float(strengths[magnitude]) if strengths.ndim > 0 else 0.0
            for direction in (1, -1) if is_signed else (1,):
                changed = _apply_op(chw, name, direction * strength, InterpolationMode.NEAREST, None)
                put(f"rand_augment.{own}.{'minus_' if direction < 0 else ''}{magnitude}", changed)


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    torch.use_deterministic_algorithms(True)
    for seed, path in enumerate(sorted(FOLDER.glob("vit_*.yaml")), start=30):
        vision_transformer(path.stem, seed)
    # Its functions compute as they do in programs.
    torch.set_default_dtype(torch.float32)
    augmentations()
