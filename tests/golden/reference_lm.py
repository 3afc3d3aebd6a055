"""The decoder language model of src/models/decoder_lm.h, written the plain PyTorch way.

It is the oracle of make_golden.py and the other side of tools/bench/cpu_lm.py. It is told what to
build by the `model` section of a run's YAML, every key of it given (a run writes such a file beside
its results). Its parameters have our names, so state dicts and our files match key by key.
"""

import math
import re

import torch
import torch.nn as nn
import torch.nn.functional as F
import yaml


class ConfigLoader(yaml.SafeLoader):
    """YAML with the numbers of its version 1.2: PyYAML takes 1e-05, without a point, for text."""


ConfigLoader.add_implicit_resolver("tag:yaml.org,2002:float",
                                   re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
                                   list("-+0123456789"))


def read_config(path):
    """A run's YAML file as nested dictionaries."""
    with open(path, encoding="utf-8") as file:
        return yaml.load(file, ConfigLoader)


def alibi_slopes(heads):
    """Slopes of Press et al., "Train Short, Test Long" (2022), as their code interleaves them."""

    def geometric(n):
        start = 2.0 ** (-8.0 / n)
        return [start ** (i + 1) for i in range(n)]

    power = 2 ** int(math.log2(heads))
    slopes = geometric(power)
    if power < heads:
        slopes += geometric(2 * power)[0::2][: heads - power]
    return torch.tensor(slopes, dtype=torch.float64)


def visible_keys(seq_len, causal, window):
    """[T, T] of bool: query i (row) sees key j (column)."""
    i = torch.arange(seq_len)
    distance = i[:, None] - i[None, :]
    visible = torch.ones(seq_len, seq_len, dtype=torch.bool)
    if causal:
        visible &= distance >= 0
    if window:
        visible &= distance.abs() < window
    return visible


def logit_offsets(seq_len, causal=False, window=0, bias=0.0, slopes=None):
    """What is added to scale q.k and is not learned: [T, T], or [H, T, T] with ALiBi's slopes."""
    i = torch.arange(seq_len, dtype=torch.float64)
    offsets = torch.full((seq_len, seq_len), bias, dtype=torch.float64)
    if slopes is not None:
        offsets = offsets - slopes[:, None, None] * (i[:, None] - i[None, :]).abs()
    return offsets.masked_fill(~visible_keys(seq_len, causal, window), -math.inf)


def attend(kind, q, k, v, scale, offsets, is_causal=False):
    """q [B, H, T, D], k and v [B, KV, T, D]; offsets broadcast to [B, H, T, T], or None."""
    if kind == "softmax":
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=offsets, is_causal=is_causal, scale=scale,
            enable_gqa=k.shape[1] != q.shape[1])
    if k.shape[1] != q.shape[1]:
        k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
    # In place: neither the product nor the sum is needed by its backward.
    logits = (q * scale) @ k.transpose(-2, -1)
    return logits.add_(offsets).sigmoid_() @ v


def rope_rotations(seq_len, head_dim, theta):
    """[T, D/2] unit complex numbers exp(i t theta^(-2k/D)) (Su et al. 2021)."""
    frequencies = theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    angles = torch.outer(torch.arange(seq_len, dtype=torch.float64), frequencies)
    return torch.polar(torch.ones_like(angles), angles)


def rotate(x, rotations):
    """Rotary positions: channels k and k + D/2 are one complex number."""
    halves = torch.complex(*x.chunk(2, dim=-1)) * rotations
    return torch.cat([halves.real, halves.imag], dim=-1)


def sincos_positions(seq_len, width):
    """[T, C] of Vaswani et al. (2017), all sines before all cosines."""
    rotations = rope_rotations(seq_len, width, 10000.0)
    return torch.cat([rotations.imag, rotations.real], dim=-1)


