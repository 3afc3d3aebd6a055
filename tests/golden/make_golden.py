#!/usr/bin/env python3
"""Writes the golden values that tests/models/golden_*_test.cpp check our operations against.

    python3 -m venv venv && venv/bin/pip install torch numpy safetensors pyyaml
    venv/bin/python tests/golden/make_golden.py

PyTorch computes all of it in float64 on the CPU, with its own functions and autograd. Inputs are
rounded to bfloat16, so they are exact in every precision and small in the file.

layers.safetensors: CASE.NAME for the inputs and outputs of each operation; dNAME is the gradient
of NAME under the loss sum(output * d_output).

lm_*.safetensors: for the model of the YAML file of the same name,
    weight.NAME            the initial weights
    tokens, targets        i32 [B, T]; -1 is ignored
    factors                the schedule's factor at each optimizer step
    sums                   objective, cross-entropy, count and correct, summed over targets
    logits                 [V] behind the last token
    gradient.NAME          of the mean objective at the initial weights
    grad_norms             before clipping, at each step
    updated.NAME           weights behind the last step
To keep the files small, a matrix M under gradient or updated, and where a layer's case says so, is
stored as two products that no entry escapes: NAME.rows = M cos(0, 1, 2, ...) and
NAME.columns = cos(0, 1, 2, ...) M.
"""

import math
import pathlib

import numpy
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

import reference_lm as lm

FOLDER = pathlib.Path(__file__).resolve().parent


class Golden:
    """Collects named tensors; random inputs come from one seeded generator."""

    def __init__(self, seed):
        self.tensors = {}
        self.random = numpy.random.Generator(numpy.random.Philox(seed))

    def normal(self, *shape, scale=1.0, center=0.0):
        values = torch.from_numpy(center + scale * self.random.standard_normal(shape))
        return values.to(torch.bfloat16).to(torch.float64)

    def integers(self, low, high, *shape):
        return torch.from_numpy(self.random.integers(low, high, shape))

    def put_input(self, name, value):
        narrow = value.detach().to(torch.int32 if value.dtype == torch.int64 else torch.bfloat16)
        assert torch.equal(narrow.to(value.dtype), value), name
        self.tensors[name] = narrow.contiguous()

    def put(self, name, value):
        assert value.isfinite().all(), name
        self.tensors[name] = value.detach().to(torch.float64).clone().contiguous()

    def put_products(self, name, value):
        if value.dim() != 2:
            return self.put(name, value)
        self.put(name + ".rows", value @ torch.cos(torch.arange(value.shape[1])))
        self.put(name + ".columns", torch.cos(torch.arange(value.shape[0])) @ value)

    def save(self, path):
        save_file(self.tensors, path)
        print(f"{path.name}: {path.stat().st_size} bytes")


def run_case(golden, case, inputs, compute, put_outputs=None):
    """compute(**inputs) -> {name: output}. Records the inputs, a random d_output of each output,
    the outputs and the gradients of every floating input."""
    put_outputs = put_outputs or golden.put
    leaves = {name: value.clone().requires_grad_(value.is_floating_point())
              for name, value in inputs.items()}
    outputs = compute(**leaves)
    loss = 0.0
    for name, value in outputs.items():
        d_value = golden.normal(*value.shape)
        golden.put_input(f"{case}.d_{name}", d_value)
        loss = loss + (value * d_value).sum()
    loss.backward()
    for name, value in leaves.items():
        golden.put_input(f"{case}.{name}", value)
        if value.is_floating_point():
            put_outputs(f"{case}.d{name}", value.grad)
    for name, value in outputs.items():
        put_outputs(f"{case}.{name}", value.detach())


def linear_cases(golden):
    activations = {"none": lambda x: x, "gelu": F.gelu, "relu2": lambda x: F.relu(x).square()}
    for name, activation in activations.items():
        def two_layers(x, weight1, bias1, weight2, bias2):
            return {"y": F.linear(activation(F.linear(x, weight1, bias1)), weight2, bias2)}

        inputs = {"x": golden.normal(6, 5), "weight1": golden.normal(7, 5, scale=0.5),
                  "bias1": golden.normal(7), "weight2": golden.normal(4, 7, scale=0.5),
                  "bias2": golden.normal(4)}
        run_case(golden, f"linear_{name}", inputs, two_layers)


