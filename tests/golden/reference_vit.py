"""The vision transformer of src/models/vision_transformer.h, written the plain PyTorch way, with
nn.Conv2d as the patch embedding. Its blocks are reference_lm.py's; parameters have our names."""

import torch
import torch.nn as nn

import reference_lm as lm


def sincos_positions(side, width):
    """[side^2, width] of He et al. (2022, MAE): columns first, then rows; sines before cosines."""
    frequency = 10000.0 ** (-torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")

    def encode(coordinate):
        angles = torch.outer(coordinate.flatten().to(torch.float64), frequency)
        return torch.cat([angles.sin(), angles.cos()], dim=1)

    return torch.cat([encode(columns), encode(rows)], dim=1)


class VisionTransformer(nn.Module):
    """`model` and `image` are the sections model and data.image of a run's YAML."""

    def __init__(self, model, image):
        super().__init__()
        vision, width = model["vision"], model["width"]
        side = vision["image_size"] // vision["patch_size"]
        self.pool = vision["pool"]
        prefix = 1 if self.pool == "class_token" else 0
        model = dict(model, seq_len=side**2 + prefix)
        self.patch_embedding = nn.Conv2d(vision["channels"], width, vision["patch_size"],
                                         stride=vision["patch_size"])
        self.class_token = nn.Parameter(torch.zeros(1, width)) if prefix else None
        self.positions, sincos = None, None
        if model["position"]["kind"] == "learned":
            self.positions = nn.Embedding(model["seq_len"], width)
        if model["position"]["kind"] == "sincos":
            sincos = torch.cat([torch.zeros(prefix, width), sincos_positions(side, width)])
        self.layers = nn.ModuleList(lm.Block(model) for _ in range(model["layers"]))
        self.final_norm = lm.make_norm(model["norm"], width)
        self.head = nn.Linear(width, vision["classes"])
        self.register_buffer("sincos", lm.in_default_dtype(sincos), persistent=False)
        for name in ("mean", "stddev"):
            self.register_buffer(name, torch.tensor(image[name])[:, None, None], persistent=False)

    def forward(self, images):
        """images [B, H, W, channels] of bytes -> logits [B, classes]."""
        pixels = (images.permute(0, 3, 1, 2) / 255 - self.mean) / self.stddev
        x = self.patch_embedding(pixels).flatten(2).transpose(1, 2)
        if self.class_token is not None:
            x = torch.cat([self.class_token.expand(len(x), 1, -1), x], dim=1)
        if self.positions is not None:
            x = x + self.positions.weight
        if self.sincos is not None:
            x = x + self.sincos
        for layer in self.layers:
            x = layer(x)
        x = self.final_norm(x)
        return self.head(x[:, 0] if self.class_token is not None else x.mean(dim=1))