def in_default_dtype(table):
    """A real or complex table in the precision that parameters are made in, or None."""
    if table is None:
        return None
    dtype = torch.get_default_dtype()
    return table.to(dtype.to_complex() if table.is_complex() else dtype)


def make_norm(norm, width):
    kind = {"rmsnorm": nn.RMSNorm, "layernorm": nn.LayerNorm}[norm["kind"]]
    return kind(width, eps=norm["eps"])


class LayerScale(nn.Module):
    def __init__(self, width, gamma):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), gamma))

    def forward(self, x):
        return self.gamma * x


class Attention(nn.Module):
    def __init__(self, model):
        super().__init__()
        attention, width, seq_len = model["attention"], model["width"], model["seq_len"]
        self.kind = attention["kind"]
        self.heads = model["heads"]
        self.kv_heads = model["kv_heads"] or self.heads
        self.head_dim = model["head_dim"] or width // self.heads
        self.scale = attention["scale"]
        if self.scale in (None, "1/sqrt(head_dim)"):
            self.scale = self.head_dim**-0.5
        bias = attention["bias"]
        bias = -math.log(seq_len) if bias == "-log(seq_len)" else float(bias)

        q_width, kv_width = self.heads * self.head_dim, self.kv_heads * self.head_dim
        self.widths = [q_width, kv_width, kv_width]
        self.qkv = nn.Linear(width, sum(self.widths), bias=model["linear_bias"])
        self.out = nn.Linear(q_width, width, bias=model["linear_bias"])
        self.q_norm = self.k_norm = nn.Identity()
        if attention["qk_norm"]:
            self.q_norm = nn.RMSNorm(self.head_dim, eps=model["norm"]["eps"])
            self.k_norm = nn.RMSNorm(self.head_dim, eps=model["norm"]["eps"])
        self.bias = None
        if attention["learned_bias"]:
            self.bias = nn.Parameter(torch.full((self.heads,), bias))
            bias = 0.0

        alibi = model["position"]["kind"] == "alibi"
        # What the fused softmax attention can do alone is left to it.
        self.is_causal = (self.kind == "softmax" and attention["causal"] and not alibi
                          and not attention["window"])
        offsets = None
        if not self.is_causal:
            offsets = logit_offsets(seq_len, attention["causal"], attention["window"], bias,
                                    alibi_slopes(self.heads) if alibi else None)
        rotations = None
        if model["position"]["kind"] == "rope":
            rotations = rope_rotations(seq_len, self.head_dim, model["position"]["rope_theta"])
        self.register_buffer("offsets", in_default_dtype(offsets), persistent=False)
        self.register_buffer("rotations", in_default_dtype(rotations), persistent=False)

    def forward(self, x, padding=None):
        """padding is added to the offsets of the logits, where some keys are none."""
        batch, seq_len, _ = x.shape
        q, k, v = (part.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
                   for part in self.qkv(x).split(self.widths, dim=-1))
        q, k = self.q_norm(q), self.k_norm(k)
        if self.rotations is not None:
            q, k = rotate(q, self.rotations), rotate(k, self.rotations)
        offsets = self.offsets
        if self.bias is not None:
            offsets = offsets + self.bias[:, None, None]
        if padding is not None:
            offsets = offsets + padding
        out = attend(self.kind, q, k, v, self.scale, offsets, self.is_causal)
        return self.out(out.transpose(1, 2).reshape(batch, seq_len, -1))