def norm_cases(golden):
    """Rows are 2 sequences of 3; sample_scale is stochastic depth's, one number a sequence."""
    sample_scale = torch.tensor([1.25, 0.0])
    for kind in ["rmsnorm", "layernorm"]:
        def norm(x, weight, bias):
            if kind == "rmsnorm":
                return F.rms_norm(x, (8,), weight, 1e-5)
            return F.layer_norm(x, (8,), weight, bias, 1e-5)

        def alone(residual, weight, bias=None):
            return {"y": norm(residual, weight, bias)}

        def with_branch(residual, delta, layer_scale, weight, bias=None):
            scale = layer_scale * sample_scale.repeat_interleave(3)[:, None]
            residual_out = residual + scale * delta
            return {"residual_out": residual_out, "y": norm(residual_out, weight, bias)}

        inputs = {"residual": golden.normal(6, 8, center=0.3),
                  "weight": golden.normal(8, scale=0.2, center=1.0)}
        if kind == "layernorm":
            inputs["bias"] = golden.normal(8)
        run_case(golden, f"{kind}_alone", inputs, alone)
        inputs |= {"delta": golden.normal(6, 8), "layer_scale": golden.normal(8, scale=0.5)}
        run_case(golden, f"{kind}_branch", inputs, with_branch)
    golden.put_input("sample_scale", sample_scale)


def swiglu_case(golden):
    def swiglu(x):
        gate, up = x.chunk(2, dim=-1)
        return {"y": F.silu(gate) * up}

    run_case(golden, "swiglu", {"x": golden.normal(5, 14, scale=2.0)}, swiglu)


def qk_norm_rope_cases(golden):
    batch, seq_len, heads, kv_heads, head_dim, theta = 2, 5, 4, 2, 6, 100.0
    for case, normed, rotated in [("norm", True, False), ("rope", False, True),
                                  ("norm_rope", True, True)]:
        def compute(qkv, q_weight=None, k_weight=None):
            x = qkv.view(batch, seq_len, heads + 2 * kv_heads, head_dim).transpose(1, 2)
            q, k, _ = x.split([heads, kv_heads, kv_heads], dim=1)
            if normed:
                q = F.rms_norm(q, (head_dim,), q_weight, 1e-5)
                k = F.rms_norm(k, (head_dim,), k_weight, 1e-5)
            qk = torch.cat([q, k], dim=1)
            if rotated:
                qk = lm.rotate(qk, lm.rope_rotations(seq_len, head_dim, theta))
            return {"qk": qk.transpose(1, 2).reshape(batch * seq_len, -1)}

        inputs = {"qkv": golden.normal(batch * seq_len, (heads + 2 * kv_heads) * head_dim)}
        if normed:
            inputs |= {"q_weight": golden.normal(head_dim, scale=0.2, center=1.0),
                       "k_weight": golden.normal(head_dim, scale=0.2, center=1.0)}
        run_case(golden, f"qk_{case}", inputs, compute)


# name: (kind, causal, window, bias, ALiBi, bias by head, key lengths). Where a window ends before
# the last key, queries of the shorter sequence see no key at all.
ATTENTION_CASES = {
    "sigmoid_causal_alibi": ("sigmoid", True, 0, -2.0, True, False, None),
    "sigmoid_window": ("sigmoid", True, 4, -1.0, False, False, None),
    "sigmoid_head_bias": ("sigmoid", True, 0, -1.0, False, True, None),
    "sigmoid_lengths": ("sigmoid", False, 3, -1.0, True, True, [8, 4]),
    "softmax_causal": ("softmax", True, 0, 0.0, False, False, None),
    "softmax_causal_alibi": ("softmax", True, 0, 0.0, True, False, None),
    "softmax_window": ("softmax", True, 4, 0.0, False, False, None),
    "softmax_lengths": ("softmax", False, 3, 0.0, True, False, [8, 4]),
}
# Longer than any tile of a backend, and a multiple of none.
LONG_ATTENTION_CASES = {
    "long_sigmoid_causal_alibi": ("sigmoid", True, 0, -5.0, True, False, None),
    "long_sigmoid_lengths": ("sigmoid", False, 100, -5.0, False, True, [140]),
    "long_softmax_causal": ("softmax", True, 0, 0.0, False, False, None),
    "long_softmax_lengths": ("softmax", False, 100, 0.0, True, False, [140]),
}


def attention_cases(golden, cases, batch, seq_len, heads, kv_heads, head_dim, put_outputs):
    """q, k and v are rows of (heads, head_dim), as our packed projections have them."""
    scale = head_dim**-0.5
    for case, (kind, causal, window, bias, alibi, by_head, lengths) in cases.items():
        offsets = lm.logit_offsets(seq_len, causal, window, bias,
                                   lm.alibi_slopes(heads) if alibi else None)
        offsets = offsets.expand(batch, heads, seq_len, seq_len).clone()
        for b, length in enumerate(lengths or []):
            offsets[b, :, :, length:] = -math.inf

        def compute(q, k, v, head_bias=None):
            q, k, v = (x.view(batch, seq_len, -1, head_dim).transpose(1, 2) for x in (q, k, v))
            total = offsets if head_bias is None else offsets + head_bias[:, None, None]
            out = lm.attend(kind, q, k, v, scale, total)
            return {"out": out.transpose(1, 2).reshape(batch * seq_len, -1)}

        rows = batch * seq_len
        inputs = {"q": golden.normal(rows, heads * head_dim),
                  "k": golden.normal(rows, kv_heads * head_dim),
                  "v": golden.normal(rows, kv_heads * head_dim)}
        if by_head:
            inputs["head_bias"] = golden.normal(heads, scale=0.5)
        run_case(golden, case, inputs, compute, put_outputs)
        golden.put_input(f"{case}.sizes", torch.tensor([batch, seq_len, heads, kv_heads, head_dim]))
        golden.put(f"{case}.bias", torch.tensor([bias]))
        golden.put_input(f"{case}.mask", torch.tensor([int(causal), window, int(alibi)]))
        if lengths:
            golden.put_input(f"{case}.key_lengths", torch.tensor(lengths))


def embedding_case(golden):
    def embed(tokens, weight, positions):
        return {"y": F.embedding(tokens, weight) + positions.repeat(2, 1)}

    inputs = {"tokens": golden.integers(0, 5, 6), "weight": golden.normal(7, 4),
              "positions": golden.normal(3, 4)}
    run_case(golden, "embedding", inputs, embed)


def cross_entropy_cases(golden):
    settings = {"plain": (0.0, 0.0), "smoothing": (0.1, 0.0), "z_loss": (0.0, 0.03),
                "both": (0.2, 0.01)}
    for case, (label_smoothing, z_loss) in settings.items():
        x, weight = golden.normal(9, 6), golden.normal(11, 6)
        targets = golden.integers(0, 11, 9)
        targets[[2, 7]] = -1
        x.requires_grad_(), weight.requires_grad_()
        logits = F.linear(x, weight)
        loss = lm.language_model_loss(logits, targets, label_smoothing, z_loss)
        loss.backward()
        name = f"cross_entropy_{case}"
        golden.put(f"{name}.settings", torch.tensor([label_smoothing, z_loss]))
        for key, value in {"x": x, "weight": weight, "targets": targets}.items():
            golden.put_input(f"{name}.{key}", value)
        golden.put(f"{name}.sums", loss_sums(logits, targets, loss))
        golden.put(f"{name}.dx", x.grad)
        golden.put(f"{name}.dweight", weight.grad)


def position_tables(golden):
    golden.put("alibi_slopes_8", lm.alibi_slopes(8))
    golden.put("alibi_slopes_12", lm.alibi_slopes(12))
    golden.put("sincos_positions", lm.sincos_positions(5, 6))


def loss_sums(logits, targets, loss):
    """Objective, cross-entropy, count and correct, summed over the counted targets."""
    logits, targets = logits.detach().flatten(0, -2), targets.flatten()
    count = (targets != -1).sum()
    nll = F.cross_entropy(logits, targets, ignore_index=-1, reduction="sum")
    correct = (logits.argmax(dim=-1) == targets).sum()
    return torch.stack([loss.detach() * count, nll, count, correct])


def clip(parameters, max_norm):
    """clip_grad_norm_, whose factor is max_norm / (norm + 1e-6), at the max_norm that makes the
    factor max_norm / norm, as ours is. Returns the norm before."""
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters])
    if max_norm:
        torch.nn.utils.clip_grad_norm_(parameters, max_norm * (norm + 1e-6) / norm)
    return norm