class Mlp(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.kind, width = model["mlp"]["kind"], model["width"]
        gated = self.kind == "swiglu"
        hidden = model["mlp"]["hidden"]
        if not hidden:
            hidden = 256 * math.ceil((8 * width / 3 if gated else 4 * width) / 256)
        self.up = nn.Linear(width, 2 * hidden if gated else hidden, bias=model["linear_bias"])
        self.down = nn.Linear(hidden, width, bias=model["linear_bias"])

    def forward(self, x):
        hidden = self.up(x)
        if self.kind == "swiglu":
            gate, up = hidden.chunk(2, dim=-1)
            return self.down(F.silu(gate) * up)
        return self.down(F.gelu(hidden) if self.kind == "gelu" else F.relu(hidden).square())


class Block(nn.Module):
    def __init__(self, model):
        super().__init__()
        norm, width = model["norm"], model["width"]
        self.structure = norm["structure"]
        self.attention_norm, self.mlp_norm = make_norm(norm, width), make_norm(norm, width)
        self.attention_post_norm = self.mlp_post_norm = nn.Identity()
        if self.structure == "hybrid":
            self.attention_post_norm = make_norm(norm, width)
            self.mlp_post_norm = make_norm(norm, width)
        self.attention_scale = self.mlp_scale = nn.Identity()
        if model["layer_scale"]:
            self.attention_scale = LayerScale(width, model["layer_scale"])
            self.mlp_scale = LayerScale(width, model["layer_scale"])
        self.attention, self.mlp = Attention(model), Mlp(model)

    def forward(self, x, padding=None):
        if self.structure == "post":
            x = self.attention_norm(x + self.attention_scale(self.attention(x, padding)))
            return self.mlp_norm(x + self.mlp_scale(self.mlp(x)))
        y = self.attention_post_norm(self.attention(self.attention_norm(x), padding))
        x = x + self.attention_scale(y)
        return x + self.mlp_scale(self.mlp_post_norm(self.mlp(self.mlp_norm(x))))


class DecoderLm(nn.Module):
    def __init__(self, model):
        super().__init__()
        width, seq_len = model["width"], model["seq_len"]
        self.embedding = nn.Embedding(model["vocab_size"], width)
        self.positions = None
        if model["position"]["kind"] == "learned":
            self.positions = nn.Embedding(seq_len, width)
        sincos = None
        if model["position"]["kind"] == "sincos":
            sincos = sincos_positions(seq_len, width)
        self.register_buffer("sincos", in_default_dtype(sincos), persistent=False)
        self.layers = nn.ModuleList(Block(model) for _ in range(model["layers"]))
        self.final_norm = nn.Identity()
        if model["norm"]["structure"] != "post":
            self.final_norm = make_norm(model["norm"], width)
        self.head = nn.Linear(width, model["vocab_size"], bias=False)
        self.tied = model["tied_embedding"]
        if self.tied:
            self.head.weight = self.embedding.weight
        self.reset_parameters()

    def reset_parameters(self):
        """Normal with fan-in scaling for linear layers, of 1/sqrt(width) for embeddings."""
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=module.weight.shape[1] ** -0.5)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, tokens):
        """tokens [B, T] -> logits [B, T, V]."""
        x = self.embedding(tokens)
        if self.positions is not None:
            x = x + self.positions.weight
        if self.sincos is not None:
            x = x + self.sincos
        for layer in self.layers:
            x = layer(x)
        return self.head(self.final_norm(x))


def language_model_loss(logits, targets, label_smoothing=0.0, z_loss=0.0, ignore_index=-1):
    """Mean over the counted targets of the smoothed cross-entropy plus z_loss (log Z)^2."""
    logits, targets = logits.flatten(0, -2), targets.flatten()
    loss = F.cross_entropy(logits, targets, ignore_index=ignore_index,
                           label_smoothing=label_smoothing)
    if z_loss:
        log_z = torch.logsumexp(logits[targets != ignore_index], dim=-1)
        loss = loss + z_loss * log_z.square().mean()
    return loss


def parameter_groups(model, weight_decay):
    """Groups for a PyTorch optimizer: matrices decay; norms, biases and LayerScale do not."""
    matrices = [p for p in model.parameters() if p.dim() == 2]
    others = [p for p in model.parameters() if p.dim() != 2]
    return [{"params": matrices, "weight_decay": weight_decay},
            {"params": others, "weight_decay": 0.0}]