class DecoupledAdamW:
    """AdamW whose decay is multiplied by the schedule's factor alone, not by the learning rate."""

    def __init__(self, groups, settings):
        self.groups, self.settings, self.steps = groups, settings, 0
        self.moments = {p: (torch.zeros_like(p), torch.zeros_like(p))
                        for group in groups for p in group["params"]}

    @torch.no_grad()
    def step(self, factor):
        self.steps += 1
        beta1, beta2 = self.settings["beta1"], self.settings["beta2"]
        for group in self.groups:
            for p in group["params"]:
                m, v = self.moments[p]
                m.mul_(beta1).add_((1 - beta1) * p.grad)
                v.mul_(beta2).add_((1 - beta2) * p.grad**2)
                m_hat, v_hat = m / (1 - beta1**self.steps), v / (1 - beta2**self.steps)
                rate = self.settings["learning_rate"] * factor * group["rate_scale"]
                decay = factor * group["weight_decay"] * p
                p -= rate * m_hat / (v_hat.sqrt() + self.settings["eps"]) + decay


class CoupledAdamW:
    """torch.optim.AdamW under a schedule and with a rate scale for each group."""

    def __init__(self, groups, settings):
        self.learning_rate = settings["learning_rate"]
        self.optimizer = torch.optim.AdamW(groups, betas=(settings["beta1"], settings["beta2"]),
                                           eps=settings["eps"])

    def step(self, factor):
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * factor * group["rate_scale"]
        self.optimizer.step()


def make_optimizer(model, width, settings):
    """Matrices decay; mup_simple scales the rate of linear weights, which embeddings are not."""
    groups = []
    for name, parameter in model.named_parameters():
        is_matrix = parameter.dim() == 2
        is_linear = is_matrix and not name.startswith(("embedding.", "positions."))
        scaled = settings["rate_scale"] == "mup_simple" and is_linear
        groups.append({"params": [parameter],
                       "weight_decay": settings["weight_decay"] if is_matrix else 0.0,
                       "rate_scale": settings["mup_base_width"] / width if scaled else 1.0})
    kinds = {"coupled": CoupledAdamW, "decoupled": DecoupledAdamW}
    return kinds[settings["decay_mode"]](groups, settings)


def language_model(name, seed):
    golden = Golden(seed)
    config = lm.read_config(FOLDER / f"{name}.yaml")
    settings, batch = config["model"], 2
    model = lm.DecoderLm(settings)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.dim() == 2:
                value = golden.normal(*parameter.shape, scale=parameter.shape[1] ** -0.5)
            else:  # around the initial value
                value = golden.normal(*parameter.shape, scale=0.2)
                value = (parameter + value).to(torch.bfloat16).to(torch.float64)
            parameter.copy_(value)
            golden.put_input(f"weight.{key}", parameter)

    tokens = golden.integers(0, settings["vocab_size"], batch, settings["seq_len"])
    targets = golden.integers(0, settings["vocab_size"], batch, settings["seq_len"])
    targets[0, 5], targets[1, -3:] = -1, -1
    factors = torch.tensor([0.5, 1.0])
    golden.put_input("tokens", tokens)
    golden.put_input("targets", targets)
    golden.put_input("factors", factors)

    optimizer = make_optimizer(model, settings["width"], config["optimizer"])
    grad_norms = []
    for step, factor in enumerate(factors.tolist()):
        model.zero_grad()
        logits = model(tokens)
        loss = lm.language_model_loss(logits, targets, **config["loss"])
        loss.backward()
        if step == 0:
            golden.put("sums", loss_sums(logits, targets, loss))
            golden.put("logits", logits[-1, -1])
            for key, parameter in model.named_parameters():
                golden.put_products(f"gradient.{key}", parameter.grad)
        grad_norms.append(clip(list(model.parameters()), config["optimizer"]["clip_norm"]))
        optimizer.step(factor)
    golden.put("grad_norms", torch.stack(grad_norms))
    for key, parameter in model.named_parameters():
        golden.put_products(f"updated.{key}", parameter.detach())
    print(f"{name}: loss {loss.item():.4f}, last gradient norm {grad_norms[-1].item():.3f}")
    golden.save(FOLDER / f"{name}.safetensors")


def layers():
    golden = Golden(1)
    linear_cases(golden)
    norm_cases(golden)
    swiglu_case(golden)
    qk_norm_rope_cases(golden)
    attention_cases(golden, ATTENTION_CASES, 2, 8, 4, 2, 4, golden.put)
    attention_cases(golden, LONG_ATTENTION_CASES, 1, 150, 2, 1, 4, golden.put_products)
    embedding_case(golden)
    cross_entropy_cases(golden)
    position_tables(golden)
    golden.save(FOLDER / "layers.safetensors")


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    torch.use_deterministic_algorithms(True)
    layers()
    for seed, path in enumerate(sorted(FOLDER.glob("lm_*.yaml")), start=2):
        language_model(path.stem, seed)
